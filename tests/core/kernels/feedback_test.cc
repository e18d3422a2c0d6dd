#include "core/kernels/feedback.h"

#include <functional>
#include <vector>

#include "core/base/rng.h"
#include "core/kernels/simd_target.h"
#include "gtest/gtest.h"

namespace tw::kernels {
namespace {

using Buffers = std::vector<std::vector<float>>;

Buffers FourBuffers(size_t n) {
  Buffers out;
  for (uint32_t id = 0; id < 4; ++id) {
    const RngStream rng = RngStream::Of(5, RngPurpose::kTest, 0, id, 0);
    std::vector<float> values(n);
    for (size_t i = 0; i < n; ++i) values[i] = 2 * rng.Uniform(i) - 1;
    out.push_back(std::move(values));
  }
  return out;
}

// `plain` treats element i, `fused` all of them; both get the same four buffers.
void ExpectSameBits(const std::function<void(Buffers&, size_t)>& plain,
                    const std::function<void(Buffers&)>& fused) {
  for (const size_t n : {0, 1, 3, 8, 15, 16, 17, 33, 257}) {
    Buffers want = FourBuffers(n);
    for (size_t i = 0; i < n; ++i) plain(want, i);
    for (const std::string& target : SimdTargets()) {
      ASSERT_TRUE(LimitSimdTarget(target));
      EXPECT_EQ(SimdTarget(), target);
      Buffers got = FourBuffers(n);
      fused(got);
      EXPECT_EQ(want, got) << target << " n " << n;
    }
    LimitSimdTarget("");
  }
}

TEST(FeedbackKernels, AdvanceHasTheBitsOfThePlainLoop) {
  ExpectSameBits([](Buffers& b, size_t i) { AdvanceElement(b[0][i], b[1][i]); },
                 [](Buffers& b) { Advance(b[0], b[1]); });
}

TEST(FeedbackKernels, DampedAdvanceHasTheBitsOfThePlainLoop) {
  ExpectSameBits([](Buffers& b, size_t i) { DampedAdvanceElement(b[0][i], b[1][i], 0.3f); },
                 [](Buffers& b) { DampedAdvance(b[0], b[1], 0.3f); });
}

TEST(FeedbackKernels, ErrorMessageHasTheBitsOfThePlainLoop) {
  ExpectSameBits([](Buffers& b, size_t i) { ErrorMessageElement(b[0][i], b[1][i], b[2][i], 0.3f); },
                 [](Buffers& b) { ErrorMessage(b[0], b[1], b[2], 0.3f); });
}

TEST(FeedbackKernels, ErrorMemoryHasTheBitsOfThePlainLoop) {
  ExpectSameBits([](Buffers& b, size_t i) { ErrorMemoryElement(b[0][i], b[1][i], 0.7f); },
                 [](Buffers& b) { ErrorMemory(b[0], b[1], 0.7f); });
}

TEST(FeedbackKernels, MomentumMessageHasTheBitsOfThePlainLoop) {
  ExpectSameBits(
      [](Buffers& b, size_t i) { MomentumMessageElement(b[0][i], b[1][i], b[2][i], 0.9f, 0.1f); },
      [](Buffers& b) { MomentumMessage(b[0], b[1], b[2], 0.9f, 0.1f); });
}

TEST(FeedbackKernels, MomentumErrorMessageHasTheBitsOfThePlainLoop) {
  ExpectSameBits(
      [](Buffers& b, size_t i) {
        MomentumErrorMessageElement(b[0][i], b[1][i], b[2][i], b[3][i], 0.9f, 0.1f, 0.3f);
      },
      [](Buffers& b) { MomentumErrorMessage(b[0], b[1], b[2], b[3], 0.9f, 0.1f, 0.3f); });
}

TEST(FeedbackKernels, DoTheirFormulas) {
  std::vector<double> v = {2}, g = {8}, h = {1}, e = {10}, estimate = {3}, mean = {4};
  MomentumErrorMessage(v, g, h, e, 0.75, 0.25, 0.5);
  EXPECT_EQ(v[0], 3.5);
  EXPECT_EQ(g[0], 7.5);
  ErrorMemory(e, g, 0.5);
  EXPECT_EQ(e[0], 12.5);
  ErrorMessage(g, h, e, 2.0);
  EXPECT_EQ(g[0], 31.5);
  MomentumMessage(v, g, h, 0.0, 1.0);
  EXPECT_EQ(v[0], 31.5);
  EXPECT_EQ(g[0], 30.5);
  DampedAdvance(estimate, mean, 0.5);
  EXPECT_EQ(estimate[0], 5);
  EXPECT_EQ(mean[0], 7);
  Advance(estimate, mean);
  EXPECT_EQ(estimate[0], 12);
  EXPECT_EQ(mean[0], 12);
}

}  // namespace
}  // namespace tw::kernels
