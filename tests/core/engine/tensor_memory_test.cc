#include "core/engine/tensor_memory.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/conv2d.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/softmax.h>
#include <gtest/gtest.h>

namespace tw {
namespace {

class TensorMemory : public ::testing::Test {
 protected:
  void SetUp() override {
    InstallTensorMemoryCounter();
    InstallTensorMemoryCounter();  // a second call must not put a counter around the counter
    ResetPeakTensorBytes();
    before_ = LiveTensorBytes();
  }
  int64_t live() const { return LiveTensorBytes() - before_; }
  int64_t peak() const { return PeakTensorBytes() - before_; }
  int64_t before_ = 0;
};

TEST_F(TensorMemory, CountsTheVeryBytesOfATensor) {
  at::Tensor a = at::empty({1000, 3});
  EXPECT_EQ(live(), 12000);
  at::Tensor view = a.view({3000});
  at::Tensor none = at::empty({0});
  EXPECT_EQ(live(), 12000);
  at::Tensor b = a.to(at::kBFloat16);
  EXPECT_EQ(live(), 18000);
  a = at::Tensor();
  EXPECT_EQ(live(), 18000);  // the view still holds it
  view = at::Tensor();
  EXPECT_EQ(live(), 6000);
  b = at::Tensor();
  EXPECT_EQ(live(), 0);
}

TEST_F(TensorMemory, PeakOutlivesTheTensorUntilReset) {
  { at::Tensor a = at::empty({1 << 20}); }
  EXPECT_EQ(live(), 0);
  EXPECT_EQ(peak(), 4 << 20);
  ResetPeakTensorBytes();
  EXPECT_EQ(peak(), 0);
}

TEST_F(TensorMemory, SeesTemporariesInsideAnOperator) {
  const at::Tensor x = at::rand({1, 4, 256, 16});
  ResetPeakTensorBytes();
  const int64_t held = live();
  {
    const at::Tensor y = at::softmax(at::matmul(x, x.transpose(-2, -1)), -1).sum();
    EXPECT_GE(peak() - held, 2 * 4 * 256 * 256 * 4);  // scores and probabilities, never named here
  }
  EXPECT_EQ(live(), held);
}

TEST_F(TensorMemory, AlignsDataAsLibTorchExpects) {
  for (int64_t numel : {1, 3, 17, 1000}) {
    const at::Tensor a = at::empty({numel});
    EXPECT_EQ(reinterpret_cast<uintptr_t>(a.data_ptr()) % 64, 0u);
  }
}

TEST_F(TensorMemory, BackwardThroughConvolutionGeluAndAttentionLeavesNothingBehind) {
  {
    const at::Tensor w = at::rand({4, 2, 3, 3}).requires_grad_();
    at::Tensor y = at::gelu(at::conv2d(at::rand({2, 2, 8, 8}), w, {}, 1, 1), "tanh");
    y = at::scaled_dot_product_attention(y, y, y);
    y.sum().backward();
    EXPECT_GT(live(), 0);
  }
  EXPECT_EQ(live(), 0);
}

TEST_F(TensorMemory, ResizeFreesTheOldStorage) {
  at::Tensor a = at::empty({100});
  a.resize_({1000});
  EXPECT_EQ(live(), 4000);
}

}  // namespace
}  // namespace tw
