// Numbers about tensors: sums, norms and clipping by them, and whether all are finite.
#include <cmath>

#include "core/api/convert.h"
#include "core/kernels/float16.h"
#include "core/kernels/reduce.h"
#include "tests/cuda/queue_fixture.h"

namespace tw {
namespace {

using QueueNumbers = QueueTest;

TEST_F(QueueNumbers, TensorsAreClippedByTheirOwnNorms) {
  std::vector<Both<float>> wide;
  std::vector<Both<uint16_t>> half, bf16;
  for (const size_t n : QueueSizes()) {
    wide.push_back(Floats(n, n));
    std::vector<uint16_t> h, b;
    for (const float x : RandomFloats(n, n + 1)) {
      h.push_back(kernels::FloatToHalf(x));
      b.push_back(kernels::FloatToBf16(x));
    }
    half.push_back(New(h)), bf16.push_back(New(b));
  }
  const double limit = 10;
  std::vector<double> sums(3 * wide.size());
  const auto views = [&] {
    std::vector<TensorView> out;
    for (auto& x : wide) out.push_back(x.view(DType::kF32));
    for (auto& x : half) out.push_back(x.view(DType::kF16));
    for (auto& x : bf16) out.push_back(x.view(DType::kBF16));
    return out;
  };
  OnDevice([&] { queue_->SumsOfSquares(views(), sums); });
  const Counted launches = LaunchesOf([&] {
    OnDevice([&] {
      tw::Together together;
      for (const TensorView& x : views()) {
        together.Next();
        queue_->ClipToNorm(x, limit);
      }
    });
  });
  EXPECT_EQ(launches, 3);  // pieces, sums, the clipping
  int clipped = 0;
  const std::vector<TensorView> host = views();
  for (size_t i = 0; i < host.size(); ++i) {
    const double norm = std::sqrt(sums[i]);
    if (norm <= limit) continue;
    AddScaled(host[i], host[i], static_cast<float>(limit / norm - 1));
    ++clipped;
  }
  EXPECT_GT(clipped, 6);
  EXPECT_LT(clipped, static_cast<int>(host.size()) - 6);
  for (const auto& x : wide) EXPECT_TRUE(x.Same());
  for (const auto& x : half) EXPECT_TRUE(x.Same());
  for (const auto& x : bf16) EXPECT_TRUE(x.Same());
}

TEST_F(QueueNumbers, SumsAndFiniteOrNotAreToldForManyTensors) {
  std::vector<Both<float>> wide;
  std::vector<Both<uint16_t>> narrow;
  for (const size_t n : QueueSizes()) {
    wide.push_back(Floats(n, n));
    std::vector<uint16_t> bits;
    for (const float x : RandomFloats(n, n + 1)) bits.push_back(kernels::FloatToBf16(x));
    narrow.push_back(New(bits));
  }
  std::vector<double> sums(wide.size() + narrow.size(), -1);
  const DeviceScope scope(queue_.get());
  std::vector<TensorView> views;
  for (auto& x : wide) views.push_back(x.view(DType::kF32));
  for (auto& x : narrow) views.push_back(x.view(DType::kBF16));
  {
    tw::Together together;  // in the middle of rows
    together.Next();
    queue_->Scale(wide[1].span(), 2.0f);
    queue_->SumsOfSquares(views, sums);
    queue_->Scale(wide[1].span(), 0.5f);
  }
  const float doubled = 2 * wide[1].host()[0];
  EXPECT_EQ(sums[1], static_cast<double>(doubled) * doubled);
  for (size_t i = 0; i < views.size(); ++i) {
    if (i == 1) continue;
    std::vector<float> x;
    if (i < wide.size()) {
      x = wide[i].host();
    } else {
      for (const uint16_t bits : narrow[i - wide.size()].host()) {
        x.push_back(kernels::Bf16ToFloat(bits));
      }
    }
    const DeviceScope host(nullptr);
    const double want = kernels::SumOfSquares(x);
    EXPECT_TRUE(x.size() > 1024 || sums[i] == want) << i;
    EXPECT_NEAR(sums[i], want, 1e-12 * want) << i;
  }
  EXPECT_TRUE(wide[1].Same());

  const auto check = [&] {
    tw::Together together;
    for (const TensorView& view : views) {
      together.Next();
      queue_->CheckFinite(view);
    }
  };
  check();
  EXPECT_TRUE(queue_->TakeAllFinite());
  for (const size_t at : {size_t{4}, wide.size() + 9}) {
    DeviceBuffer<float> bad(device_, {1.0f, INFINITY});
    DeviceBuffer<uint16_t> bad_bf16(device_, {0, 0x7FC0});
    const TensorView before =
        std::exchange(views[at], at == 4 ? TensorView{bad.data(), DType::kF32, 2}
                                         : TensorView{bad_bf16.data(), DType::kBF16, 2});
    EXPECT_EQ(LaunchesOf(check), 1);
    views[at] = before;
    check();
    EXPECT_FALSE(queue_->TakeAllFinite());
    check();
    EXPECT_TRUE(queue_->TakeAllFinite());
  }
}

}  // namespace
}  // namespace tw
