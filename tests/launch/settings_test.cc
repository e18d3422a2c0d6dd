#include "launch/settings.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_join.h"
#include "launch/compose.h"

namespace tw {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::IsSupersetOf;
using ::testing::Not;

LoadedConfig MustLoad(const std::vector<std::string>& overrides) {
  auto loaded = LoadedConfig::Load("", overrides);
  TW_CHECK_OK(loaded);
  return std::move(loaded).value();
}

std::string ErrorOf(const std::string& toml) {
  auto config = Config::Parse(toml, "config.toml");
  TW_CHECK_OK(config);
  std::vector<std::string> idle;
  const auto settings = Settings::Read(*config, &idle);
  EXPECT_FALSE(settings.ok()) << toml;
  EXPECT_EQ(ExitCode(settings.status()), 2);
  return std::string(settings.status().message());
}

TEST(Settings, AnEmptyConfigIsTheDefaults) {
  const LoadedConfig loaded = MustLoad({});
  const Settings& s = loaded.settings;
  EXPECT_EQ(s.task.name, "lm");
  EXPECT_EQ(s.model_name, "gpt");
  EXPECT_EQ(s.compressor.name, "none");
  EXPECT_EQ(s.feedback, "none");
  EXPECT_EQ(s.optimizer.name, "adamw");
  EXPECT_EQ(s.train.steps, 1000);
  EXPECT_THAT(loaded.idle, IsEmpty());
}

TEST(Settings, TheModelFollowsTheTask) {
  EXPECT_EQ(MustLoad({"task.name=tabular"}).settings.model_name, "linear");
  EXPECT_EQ(MustLoad({"model.name=llama"}).settings.model_name, "llama");
}

TEST(Settings, AnUnknownKeyNamesPlaceAndNearest) {
  EXPECT_THAT(ErrorOf("[train]\nstep = 3\n"), AllOf(HasSubstr("config.toml:2"), HasSubstr("step"),
                                                    HasSubstr("did you mean steps")));
  EXPECT_THAT(ErrorOf("[compressor]\nname = \"topk\"\nratoi = 0.1\n"),
              AllOf(HasSubstr("config.toml:3"), HasSubstr("did you mean ratio")));
  EXPECT_THAT(ErrorOf("[data]\npaht = \"kjv\"\n"), HasSubstr("did you mean path"));
}

TEST(Settings, AnUnknownSectionOrVariantNamesTheNearest) {
  EXPECT_THAT(ErrorOf("[trian]\nsteps = 3\n"),
              AllOf(HasSubstr("config.toml:1"), HasSubstr("did you mean train")));
  EXPECT_THAT(ErrorOf("[compressor]\nname = \"topp\"\n"), HasSubstr("topk"));
  EXPECT_THAT(ErrorOf("[feedback]\nname = \"ef41\"\n"), HasSubstr("ef14"));
  EXPECT_THAT(ErrorOf("[model]\nname = \"gtp\"\n"), HasSubstr("gpt"));
}

TEST(Settings, AValueOutOfRangeSaysWhatIsAllowed) {
  EXPECT_THAT(ErrorOf("[train]\nsteps = 0\n"),
              AllOf(HasSubstr("config.toml:2"), HasSubstr("train.steps"), HasSubstr(">= 1")));
  EXPECT_THAT(ErrorOf("[comm]\nbucket_cap_mb = 0\n"), HasSubstr("bucket_cap_mb"));
  EXPECT_THAT(ErrorOf("[compressor]\nname = \"topk\"\nratio = 1.5\n"), HasSubstr("(0, 1]"));
  EXPECT_THAT(ErrorOf("[train]\nprecision = \"fp8\"\n"), HasSubstr("bf16"));
  EXPECT_THAT(ErrorOf("[train]\nsteps = \"many\"\n"), HasSubstr("many"));
}

TEST(Settings, ARuleNeedsMatchAndName) {
  EXPECT_THAT(ErrorOf("[[compressor.rule]]\nname = \"topk\"\n"), HasSubstr("match"));
  EXPECT_THAT(ErrorOf("[[compressor.rule]]\nmatch = \"*\"\n"), HasSubstr("name"));
  EXPECT_THAT(ErrorOf("[[compressor.rule]]\nmatch = \"*\"\nname = \"topk\"\nrank = 2\nrnak = 1\n"),
              HasSubstr("rnak"));
}

TEST(Settings, AnOptimizerRuleNeedsMatchAndState) {
  EXPECT_THAT(ErrorOf("[[optimizer.rule]]\nmatch = \"*\"\n"), HasSubstr("state"));
  EXPECT_THAT(ErrorOf("[[optimizer.rule]]\nstate = \"int4\"\n"), HasSubstr("match"));
  EXPECT_THAT(ErrorOf("[[optimizer.rule]]\nmatch = \"*\"\nstate = \"int5\"\n"), HasSubstr("int4"));
  EXPECT_THAT(ErrorOf("[optimizer]\nstate = \"in4\"\n"), HasSubstr("int4"));
}

TEST(Settings, AKeyOfAnotherVariantIsReportedAsIdle) {
  EXPECT_THAT(MustLoad({"compressor.name=sign", "compressor.ratio=0.1"}).idle,
              Contains(HasSubstr("compressor.ratio")));
  EXPECT_THAT(MustLoad({"memory.compact_rank=0.5"}).idle,
              Contains(HasSubstr("memory.compact_rank")));
  EXPECT_THAT(MustLoad({"strategy.local_steps=4"}).idle,
              Contains(HasSubstr("strategy.local_steps")));
  EXPECT_THAT(MustLoad({"compressor.name=topk", "compressor.ratio=0.1"}).idle, IsEmpty());
}

TEST(Settings, TheEffectiveConfigReadsBackAsItself) {
  for (const char* text :
       {"",
        "compressor = {name = \"topk\", ratio = 0.015}\n[feedback]\nname = \"econtrol\"\n"
        "eta = \"0.1\"\n[train]\naccumulate = 3\n[schedule]\nname = \"wsd\"\n",
        "[task]\nname = \"image\"\n[model]\nname = \"cnn\"\n[data]\nshard = \"dirichlet\"\n",
        "name = \"a \\\"quoted\\\" name\"\n[data]\npath = \"dir\\\\file\"\n[[compressor.rule]]\n"
        "match = \"*attn*\"\nname = \"powersgd\"\nrank = 2\n[memory]\ncompact_rank = 0.25\n"}) {
    const auto first = Config::Parse(text, "config.toml");
    ASSERT_TRUE(first.ok()) << first.status() << "\n" << text;
    std::vector<std::string> idle;
    const auto settings = Settings::Read(*first, &idle);
    ASSERT_TRUE(settings.ok()) << settings.status() << "\n" << text;
    const auto toml = EffectiveToml(*first, *settings);
    ASSERT_TRUE(toml.ok()) << toml.status();
    const auto second = Config::Parse(*toml, "effective");
    ASSERT_TRUE(second.ok()) << second.status() << "\n" << *toml;
    const auto again = Settings::Read(*second, &idle);
    ASSERT_TRUE(again.ok()) << again.status() << "\n" << *toml;
    EXPECT_THAT(idle, IsEmpty());
    EXPECT_EQ(*ComparedToml(*second, *again), *ComparedToml(*first, *settings));
    EXPECT_EQ(*EffectiveToml(*second, *again), *toml);
  }
}

TEST(Settings, TheHashIsOverWhatRanksMustShare) {
  const uint64_t base = MustLoad({}).hash;
  for (const char* free :
       {"run.dir=somewhere", "train.steps=7", "train.threads=3", "metrics.every=5",
        "metrics.sinks=[\"jsonl\"]", "checkpoint.every=9", "comm.timeout_s=5"}) {
    EXPECT_EQ(MustLoad({free}).hash, base) << free;
  }
  for (const char* shared : {"optimizer.lr=0.5", "compressor.name=topk", "train.seed=2",
                             "model.layers=2", "data.context=64", "feedback.name=ef14"}) {
    EXPECT_NE(MustLoad({shared}).hash, base) << shared;
  }
}

TEST(Settings, TheNameIsAFolderInRunsAndNoPath) {
  for (const char* bad : {"name=a/b", "name=../x", "name="}) {
    const auto loaded = LoadedConfig::Load("", {bad});
    EXPECT_EQ(ExitCode(loaded.status()), 2) << bad;
    EXPECT_THAT(std::string(loaded.status().message()), HasSubstr("command line: name = "));
  }
}

TEST(Settings, WordsOfACommandAreNamedToWhoMistypesOne) {
  const auto loaded = LoadedConfig::Load("", {"chekpoint=run"}, {"checkpoint"});
  EXPECT_EQ(ExitCode(loaded.status()), 2);
  EXPECT_THAT(std::string(loaded.status().message()), HasSubstr("did you mean checkpoint?"));
}

TEST(Settings, CompressionThatComesToNothingIsSaid) {
  const auto notes = [](std::vector<std::string> overrides) {
    overrides.insert(overrides.end(), {"data.path=synthetic", "model.layers=1", "model.width=32",
                                       "model.heads=2", "train.steps=10"});
    const auto assembly = Assemble(MustLoad(overrides), 0, 2);
    TW_CHECK_OK(assembly);
    return absl::StrJoin((*assembly)->warnings, "\n");
  };
  EXPECT_THAT(notes({"feedback.name=ef14"}), HasSubstr("\"ef14\" does nothing"));
  EXPECT_THAT(notes({"feedback.name=ef14", "compressor.name=topk"}),
              Not(HasSubstr("does nothing")));
  EXPECT_THAT(notes({"compressor.name=topk", "compressor.start_step=10"}),
              HasSubstr("compression never starts"));
  EXPECT_THAT(notes({"compressor.name=topk", "compressor.start_step=9"}),
              Not(HasSubstr("never starts")));
}

TEST(Settings, RanksShareMoreThanAResumedRunDoes) {
  const std::string base = MustLoad({}).shared;
  for (const char* shared : {"run.dir=somewhere", "train.steps=7", "metrics.every=5",
                             "checkpoint.every=9", "checkpoint.resume=never", "optimizer.lr=0.5"}) {
    EXPECT_EQ(ChangedKeys(base, MustLoad({shared}).shared).size(), 1u) << shared;
  }
  for (const char* free : {"train.threads=3", "comm.timeout_s=5"}) {
    EXPECT_EQ(MustLoad({free}).shared, base) << free;
  }
}

TEST(Settings, ChangedKeysAreNamedWithBothValues) {
  const std::string was = MustLoad({}).compared;
  EXPECT_THAT(ChangedKeys(was, was), IsEmpty());
  EXPECT_THAT(ChangedKeys(was, MustLoad({"optimizer.lr=0.01", "train.steps=7"}).compared),
              ElementsAre("optimizer.lr: 0.001 -> 0.01"));
  const std::string is = MustLoad({"compressor.name=topk"}).compared;
  EXPECT_THAT(ChangedKeys(was, is),
              IsSupersetOf({std::string("compressor.name: \"none\" -> \"topk\""),
                            std::string("compressor.ratio: (none) -> 0.01")}));
  EXPECT_THAT(ChangedKeys("[[a.b]]\nk = 1\n\n[[a.b]]\nk = 2\n", "[[a.b]]\nk = 1\n"),
              ElementsAre("a.b.1.k: 2 -> (none)"));
}

}  // namespace
}  // namespace tw
