#include "core/kernels/optimizer.h"

#include <cstring>
#include <vector>

#include "core/base/rng.h"
#include "core/kernels/simd_target.h"
#include "gtest/gtest.h"

namespace tw::kernels {
namespace {

constexpr size_t kSizes[] = {0, 1, 3, 7, 8, 15, 16, 17, 31, 64, 1001};

std::vector<float> Values(size_t n, uint32_t id, bool positive = false) {
  const RngStream rng = RngStream::Of(11, RngPurpose::kTest, 0, id, 0);
  std::vector<float> out(n);
  for (size_t i = 0; i < n; ++i) {
    const float u = rng.Uniform(i);
    out[i] = positive ? u * u : 2 * u - 1;
  }
  return out;
}

bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() &&
         (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
}

// Runs `body` once for every instruction set this processor offers.
template <class F>
void OnEveryTarget(F&& body) {
  for (const std::string& target : SimdTargets()) {
    ASSERT_TRUE(LimitSimdTarget(target));
    ASSERT_EQ(SimdTarget(), target);
    body(target);
  }
  LimitSimdTarget("");
}

AdamWCoefficients<float> SomeAdamW() {
  return {.grad_scale = 0.7f,
          .decay = 0.999f,
          .beta1 = 0.9f,
          .rest1 = 0.1f,
          .beta2 = 0.99f,
          .rest2 = 0.01f,
          .step_size = 0.013f,
          .inverse_root_bias = 1.7f,
          .eps = 1e-6f};
}

TEST(AdamWStep, EveryTargetGivesTheBitsOfThePlainLoop) {
  const auto c = SomeAdamW();
  for (const size_t n : kSizes) {
    auto p = Values(n, 1), g = Values(n, 2), m = Values(n, 3), v = Values(n, 4, true);
    for (size_t i = 0; i < n; ++i) AdamWElement(p[i], g[i], m[i], v[i], c);
    OnEveryTarget([&](const std::string& target) {
      auto p2 = Values(n, 1), m2 = Values(n, 3), v2 = Values(n, 4, true);
      AdamWStep(p2, g, m2, v2, c);
      EXPECT_TRUE(SameBits(p, p2) && SameBits(m, m2) && SameBits(v, v2))
          << "n " << n << " target " << target;
    });
  }
}

TEST(SgdmStep, EveryTargetGivesTheBitsOfThePlainLoop) {
  for (const bool nesterov : {false, true}) {
    const SgdmCoefficients<float> c{.grad_scale = 0.3f,
                                    .weight_decay = 0.01f,
                                    .momentum = 0.9f,
                                    .lr = 0.05f,
                                    .nesterov = nesterov};
    for (const size_t n : kSizes) {
      auto p = Values(n, 1), m = Values(n, 3), plain = Values(n, 5);
      const auto g = Values(n, 2);
      for (size_t i = 0; i < n; ++i) {
        SgdmElement(p[i], g[i], m[i], c);
        SgdElement(plain[i], g[i], c);
      }
      OnEveryTarget([&](const std::string& target) {
        auto p2 = Values(n, 1), m2 = Values(n, 3), plain2 = Values(n, 5);
        SgdmStep(p2, g, m2, c);
        SgdStep(plain2, g, c);
        EXPECT_TRUE(SameBits(p, p2) && SameBits(m, m2) && SameBits(plain, plain2))
            << "n " << n << " target " << target;
      });
    }
  }
}

TEST(AdamWStep, UnalignedSpansGiveTheSameBits) {
  const size_t n = 100;
  const auto c = SomeAdamW();
  auto p = Values(n, 1), m = Values(n, 3), v = Values(n, 4, true);
  const auto g = Values(n, 2);
  std::vector<float> p2(n + 1), g2(n + 1), m2(n + 1), v2(n + 1);
  std::copy(p.begin(), p.end(), p2.begin() + 1);
  std::copy(g.begin(), g.end(), g2.begin() + 1);
  std::copy(m.begin(), m.end(), m2.begin() + 1);
  std::copy(v.begin(), v.end(), v2.begin() + 1);
  AdamWStep(p, g, m, v, c);
  AdamWStep(std::span(p2).subspan(1), std::span(g2).subspan(1), std::span(m2).subspan(1),
            std::span(v2).subspan(1), c);
  EXPECT_EQ(0, std::memcmp(p.data(), p2.data() + 1, n * sizeof(float)));
}

}  // namespace
}  // namespace tw::kernels
