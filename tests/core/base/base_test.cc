#include <gtest/gtest.h>

#include <set>

#include "core/base/hash.h"
#include "core/base/rng.h"
#include "core/base/status.h"
#include "core/base/workspace.h"

namespace tw {
namespace {

TEST(Status, EveryFaultHasItsExitCode) {
  EXPECT_EQ(ExitCode(OkStatus()), 0);
  EXPECT_EQ(ExitCode(ConfigError("x")), 2);
  EXPECT_EQ(ExitCode(DataError("x")), 3);
  EXPECT_EQ(ExitCode(PeerError("x")), 4);
  EXPECT_EQ(ExitCode(PeerTimeout("x")), 4);
  EXPECT_EQ(ExitCode(DataLoss("x")), 4);
  EXPECT_EQ(ExitCode(NumbersError("x")), 5);
  EXPECT_EQ(ExitCode(BugError("x")), 70);
  EXPECT_EQ(ExitCode(WithFault(DataLoss("x"), Fault::kData)), 3);
  EXPECT_EQ(ExitCode(absl::UnknownError("x")), 70);
}

TEST(Status, AnnotateKeepsCodeAndFault) {
  const Status status = Annotate(DataError("disk full"), "checkpoint");
  EXPECT_EQ(std::string(status.message()), "checkpoint: disk full");
  EXPECT_EQ(ExitCode(status), 3);
  EXPECT_TRUE(Annotate(OkStatus(), "x").ok());
}

Status Chain(bool fail) {
  TW_RETURN_IF_ERROR(fail ? ConfigError("no") : OkStatus());
  TW_ASSIGN_OR_RETURN(const int value, StatusOr<int>(3));
  return value == 3 ? OkStatus() : BugError("3 is not 3");
}

TEST(Status, MacrosPassErrorsOn) {
  EXPECT_TRUE(Chain(false).ok());
  EXPECT_EQ(ExitCode(Chain(true)), 2);
}

TEST(StatusDeathTest, CheckPrintsPlaceAndValues) {
  EXPECT_DEATH(TW_CHECK_EQ(1, 2), "base_test.cc:[0-9]+: check failed: 1 == 2 \\(1 vs 2\\)");
}

// Known answers of Philox4x32-10 from the Random123 distribution.
TEST(Rng, PhiloxKnownAnswers) {
  const std::array<uint32_t, 4> zero{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8};
  EXPECT_EQ(Philox4x32({0, 0, 0, 0}, {0, 0}), zero);
  const uint32_t f = 0xffffffff;
  const std::array<uint32_t, 4> ones{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd};
  EXPECT_EQ(Philox4x32({f, f, f, f}, {f, f}), ones);
  const std::array<uint32_t, 4> pi{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1};
  EXPECT_EQ(Philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            pi);
}

TEST(Rng, EveryPartOfTheNameMakesAnotherStream) {
  std::set<uint64_t> keys;
  for (uint64_t seed : {1, 2})
    for (uint64_t step : {0, 1})
      for (uint32_t parameter : {0u, 1u})
        for (uint32_t rank : {0u, 1u, kSharedRank})
          for (auto purpose : {RngPurpose::kEncode, RngPurpose::kEncodeShared})
            keys.insert(RngStream::Of(seed, purpose, step, parameter, rank).key);
  EXPECT_EQ(keys.size(), 2u * 2 * 2 * 3 * 2);
}

TEST(Rng, BelowStaysBelowAndIsRoughlyUniform) {
  const auto stream = RngStream::Of(1, RngPurpose::kTest, 0, 0, 0);
  std::array<int, 7> counts{};
  for (uint64_t i = 0; i < 70000; ++i) ++counts[stream.Below(i, 7)];
  for (int c : counts) EXPECT_NEAR(c, 10000, 500);
}

TEST(Rng, UniformIsInTheHalfOpenInterval) {
  const auto stream = RngStream::Of(1, RngPurpose::kTest, 0, 0, 0);
  double sum = 0;
  for (uint64_t i = 0; i < 10000; ++i) {
    const float u = stream.Uniform(i);
    ASSERT_GE(u, 0.0f);
    ASSERT_LT(u, 1.0f);
    sum += static_cast<double>(u);
  }
  EXPECT_NEAR(sum / 10000, 0.5, 0.02);
}

TEST(Hash, PiecesHashAsTheWhole) {
  Hasher hasher;
  hasher.Add(std::string_view("tight"));
  hasher.Add(std::string_view("wire"));
  EXPECT_EQ(hasher.digest(), Hash64(std::string_view("tightwire")));
  EXPECT_EQ(Hex64(0xABCu), "0000000000000abc");
}

TEST(Workspace, GrowsAndNeverShrinks) {
  Workspace scratch;
  auto a = scratch.Get<float>(1, 100);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(a.data()) % 64, 0u);
  auto b = scratch.Get<float>(1, 50);
  EXPECT_EQ(a.data(), b.data());
  auto other = scratch.Get<float>(2, 50);
  EXPECT_NE(other.data(), b.data());
}

}  // namespace
}  // namespace tw
