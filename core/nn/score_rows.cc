#include "core/nn/score_rows.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/scalar_tensor.h>

#include <algorithm>

#include "core/api/tensor_scope.h"
#include "core/kernels/device_kernels.h"
#include "core/kernels/softmax.h"

namespace tw {
namespace {

constexpr int64_t kRowsPerTask = 4;

ScoreSums EmptySums(const at::Tensor& labels) {
  const int64_t rows = labels.size(0), bytes = sizeof(kernels::LogSumExp);
  return {at::empty({rows * bytes}, labels.options().dtype(at::kByte)),
          at::empty({rows}, labels.options().dtype(at::kDouble))};
}

class HostRows : public ScoreRows {
 public:
  void CrossEntropy(const ScoreBlock& block, float scale, const at::Tensor& losses) const override {
    auto* loss = losses.data_ptr<double>();
    ForRows(block, [=](int64_t r, int64_t label, std::span<float> row) {
      loss[r] = label < 0 ? 0 : kernels::CrossEntropyInPlace(row, label, scale);
      if (label < 0) std::ranges::fill(row, 0.0f);
    });
  }

  ScoreSums Begin(const at::Tensor& labels) const override {
    const ScoreSums sums = EmptySums(labels);
    std::fill_n(Exponentials(sums), labels.size(0), kernels::LogSumExp{});
    return sums;
  }
  void Add(const ScoreBlock& block, const ScoreSums& sums) const override {
    auto* exponentials = Exponentials(sums);
    auto* label_scores = sums.label_scores.data_ptr<double>();
    ForRows(block, [=, first = block.first_class](int64_t r, int64_t label, std::span<float> row) {
      if (label < 0) return;
      exponentials[r].Add(row);
      if (Holds(row, label - first)) {
        label_scores[r] = static_cast<double>(row[static_cast<size_t>(label - first)]);
      }
    });
  }
  void Finish(const at::Tensor& labels, const ScoreSums& sums, const at::Tensor& lse,
              const at::Tensor& losses) const override {
    const auto* label = labels.const_data_ptr<int64_t>();
    for (int64_t r = 0; r < labels.size(0); ++r) {
      const bool counts = label[r] >= 0;
      const double value = counts ? Exponentials(sums)[r].value() : 0;
      lse.data_ptr<double>()[r] = value;
      losses.data_ptr<double>()[r] =
          counts ? value - sums.label_scores.const_data_ptr<double>()[r] : 0;
    }
  }
  void Gradient(const ScoreBlock& block, const at::Tensor& lse, float scale) const override {
    const auto* sum = lse.const_data_ptr<double>();
    ForRows(block, [=, first = block.first_class](int64_t r, int64_t label, std::span<float> row) {
      if (label < 0) {
        std::ranges::fill(row, 0.0f);
        return;
      }
      kernels::SoftmaxGradient(row, sum[r], scale);
      if (Holds(row, label - first)) row[static_cast<size_t>(label - first)] -= scale;
    });
  }

  at::Tensor Mean(const at::Tensor& losses, int64_t valid) const override {
    double sum = 0;
    for (int64_t r = 0; r < losses.numel(); ++r) sum += losses.const_data_ptr<double>()[r];
    return at::scalar_tensor(sum / static_cast<double>(valid), at::kFloat);
  }

 private:
  static kernels::LogSumExp* Exponentials(const ScoreSums& sums) {
    return reinterpret_cast<kernels::LogSumExp*>(sums.exponentials.data_ptr<uint8_t>());
  }
  static bool Holds(std::span<const float> row, int64_t at) {
    return at >= 0 && at < static_cast<int64_t>(row.size());
  }
  template <class F>
  static void ForRows(const ScoreBlock& block, F&& work) {
    auto* scores = block.scores.data_ptr<float>();
    const auto* label = block.labels.const_data_ptr<int64_t>();
    const int64_t cols = block.scores.size(1);
    at::parallel_for(0, block.scores.size(0), kRowsPerTask, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        work(r, label[r], {scores + r * cols, static_cast<size_t>(cols)});
      }
    });
  }
};

class QueuedRows : public ScoreRows {
 public:
  void CrossEntropy(const ScoreBlock& block, float scale, const at::Tensor& losses) const override {
    const Rows rows(block);
    rows.device->CrossEntropyRows(rows.scores, rows.labels, rows.count, rows.cols, rows.cols, scale,
                                  losses.data_ptr<double>());
  }

  ScoreSums Begin(const at::Tensor& labels) const override {
    const ScoreSums sums = EmptySums(labels);
    const TensorScope scope(labels);
    kernels::OnDevice()->BeginScores(labels.size(0), sums.exponentials.data_ptr(),
                                     sums.label_scores.data_ptr<double>());
    return sums;
  }
  void Add(const ScoreBlock& block, const ScoreSums& sums) const override {
    const Rows rows(block);
    rows.device->AddScores(rows.scores, rows.labels, rows.count, rows.cols, rows.cols,
                           block.first_class, sums.exponentials.data_ptr(),
                           sums.label_scores.data_ptr<double>());
  }
  void Finish(const at::Tensor& labels, const ScoreSums& sums, const at::Tensor& lse,
              const at::Tensor& losses) const override {
    const TensorScope scope(labels);
    kernels::OnDevice()->FinishScores(labels.const_data_ptr<int64_t>(), labels.size(0),
                                      sums.exponentials.const_data_ptr(),
                                      sums.label_scores.const_data_ptr<double>(),
                                      lse.data_ptr<double>(), losses.data_ptr<double>());
  }
  void Gradient(const ScoreBlock& block, const at::Tensor& lse, float scale) const override {
    const Rows rows(block);
    rows.device->SoftmaxGradientRows(rows.scores, rows.labels, rows.count, rows.cols, rows.cols,
                                     block.first_class, lse.const_data_ptr<double>(), scale);
  }

  at::Tensor Mean(const at::Tensor& losses, int64_t valid) const override {
    return losses.sum().div(static_cast<double>(valid)).to(at::kFloat);
  }

 private:
  // A block as kernels take it, and the scope that they are called in.
  struct Rows {
    explicit Rows(const ScoreBlock& block)
        : scope(block.scores),
          device(kernels::OnDevice()),
          scores(block.scores.data_ptr<float>()),
          labels(block.labels.const_data_ptr<int64_t>()),
          count(block.scores.size(0)),
          cols(block.scores.size(1)) {}
    TensorScope scope;
    kernels::DeviceKernels* device;
    float* scores;
    const int64_t* labels;
    int64_t count, cols;
  };
};

}  // namespace

const ScoreRows& ScoreRows::For(const at::Tensor& tensor) {
  static const HostRows host;
  static const QueuedRows queued;
  if (QueueOf(tensor)) return queued;
  return host;
}

}  // namespace tw
