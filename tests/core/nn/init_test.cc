#include "core/nn/init.h"

#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <gtest/gtest.h>

#include <cmath>

#include "core/base/hash.h"
#include "core/base/rng.h"

namespace tw {
namespace {

TEST(InitNormal, IsBoxMullerOverPhilox) {
  const uint64_t hash = Hash64("some.weight");
  const RngStream rng = RngStream::Of(7, RngPurpose::kModelInit, hash >> 32,
                                      static_cast<uint32_t>(hash), kSharedRank);
  for (uint64_t block = 0; block < 5000; ++block) {
    const auto r = rng.At(block);
    for (int pair = 0; pair < 2; ++pair) {
      const double radius = std::sqrt(-2 * std::log((r[2 * pair] + 1.0) * 0x1.0p-32));
      const double angle = 2 * M_PI * (r[2 * pair + 1] * 0x1.0p-32);
      const uint64_t index = 4 * block + 2 * static_cast<uint64_t>(pair);
      ASSERT_NEAR(StandardNormal(7, "some.weight", index), radius * std::cos(angle), 1e-13);
      ASSERT_NEAR(StandardNormal(7, "some.weight", index + 1), radius * std::sin(angle), 1e-13);
    }
  }
}

TEST(InitNormal, HasTheMomentsOfTheNormalDistribution) {
  const at::Tensor w = at::empty({1000003});
  InitNormal(1, "w", 2.0, w);
  const at::Tensor x = w.to(at::kDouble) / 2;
  EXPECT_NEAR(x.mean().item<double>(), 0, 0.005);
  EXPECT_NEAR(x.square().mean().item<double>(), 1, 0.008);
  EXPECT_NEAR(x.pow(4).mean().item<double>(), 3, 0.06);
  EXPECT_GT(x.abs().max().item<double>(), 4.5);
}

TEST(InitNormal, DependsOnSeedAndNameButNotOnTheShapeOrTheGlobalGenerator) {
  const at::Tensor a = at::empty({6, 5}), b = at::empty({30});
  InitNormal(1, "w", 1, a);
  at::manual_seed(99);
  InitNormal(1, "w", 1, b);
  EXPECT_TRUE(a.flatten().equal(b));
  InitNormal(1, "v", 1, b);
  EXPECT_FALSE(a.flatten().equal(b));
  InitNormal(2, "w", 1, b);
  EXPECT_FALSE(a.flatten().equal(b));
}

// The bits every machine must get: weights are part of a run's identity.
TEST(InitNormal, KeepsItsBits) {
  const at::Tensor w = at::empty({10000});
  InitNormal(1, "tok.weight", 0.02, w);
  const auto* bytes = static_cast<const uint8_t*>(w.data_ptr());
  EXPECT_EQ(Hex64(Hash64(ByteSpan(bytes, 40000))), "ea744187ae0777c0");
}

}  // namespace
}  // namespace tw
