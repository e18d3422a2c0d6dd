#pragma once
// What every quantizer must keep, as checks over a codec under test.

#include <cmath>
#include <vector>

#include "tests/compressors/codec_under_test.h"

namespace tw {

// Triangular numbers, squared with their sign: some large, many small.
inline std::vector<float> RandomVector(int64_t n, uint64_t seed, float magnitude = 1.0f) {
  const RngStream rng = RngStream::Of(seed, RngPurpose::kTest, 0, 0, 0);
  std::vector<float> x(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) {
    const float u = rng.Uniform(2 * i) + rng.Uniform(2 * i + 1) - 1.0f;
    x[i] = magnitude * u * std::abs(u);
  }
  return x;
}

inline double SquaredNorm(const std::vector<float>& x) {
  double sum = 0;
  for (float v : x) sum += double{v} * v;
  return sum;
}

inline StatusOr<std::unique_ptr<Compressor>> TryMakeCodec(const std::string& name,
                                                          const ConfigKeys& keys) {
  ConfigSection section;
  section.name = "compressor";
  section.Set("name", name);
  for (const auto& [key, value] : keys) section.Set(key, value);
  return Registry<Compressor>::Get().Make(section, name);
}

// The residual rule, and that the pending addition is the addition.
inline void ExpectResidualRule(CodecUnderTest& h, const std::vector<float>& e,
                               const std::vector<float>& g, float scale) {
  auto sum = e;
  for (size_t i = 0; i < e.size(); ++i) sum[i] = e[i] + scale * g[i];
  auto fused = e, plain = sum;
  const auto body = h.Encode(fused, g.data(), scale);
  const auto same = h.Encode(plain);
  EXPECT_EQ(body, same);
  EXPECT_EQ(fused, plain);
  const auto decoded = h.Decode(body);
  for (size_t i = 0; i < e.size(); ++i) {
    ASSERT_TRUE(std::isfinite(decoded[i])) << i;
    ASSERT_EQ(fused[i], sum[i] - decoded[i]) << i;
  }
}

// ||mean of `draws` decodings - x|| within 5 sqrt(omega / draws) ||x||, and the measured variance
// within omega.
inline void ExpectUnbiased(CodecUnderTest& h, const std::vector<float>& x, int draws) {
  ASSERT_TRUE(h.codec->traits().unbiased);
  std::vector<double> mean(x.size(), 0.0);
  double variance = 0;
  for (int t = 0; t < draws; ++t) {
    h.context.step = 1000 + t;
    auto message = x;
    const auto decoded = h.Decode(h.Encode(message));
    for (size_t i = 0; i < x.size(); ++i) mean[i] += double{decoded[i]} / draws;
    variance += SquaredNorm(message) / draws;
  }
  double error = 0;
  for (size_t i = 0; i < x.size(); ++i) error += (mean[i] - x[i]) * (mean[i] - x[i]);
  const double omega = h.codec->Omega(h.spec);
  EXPECT_LE(std::sqrt(error), 5 * std::sqrt(omega / draws * SquaredNorm(x)));
  // Also against the variance that was seen: omega may be far from tight.
  EXPECT_LE(std::sqrt(error), 5 * std::sqrt(variance / draws));
  EXPECT_LE(variance, 1.05 * omega * SquaredNorm(x));
}

}  // namespace tw
