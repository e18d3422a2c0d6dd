#include "core/kernels/state_steps.h"

#include <cmath>
#include <string>
#include <vector>

#include "core/base/rng.h"
#include "core/kernels/simd_target.h"
#include "gtest/gtest.h"

namespace tw::kernels {
namespace {

using Floats = std::vector<float>;
constexpr size_t kSizes[] = {0, 1, 2, 3, 7, 64, 127, 128, 129, 255, 256, 257, 1001, 4097};

Floats Values(size_t n, uint32_t id) {
  const RngStream rng = RngStream::Of(11, RngPurpose::kTest, 0, id, 0);
  Floats out(n);
  for (size_t i = 0; i < n; ++i) out[i] = 2 * rng.Uniform(i) - 1;
  return out;
}

// A parameter whose moments rest in codes.
struct Coded {
  Floats p;
  std::vector<uint8_t> m, v;
  Floats m_scales, v_scales;

  Coded(size_t n, int64_t code_bytes, int64_t block) : p(Values(n, 1)) {
    m.assign(static_cast<size_t>(code_bytes), 0);
    v = m;
    m_scales.assign(static_cast<size_t>(Blocks(static_cast<int64_t>(n), block)), 0);
    v_scales = m_scales;
  }
  bool operator==(const Coded&) const = default;
  CodedMoment M() { return {m, m_scales}; }
  CodedMoment V() { return {v, v_scales}; }
};

Coded FourBits(size_t n) { return {n, NibbleBytes(static_cast<int64_t>(n)), kStateBlock4}; }
Coded EightBits(size_t n) { return {n, static_cast<int64_t>(n), kStateBlock8}; }

AdamWCoefficients<float> CoefficientsAt(int t) {
  const double b1 = 0.9, b2 = 0.999, lr = 1e-3;
  return {.grad_scale = 1,
          .decay = static_cast<float>(1 - lr * 0.01),
          .beta1 = static_cast<float>(b1),
          .rest1 = static_cast<float>(1 - b1),
          .beta2 = static_cast<float>(b2),
          .rest2 = static_cast<float>(1 - b2),
          .step_size = static_cast<float>(lr / (1 - std::pow(b1, t))),
          .inverse_root_bias = static_cast<float>(1 / std::sqrt(1 - std::pow(b2, t))),
          .eps = 1e-8f};
}

template <class F>
void OnEveryTarget(F&& body) {
  for (const std::string& target : SimdTargets()) {
    ASSERT_TRUE(LimitSimdTarget(target));
    body(target);
  }
  LimitSimdTarget("");
}

TEST(AdamWStep4, IsDecodeStepEncodeBitForBit) {
  for (const size_t n : kSizes) {
    Coded want = FourBits(n);
    for (int t = 1; t <= 3; ++t) {
      Floats m(n), v(n);
      DecodeBlocks4(Code4::kDeSigned, want.m, want.m_scales, m);
      DecodeBlocks4(Code4::kLinear, want.v, want.v_scales, v);
      const Floats g = Values(n, static_cast<uint32_t>(t) + 10);
      for (size_t i = 0; i < n; ++i) AdamWElement(want.p[i], g[i], m[i], v[i], CoefficientsAt(t));
      EncodeBlocks4(Code4::kDeSigned, m, want.m, want.m_scales);
      EncodeBlocks4(Code4::kLinear, v, want.v, want.v_scales);
    }
    OnEveryTarget([&](const std::string& target) {
      Coded got = FourBits(n);
      for (int t = 1; t <= 3; ++t) {
        AdamWStep4(got.p, Values(n, static_cast<uint32_t>(t) + 10), got.M(), got.V(),
                   CoefficientsAt(t));
      }
      EXPECT_TRUE(got == want) << "n " << n << " target " << target;
    });
  }
}

TEST(AdamWStep8, IsDecodeStepEncodeBitForBit) {
  for (const size_t n : kSizes) {
    Coded want = EightBits(n);
    for (int t = 1; t <= 3; ++t) {
      Floats m(n), v(n);
      DecodeBlocks8(Code8::kDeSigned, want.m, want.m_scales, m);
      DecodeBlocks8(Code8::kDeUnsigned, want.v, want.v_scales, v);
      const Floats g = Values(n, static_cast<uint32_t>(t) + 10);
      for (size_t i = 0; i < n; ++i) AdamWElement(want.p[i], g[i], m[i], v[i], CoefficientsAt(t));
      EncodeBlocks8(Code8::kDeSigned, m, want.m, want.m_scales);
      EncodeBlocks8(Code8::kDeUnsigned, v, want.v, want.v_scales);
    }
    OnEveryTarget([&](const std::string& target) {
      Coded got = EightBits(n);
      for (int t = 1; t <= 3; ++t) {
        AdamWStep8(got.p, Values(n, static_cast<uint32_t>(t) + 10), got.M(), got.V(),
                   CoefficientsAt(t));
      }
      EXPECT_TRUE(got == want) << "n " << n << " target " << target;
    });
  }
}

TEST(SgdmStep4, IsDecodeStepEncodeBitForBit) {
  for (const bool nesterov : {false, true}) {
    const SgdmCoefficients<float> c{0.5f, 0.01f, 0.9f, 0.1f, nesterov};
    for (const size_t n : kSizes) {
      Coded want = FourBits(n);
      for (uint32_t t = 1; t <= 3; ++t) {
        Floats m(n);
        DecodeBlocks4(Code4::kDeSigned, want.m, want.m_scales, m);
        const Floats g = Values(n, t + 10);
        for (size_t i = 0; i < n; ++i) SgdmElement(want.p[i], g[i], m[i], c);
        EncodeBlocks4(Code4::kDeSigned, m, want.m, want.m_scales);
      }
      OnEveryTarget([&](const std::string& target) {
        Coded got = FourBits(n);
        for (uint32_t t = 1; t <= 3; ++t) SgdmStep4(got.p, Values(n, t + 10), got.M(), c);
        EXPECT_TRUE(got == want) << "n " << n << " target " << target;
      });
    }
  }
}

// Worked in numpy: p_i = cos(0.01 i), g_i = 0.01 sin(0.1 (i + 1) t).
TEST(AdamWStep4, GoldenThreeSteps) {
  const size_t n = 8192;
  struct Golden {
    float m_scale, v_scale;
    const char *m, *v;
    float p0, p100;
  };
  const Golden golden[] = {
      {9.99990e-4f, 9.99980e-8f, "bacbdcddeeeeffff", "00104376a9dcfeff", .9989900f, .5412968f},
      {1.772590e-3f, 1.586599e-7f, "cbdcedeeffeedecd", "1053b9edefceab99", .9983543f, .5410462f},
      {2.399921e-3f, 2.167666e-7f, "cbedfeefdeccab49", "30a6fedfacaadbed", .9974054f, .5412877f}};
  const auto hex = [](const std::vector<uint8_t>& bytes) {
    std::string out;
    for (size_t i = 0; i < 8; ++i) {
      out += "0123456789abcdef"[bytes[i] >> 4];
      out += "0123456789abcdef"[bytes[i] & 15];
    }
    return out;
  };
  Coded state = FourBits(n);
  for (size_t i = 0; i < n; ++i) state.p[i] = static_cast<float>(std::cos(.01 * double(i)));
  for (int t = 1; t <= 3; ++t) {
    Floats g(n);
    for (size_t i = 0; i < n; ++i) {
      g[i] = static_cast<float>(std::sin(.1 * double(i + 1) * t) * 1e-2);
    }
    AdamWStep4(state.p, g, state.M(), state.V(), CoefficientsAt(t));
    const Golden& want = golden[t - 1];
    EXPECT_NEAR(state.m_scales[0], want.m_scale, 1e-6f * want.m_scale);
    EXPECT_NEAR(state.v_scales[0], want.v_scale, 1e-6f * want.v_scale);
    EXPECT_EQ(hex(state.m), want.m);
    EXPECT_EQ(hex(state.v), want.v);
    EXPECT_NEAR(state.p[0], want.p0, 2e-6);
    EXPECT_NEAR(state.p[100], want.p100, 2e-6);
  }
  EXPECT_NEAR(state.p[1], .9968643, 2e-6);
  double sum = 0;
  for (const float x : state.p) sum += x;
  EXPECT_NEAR(sum, 23.46708, 2e-3);
  EXPECT_EQ(state.m.size() + state.v.size() + 4 * (state.m_scales.size() + state.v_scales.size()),
            8704u);
}

}  // namespace
}  // namespace tw::kernels
