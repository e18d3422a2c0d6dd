#include "core/kernels/softmax.h"

#include "core/kernels/softmax_device.h"
#include "tests/core/kernels/sample_data.h"
#include "tests/cuda/device_memory.h"

namespace tw {
namespace {

namespace device = kernels::device;
using device::ScoreRows;

class DeviceSoftmax : public DeviceTest {
 protected:
  static constexpr int64_t kRows = 5;
  // Row 1 has classes that cannot be, the label of row 3 is left out.
  void Fill(int64_t cols) {
    cols_ = static_cast<size_t>(cols);
    scores_ = RandomFloats(static_cast<size_t>(kRows) * cols_, cols_, 4.0f);
    for (size_t j = 1; j < cols_; j += 3) scores_[cols_ + j] = -INFINITY;
    labels_ = {0, 0, cols - 1, -100, cols / 2};
    rows_ = {Upload(scores_), Upload(labels_), kRows, cols, cols};
    losses_ = AllocateOf<double>(kRows);
  }
  void ExpectTheReference(float scale) {
    const std::vector<double> losses = Download(losses_, kRows);
    const std::vector<float> gradients = Download(rows_.scores, scores_.size());
    for (size_t r = 0; r < kRows; ++r) {
      const std::span<float> row = std::span(scores_).subspan(r * cols_, cols_);
      double loss = 0;
      if (labels_[r] < 0) {
        std::ranges::fill(row, 0.0f);
      } else {
        loss = kernels::reference::CrossEntropyInPlace(row, labels_[r], scale);
      }
      EXPECT_NEAR(losses[r], loss, 1e-6 * (1 + std::fabs(loss))) << r;
      for (size_t j = 0; j < cols_; ++j) {
        EXPECT_NEAR(gradients[r * cols_ + j], row[j], 1e-6 * scale) << r << " " << j;
      }
    }
  }
  size_t cols_ = 0;
  std::vector<float> scores_;
  std::vector<int64_t> labels_;
  ScoreRows rows_;
  double* losses_ = nullptr;
};

TEST_F(DeviceSoftmax, LossesAndGradientsAreTheReferencesToRounding) {
  for (const int64_t cols : {1, 7, 31, 127, 128, 129, 1000, 4099}) {
    Fill(cols);
    EXPECT_EQ(LaunchesOf(1, [&] { CrossEntropyInPlace(rows_, 0.25f, losses_, stream()); }), 1);
    ExpectTheReference(0.25f);
  }
}

TEST_F(DeviceSoftmax, ClassesMayComeInPieces) {
  for (const int64_t cols : {1, 129, 4099}) {
    Fill(cols);
    auto* sums = AllocateOf<kernels::LogSumExp>(kRows);
    auto* label_scores = AllocateOf<double>(kRows);
    auto* lse = AllocateOf<double>(kRows);
    const auto pieces = [&](auto work) {
      for (int64_t from = 0; from < cols; from += 1000) {
        ScoreRows piece = rows_;
        piece.scores += from;
        piece.cols = std::min<int64_t>(1000, cols - from);
        piece.first_class = from;
        work(piece);
      }
    };
    device::BeginScores(kRows, sums, label_scores, stream());
    pieces([&](const ScoreRows& p) { device::AddScores(p, sums, label_scores, stream()); });
    device::FinishScores(rows_, sums, label_scores, lse, losses_, stream());
    pieces([&](const ScoreRows& p) { device::SoftmaxGradient(p, lse, 2.0f, stream()); });
    ExpectTheReference(2.0f);
  }
}

TEST_F(DeviceSoftmax, WhatIsNoNumberMakesLossAndGradientNaN) {
  const size_t cols = 300;
  std::vector<float> scores(4 * cols, 1.0f);
  scores[299] = NAN;
  scores[cols] = INFINITY;
  std::fill_n(scores.begin() + 2 * cols, cols, -INFINITY);
  const ScoreRows rows{Upload(scores), Upload(std::vector<int64_t>{5, 5, 5, 5}), 4, cols, cols};
  auto* losses = AllocateOf<double>(4);
  device::CrossEntropyInPlace(rows, 1.0f, losses, stream());
  const std::vector<double> got = Download(losses, 4);
  const std::vector<float> gradients = Download(rows.scores, scores.size());
  for (size_t r = 0; r < 3; ++r) {
    EXPECT_TRUE(std::isnan(got[r])) << r;
    EXPECT_TRUE(std::isnan(gradients[r * cols + 7])) << r;
  }
  EXPECT_NEAR(got[3], std::log(300.0), 1e-6);
}

}  // namespace
}  // namespace tw
