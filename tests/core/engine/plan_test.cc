#include "core/engine/plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/core/engine/engine_parts.h"

namespace tw {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

std::vector<TensorSpec> Specs() {
  return {{0, "tok.weight", {64, 32}, DType::kF32},
          {1, "blocks.0.attn.weight", {96, 32}, DType::kF32},
          {2, "blocks.0.mlp.weight", {128, 32}, DType::kF32},
          {3, "lnf.weight", {32}, DType::kF32}};
}

class PlanTest : public ::testing::Test {
 protected:
  PlanRule Rule(const std::string& match, const std::string& compressor,
                const std::string& feedback = "ef14", const Keys& keys = {}) {
    PlanRule rule;
    rule.match = match;
    rule.route = routes_.Make(compressor, feedback, keys);
    rule.min_numel = 100;
    return rule;
  }
  StatusOr<Plan> Build(const std::vector<PlanRule>& rules) {
    PlanOptions options = routes_.Options(2);
    options.rules = rules;
    return Plan::Build(Specs(), options);
  }
  Plan MustBuild(const std::vector<PlanRule>& rules) {
    auto plan = Build(rules);
    TW_CHECK_OK(plan);
    return std::move(plan).value();
  }
  std::string Refusal(const std::string& compressor, const std::string& feedback,
                      const Keys& keys = {}) {
    auto plan = Build({Rule("*", compressor, feedback, keys)});
    EXPECT_FALSE(plan.ok()) << compressor << " + " << feedback;
    EXPECT_EQ(ExitCode(plan.status()), 2);
    return std::string(plan.status().message());
  }
  RouteMaker routes_;
};

TEST(Glob, StarAndQuestionMark) {
  EXPECT_TRUE(GlobMatch("*", ""));
  EXPECT_TRUE(GlobMatch("*attn*", "blocks.0.attn.weight"));
  EXPECT_TRUE(GlobMatch("blocks.?.attn.*", "blocks.0.attn.weight"));
  EXPECT_TRUE(GlobMatch("*a*ab", "aaab"));  // the first star must be able to take more
  EXPECT_FALSE(GlobMatch("blocks.?.attn", "blocks.10.attn"));
  EXPECT_FALSE(GlobMatch("attn", "blocks.0.attn"));
  EXPECT_FALSE(GlobMatch("", "a"));
}

TEST_F(PlanTest, TheFirstRuleThatMatchesDecides) {
  const Plan plan = MustBuild(
      {Rule("*attn*", "powersgd"), Rule("blocks.*", "topk", "ef14"), Rule("*", "sign", "ef14")});
  const auto& p = plan.parameters();
  EXPECT_EQ(p[0].route.compressor, "sign");
  EXPECT_EQ(p[1].route.compressor, "powersgd");
  EXPECT_EQ(p[2].route.compressor, "topk");
  EXPECT_EQ(p[3].route.compressor, "none");
  EXPECT_EQ(p[1].route.exchange->merge(), Merge::kSum);
  EXPECT_EQ(p[2].route.exchange->merge(), Merge::kGather);
}

TEST_F(PlanTest, SmallParametersTravelDenseAndTheLogSaysSo) {
  const Plan plan = MustBuild({Rule("*", "sign")});
  const ParameterPlan& small = plan.parameters()[3];
  EXPECT_FALSE(small.compressed);
  EXPECT_EQ(small.route.feedback, "none");
  EXPECT_EQ(small.payload_bytes, 32 * 4);
  EXPECT_THAT(small.why_dense, HasSubstr("min_numel = 100"));
  EXPECT_THAT(plan.notes(), Contains(AllOf(HasSubstr("1 parameters (32 elements)"),
                                           HasSubstr("min_numel = 100"))));
}

TEST_F(PlanTest, AMatrixCodecLeavesVectorsDense) {
  PlanRule rule = Rule("*", "powersgd");
  rule.min_numel = 0;
  const Plan plan = MustBuild({rule});
  EXPECT_TRUE(plan.parameters()[0].compressed);
  EXPECT_EQ(plan.parameters()[0].payload_bytes, 4 * 4 * (64 + 32));  // P and Q of rank 4
  EXPECT_FALSE(plan.parameters()[3].compressed);
  EXPECT_EQ(plan.parameters()[3].why_dense, "not a matrix");
}

TEST_F(PlanTest, AnEncodingThatIsNotSmallerIsNotUsed) {
  const Plan plan =
      MustBuild({Rule("tok*", "topk", "ef14", {{"ratio", 0.9}}), Rule("*", "topk", "ef14")});
  EXPECT_FALSE(plan.parameters()[0].compressed);
  EXPECT_EQ(plan.parameters()[0].payload_bytes, 64 * 32 * 4);
  EXPECT_TRUE(plan.parameters()[1].compressed);
  EXPECT_THAT(plan.notes(), Contains(HasSubstr("encoding would not be smaller")));
  EXPECT_THAT(plan.notes(), Not(Contains(HasSubstr("compression inactive"))));
}

TEST_F(PlanTest, SaysWhenCompressionIsInactive) {
  PlanRule rule = Rule("*", "topk");
  rule.min_numel = 1 << 20;
  EXPECT_THAT(MustBuild({rule}).notes(), Contains(HasSubstr("compression inactive")));
  EXPECT_THAT(MustBuild({Rule("*", "none", "none")}).notes(), IsEmpty());  // nobody asked for any
}

TEST_F(PlanTest, ARuleThatMatchesNothingIsNoted) {
  const Plan plan = MustBuild({Rule("*atnt*", "powersgd"), Rule("*", "topk")});
  EXPECT_THAT(plan.notes(), Contains(AllOf(HasSubstr("*atnt*"), HasSubstr("no parameter"))));
}

TEST_F(PlanTest, DianaNeedsAnUnbiasedCodec) {
  for (const char* codec : {"sign", "blockquant", "topk"}) {
    const std::string message = Refusal(codec, "diana");
    EXPECT_THAT(message, HasSubstr("compressor.name = \"" + std::string(codec) + "\""));
    EXPECT_THAT(message, HasSubstr("feedback.name = \"diana\""));
    EXPECT_THAT(message, HasSubstr("unbiased"));
    const std::string feedbacks = message.substr(message.find("these feedbacks work: "));
    EXPECT_THAT(feedbacks, HasSubstr("ef14"));
    const std::string codecs = message.substr(message.find("these compressors: "));
    EXPECT_THAT(codecs, AllOf(HasSubstr("natural"), HasSubstr("qsgd"), HasSubstr("terngrad")));
    EXPECT_THAT(codecs, AllOf(Not(HasSubstr("sign")), Not(HasSubstr("topk"))));
  }
  EXPECT_TRUE(
      Build({Rule("*", "blockquant", "diana", {{"rounding", std::string("stochastic")}})}).ok());
}

// Specs() have matrices of 32 columns: unbiased_lowrank's variance is 32/rank - 1 exactly, randk's
// 1/ratio - 1. At 1 and above error feedback keeps more from step to step.
TEST_F(PlanTest, FeedbackThatNeedsAContractionIsRefusedWhereThereIsNone) {
  const Keys unbiased = {{"mode", std::string("unbiased")}, {"ratio", 0.25}};
  for (const char* feedback : {"ef14", "dgc", "ef21", "ef21m", "econtrol", "econtrol_m"}) {
    EXPECT_THAT(Refusal("unbiased_lowrank", feedback, {{"rank", int64_t{4}}}),
                AllOf(HasSubstr("on tok.weight the error of this one has 7 times the squared norm"),
                      HasSubstr("these feedbacks work: diana, none;")));
    Refusal("unbiased_lowrank", feedback, {{"rank", int64_t{16}}});
    EXPECT_TRUE(Build({Rule("*", "unbiased_lowrank", feedback, {{"rank", int64_t{17}}})}).ok());
    EXPECT_THAT(Refusal("randk", feedback, unbiased), HasSubstr("has 3 times the squared norm"));
    EXPECT_TRUE(Build({Rule("*", "randk", feedback, {{"ratio", 0.25}})}).ok());
  }
  for (const char* feedback : {"none", "diana"}) {
    EXPECT_TRUE(Build({Rule("*", "unbiased_lowrank", feedback)}).ok()) << feedback;
    EXPECT_TRUE(Build({Rule("*", "randk", feedback, unbiased)}).ok()) << feedback;
  }
}

TEST_F(PlanTest, AnInexactSumIsGatheredUnderEf21) {
  const auto merge = [&](const char* codec, const char* feedback) {
    return MustBuild({Rule("*", codec, feedback)}).parameters()[1].route.exchange->merge();
  };
  EXPECT_EQ(merge("bf16", "ef14"), Merge::kSum);
  EXPECT_EQ(merge("bf16", "ef21"), Merge::kGather);
  EXPECT_EQ(merge("blockquant", "ef14"), Merge::kReencode);
  EXPECT_EQ(merge("blockquant", "ef21"), Merge::kGather);
  EXPECT_EQ(merge("powersgd", "ef21"), Merge::kSum);
}

TEST_F(PlanTest, TakesTheExchangeOfTheFewestBytes) {
  const auto merge = [&](double ratio, int ranks, const std::string& wanted = "auto") {
    PlanOptions options = routes_.Options(ranks);
    options.rules = {Rule("*", "topk", "ef21", {{"ratio", ratio}})};
    options.rules[0].route.merge = wanted;
    const auto plan = Plan::Build(Specs(), options);
    TW_CHECK_OK(plan);
    return plan->parameters()[1].route.exchange->merge();
  };
  EXPECT_EQ(merge(0.01, 4), Merge::kGather);
  EXPECT_EQ(merge(0.3, 8), Merge::kSparse);  // eight selections of 30 % cover nearly everything
  EXPECT_EQ(merge(0.01, 4, "sparse"), Merge::kSparse);
  EXPECT_EQ(merge(0.3, 8, "gather"), Merge::kGather);
}

TEST_F(PlanTest, AMergeThatCannotWorkIsRefused) {
  PlanRule rule = Rule("*", "blockquant", "ef21");
  rule.route.merge = "reencode";
  const auto plan = Build({rule});
  EXPECT_EQ(ExitCode(plan.status()), 2);
  EXPECT_THAT(std::string(plan.status().message()),
              AllOf(HasSubstr("compressor.merge = \"reencode\""), HasSubstr("auto, gather")));
}

TEST_F(PlanTest, APairWithoutACommonExchangeIsRefused) {
  PlanOptions options = routes_.Options(2);
  options.exchanges = {FindExchange(Merge::kSum)};  // a transport that can only add
  options.rules = {Rule("*", "topk", "ef14")};
  const auto plan = Plan::Build(Specs(), options);
  ASSERT_FALSE(plan.ok());
  const std::string message(plan.status().message());
  EXPECT_THAT(message, AllOf(HasSubstr("\"topk\""), HasSubstr("\"ef14\""), HasSubstr("randk")));
}

TEST_F(PlanTest, MoreRanksThanACompressorServesAreRefused) {
  const auto build = [&](int ranks) {
    PlanOptions options = routes_.Options(ranks);
    options.rules = {Rule("*", "intsum", "ef14")};
    return Plan::Build(Specs(), options).status();
  };
  EXPECT_TRUE(build(127).ok()) << build(127);
  EXPECT_EQ(ExitCode(build(128)), 2);
  EXPECT_THAT(std::string(build(128).message()), HasSubstr("at most 127 ranks, these are 128"));
}

TEST_F(PlanTest, TheFingerprintChangesWithThePlan) {
  const uint64_t base = MustBuild({Rule("*", "topk")}).fingerprint();
  EXPECT_EQ(base, MustBuild({Rule("*", "topk")}).fingerprint());
  PlanRule later = Rule("*", "topk");
  later.start_step = 5;
  for (const auto& rules :
       std::vector<std::vector<PlanRule>>{{Rule("*", "sign")},
                                          {Rule("*", "topk", "ef21")},
                                          {Rule("*", "topk", "ef14", {{"ratio", 0.5}})},
                                          {Rule("tok*", "none", "none"), Rule("*", "topk")},
                                          {later}}) {
    EXPECT_NE(base, MustBuild(rules).fingerprint());
  }
}

}  // namespace
}  // namespace tw
