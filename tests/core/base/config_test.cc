#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>

#include "core/base/config_fields.h"
#include "core/base/registry.h"

namespace tw {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

struct Sample {
  double ratio = 0.01;
  int64_t steps = 10;
  bool on = false;
  std::string mode = "a";
  std::vector<double> betas = {0.9, 0.999};
  std::vector<std::string> sinks = {"x"};
  static FieldList<Sample> Fields() {
    return FieldList<Sample>()
        .Real("ratio", &Sample::ratio, {0, 1, kOpenLow}, "help")
        .Int("steps", &Sample::steps, {1, 1000}, "help")
        .Bool("on", &Sample::on, "help")
        .Text("mode", &Sample::mode, {"alpha", "beta"}, "help")
        .Reals("betas", &Sample::betas, {0, 1, kOpenHigh}, 2, "help")
        .Texts("sinks", &Sample::sinks, {"x", "y"}, "help");
  }
};

Config Parsed(const std::string& text) {
  auto config = Config::Parse(text, "file.toml");
  EXPECT_TRUE(config.ok()) << config.status();
  return *config;
}

std::string Message(const Status& status) { return std::string(status.message()); }

TEST(Config, ReadsEveryKindOfValueWithItsPlace) {
  const Config config = Parsed(
      "name = \"n\"\n[s]\nratio = 0.5\nsteps = 7\non = true\nmode = \"beta\"\nbetas = [0.5, 0]\n"
      "sinks = [\"y\", \"x\"]\n");
  const ConfigSection& section = config.section("s");
  EXPECT_EQ(section.values.at("steps").where, "file.toml:4");
  auto sample = ParseFields<Sample>(section);
  ASSERT_TRUE(sample.ok()) << sample.status();
  EXPECT_EQ(sample->ratio, 0.5);
  EXPECT_EQ(sample->steps, 7);
  EXPECT_TRUE(sample->on);
  EXPECT_EQ(sample->mode, "beta");
  EXPECT_THAT(sample->betas, ElementsAre(0.5, 0.0));
  EXPECT_THAT(sample->sinks, ElementsAre("y", "x"));
  EXPECT_EQ(config.section("").GetString("name", ""), "n");
}

TEST(Config, OverridesTakeTomlValuesAndBareWords) {
  Config config = Parsed("[s]\nratio = 0.5\n");
  EXPECT_TRUE(config.Override("s.ratio=0.25").ok());
  EXPECT_TRUE(config.Override("s.mode=alpha").ok());
  EXPECT_TRUE(config.Override("s.betas=[0.1,0.2]").ok());
  EXPECT_TRUE(config.Override("s.sinks=y").ok());
  auto sample = ParseFields<Sample>(config.section("s"));
  ASSERT_TRUE(sample.ok()) << sample.status();
  EXPECT_EQ(sample->ratio, 0.25);
  EXPECT_EQ(sample->mode, "alpha");
  EXPECT_THAT(sample->sinks, ElementsAre("y"));
  EXPECT_EQ(config.section("s").values.at("ratio").where, "command line");
}

TEST(Config, OverrideWithoutEqualsSignIsRefused) {
  Config config;
  EXPECT_EQ(ExitCode(config.Override("s.ratio")), 2);
  EXPECT_EQ(ExitCode(config.Override("=1")), 2);
  EXPECT_EQ(ExitCode(config.Override("s.=1")), 2);
}

TEST(Config, OverrideReachesIntoArraysOfTables) {
  Config config = Parsed("[[compressor.rule]]\nmatch = \"*\"\nrank = 4\n");
  EXPECT_TRUE(config.Override("compressor.rule.0.rank=2").ok());
  EXPECT_EQ(std::get<int64_t>(config.array("compressor.rule")[0].values.at("rank").value), 2);
  EXPECT_THAT(Message(config.Override("compressor.rule.1.rank=2")),
              HasSubstr("no [[compressor.rule]] number 1"));
}

TEST(Config, OutOfRangeNamesFileLineKeyValueAndRange) {
  const Config config = Parsed("[s]\n\nratio = 1.5\n");
  const auto sample = ParseFields<Sample>(config.section("s"));
  EXPECT_EQ(Message(sample.status()),
            "file.toml:3: s.ratio = 1.5 is not allowed; it must be (0, 1]");
  EXPECT_EQ(ExitCode(sample.status()), 2);
}

TEST(Config, WrongTypeIsRefused) {
  for (const char* text : {"ratio = \"x\"", "steps = 1.5", "on = 1", "mode = \"gamma\"",
                           "betas = [1]", "betas = [0.5, 1.0]", "steps = 0", "ratio = 0.0",
                           "sinks = [\"z\"]", "ratio = nan", "ratio = inf"}) {
    const Config config = Parsed(std::string("[s]\n") + text + "\n");
    EXPECT_FALSE(ParseFields<Sample>(config.section("s")).ok()) << text;
  }
}

TEST(Config, WholeRealIsAnInteger) {
  const Config config = Parsed("[s]\nsteps = 1e2\n");
  EXPECT_EQ(ParseFields<Sample>(config.section("s"))->steps, 100);
}

TEST(Config, UnknownKeyNamesTheNearestKnownOne) {
  const Config config = Parsed("[compressor]\nratoi = 0.5\n");
  std::vector<std::string> idle;
  const Status status =
      CheckKeys(config.section("compressor"), {"name", "ratio", "min_numel"}, {"bits"}, &idle);
  EXPECT_THAT(Message(status),
              HasSubstr("file.toml:2: there is no key compressor.ratoi; did you mean ratio?"));
  EXPECT_THAT(Message(status), HasSubstr("name, ratio, min_numel, bits"));
}

TEST(Config, KeyOfAnotherVariantIsIdleNotWrong) {
  const Config config = Parsed("[compressor]\nname = \"none\"\nbits = 4\n");
  std::vector<std::string> idle;
  EXPECT_TRUE(CheckKeys(config.section("compressor"), {"name"}, {"bits"}, &idle).ok());
  EXPECT_THAT(
      idle, ElementsAre(
                "compressor.bits = 4 does nothing with compressor.name = \"none\" (file.toml:3)"));
}

TEST(Config, UnknownSectionNamesTheNearest) {
  const Config config = Parsed("[compresor]\nname = \"none\"\n");
  EXPECT_THAT(Message(config.CheckSections({"", "compressor", "comm"})),
              HasSubstr("file.toml:1: there is no section [compresor]; did you mean compressor?"));
}

TEST(Config, SyntaxErrorNamesTheLine) {
  const auto config = Config::Parse("a = 1\nb = = 2\n", "file.toml");
  EXPECT_THAT(Message(config.status()), HasSubstr("file.toml:2:"));
  EXPECT_EQ(ExitCode(config.status()), 2);
}

TEST(Config, MissingFileIsOneClearError) {
  const auto config = Config::Load("/nonexistent/x.toml");
  EXPECT_THAT(Message(config.status()), HasSubstr("/nonexistent/x.toml"));
  EXPECT_THAT(Message(config.status()), HasSubstr("No such file"));
  EXPECT_EQ(ExitCode(config.status()), 2);
}

TEST(Config, AnEmptyFileIsAConfigOfDefaultsAndAFolderOrADeviceIsNone) {
  const std::string empty = ::testing::TempDir() + "/tw_empty_" + std::to_string(::getpid());
  std::ofstream(empty).flush();
  const auto config = Config::Load(empty);
  ::unlink(empty.c_str());
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_TRUE(config->section("").values.empty());
  EXPECT_THAT(Message(Config::Load("/tmp").status()), HasSubstr("Is a directory"));
  const auto endless = Config::Load("/dev/zero");
  EXPECT_THAT(Message(endless.status()), HasSubstr("/dev/zero: is a device"));
  EXPECT_EQ(ExitCode(endless.status()), 2);
}

TEST(Config, AWrongWordInAListNamesTheNearest) {
  const auto sample = ParseFields<Sample>(Parsed("[s]\nsinks = [\"y\", \"yy\"]\n").section("s"));
  EXPECT_THAT(Message(sample.status()), HasSubstr("did you mean y?"));
}

TEST(Config, ValuesSurviveWritingAndReading) {
  Sample sample;
  sample.ratio = 0.1;
  sample.mode = "beta";
  std::string text = "[s]\n";
  for (const auto& [key, value] : DumpFields(sample)) text += key + " = " + ToToml(value) + "\n";
  auto again = ParseFields<Sample>(Parsed(text).section("s"));
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(DumpFields(*again), DumpFields(sample));
}

TEST(Config, TextWithQuotesAndControlCharactersSurvives) {
  const std::string nasty = "a\"b\\c\nd\te\x01";
  const Config config = Parsed("k = " + ToToml(FieldValue(nasty)) + "\n");
  EXPECT_EQ(config.section("").GetString("k", ""), nasty);
}

TEST(NearestWord, FindsTyposAndGivesUpOnStrangers) {
  EXPECT_EQ(NearestWord("topkk", {"topk", "randk"}), "topk");
  EXPECT_EQ(NearestWord("zzzzzz", {"topk", "randk"}), "");
}

struct Thing {
  virtual ~Thing() = default;
  double ratio = 0;
};
TW_REGISTER(
    Thing, sample, 1, Sample,
    [](const Sample& c) -> StatusOr<std::unique_ptr<Thing>> {
      auto thing = std::make_unique<Thing>();
      thing->ratio = c.ratio;
      return thing;
    },
    "a sample");

TEST(Registry, MakesVariantsFromASection) {
  const Config config = Parsed("[s]\nname = \"sample\"\nratio = 0.75\n");
  auto thing = Registry<Thing>::Get().Make(config.section("s"), "sample");
  ASSERT_TRUE(thing.ok()) << thing.status();
  EXPECT_EQ((*thing)->ratio, 0.75);
}

TEST(Registry, UnknownNameIsRefusedWithPlaceAndNearest) {
  const Config config = Parsed("[s]\nname = \"sampel\"\n");
  const auto thing = Registry<Thing>::Get().Make(config.section("s"), "sample");
  EXPECT_THAT(Message(thing.status()),
              HasSubstr("file.toml:2: s.name = \"sampel\" is not known; did you mean sample?"));
}

TEST(RegistryDeathTest, TheSameNameOrWireIdTwiceIsABug) {
  Registry<Thing>::Entry entry;
  entry.name = "other";
  entry.wire_id = 1;
  EXPECT_DEATH(Registry<Thing>::Get().Add(entry), "check failed");
}

}  // namespace
}  // namespace tw
