#include "core/engine/tensor_memory.h"

#include <gtest/gtest.h>

#include "core/nn/torch.h"

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
  at::Tensor a = torch::empty({1000, 3});
  EXPECT_EQ(live(), 12000);
  at::Tensor view = a.view({3000});
  at::Tensor none = torch::empty({0});
  EXPECT_EQ(live(), 12000);
  at::Tensor b = a.to(torch::kBFloat16);
  EXPECT_EQ(live(), 18000);
  a = at::Tensor();
  EXPECT_EQ(live(), 18000);  // the view still holds it
  view = at::Tensor();
  EXPECT_EQ(live(), 6000);
  b = at::Tensor();
  EXPECT_EQ(live(), 0);
}

TEST_F(TensorMemory, PeakOutlivesTheTensorUntilReset) {
  { at::Tensor a = torch::empty({1 << 20}); }
  EXPECT_EQ(live(), 0);
  EXPECT_EQ(peak(), 4 << 20);
  ResetPeakTensorBytes();
  EXPECT_EQ(peak(), 0);
}

TEST_F(TensorMemory, SeesTemporariesInsideAnOperator) {
  const at::Tensor x = torch::rand({1, 4, 256, 16});
  ResetPeakTensorBytes();
  const int64_t held = live();
  {
    const at::Tensor y = torch::softmax(torch::matmul(x, x.transpose(-2, -1)), -1).sum();
    EXPECT_GE(peak() - held, 2 * 4 * 256 * 256 * 4);  // scores and probabilities, never named here
  }
  EXPECT_EQ(live(), held);
}

TEST_F(TensorMemory, AlignsDataAsLibTorchExpects) {
  for (int64_t numel : {1, 3, 17, 1000}) {
    const at::Tensor a = torch::empty({numel});
    EXPECT_EQ(reinterpret_cast<uintptr_t>(a.data_ptr()) % 64, 0u);
  }
}

TEST_F(TensorMemory, BackwardThroughConvolutionGeluAndAttentionLeavesNothingBehind) {
  {
    const at::Tensor w = torch::rand({4, 2, 3, 3}, torch::requires_grad());
    at::Tensor y = torch::gelu(torch::conv2d(torch::rand({2, 2, 8, 8}), w, {}, 1, 1), "tanh");
    y = torch::scaled_dot_product_attention(y, y, y);
    y.sum().backward();
    EXPECT_GT(live(), 0);
  }
  EXPECT_EQ(live(), 0);
}

TEST_F(TensorMemory, ResizeFreesTheOldStorage) {
  at::Tensor a = torch::empty({100});
  a.resize_({1000});
  EXPECT_EQ(live(), 4000);
}

}  // namespace
}  // namespace tw
