#include "core/data/text_corpus.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/base/hash.h"
#include "core/data/file.h"
#include "core/data/synthetic_text.h"
#include "tests/core/data/gzip_for_test.h"
#include "tests/core/data/temp_folder.h"

namespace tw {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

std::string Digits(int n) {
  std::string text;
  for (int i = 0; i < n; ++i) text += static_cast<char>('0' + i % 10);
  return text;
}

std::string ErrorOf(const TextOptions& options) {
  const auto corpus = TextCorpus::Load(options);
  EXPECT_FALSE(corpus.ok());
  if (corpus.ok()) return "";
  EXPECT_THAT(std::string(corpus.status().message()), Not(HasSubstr("\n")));
  return std::string(corpus.status().message());
}

TEST(TextCorpus, SplitsOffTheLastFraction) {
  const TempFolder dir;
  const auto corpus = TextCorpus::Load(
      {.path = dir.Write("t.txt", Digits(100)), .context = 4, .val_fraction = 0.25});
  ASSERT_TRUE(corpus.ok()) << corpus.status();
  EXPECT_EQ(corpus->train().size(), 75u);
  EXPECT_EQ(corpus->validation().size(), 25u);
  EXPECT_EQ(corpus->validation()[0], '5');
  EXPECT_EQ(corpus->vocab(), 256);
}

TEST(TextCorpus, ReadsGzippedTextOfSeveralMembers) {
  const TempFolder dir;
  const std::string packed = Gzip(Digits(60)) + Gzip("abcdefghijklmnopqrstuvwxyzabcdefghijklmn");
  const auto corpus =
      TextCorpus::Load({.path = dir.Write("t.gz", packed), .context = 4, .val_fraction = 0.4});
  ASSERT_TRUE(corpus.ok()) << corpus.status();
  EXPECT_EQ(corpus->train().size(), 60u);
  EXPECT_EQ(corpus->validation()[0], 'a');
}

TEST(TextCorpus, ReadsBinTokensAndTakesTheLargestForTheVocabulary) {
  const TempFolder dir;
  std::string bytes;
  for (int i = 0; i < 40; ++i)
    bytes += {static_cast<char>(i), i == 7 ? '\x03' : '\x00'};  // 7 + 3 * 256
  const auto corpus =
      TextCorpus::Load({.path = dir.Write("t.bin", bytes), .context = 4, .val_fraction = 0.5});
  ASSERT_TRUE(corpus.ok()) << corpus.status();
  EXPECT_EQ(corpus->train()[7], 775);
  EXPECT_EQ(corpus->vocab(), 776);
  EXPECT_THAT(
      ErrorOf({.path = dir.Path("t.bin"), .context = 4, .val_fraction = 0.5, .vocab = 512}),
      AllOf(HasSubstr("t.bin"), HasSubstr("token 775 at position 7"), HasSubstr("0 to 511")));
}

TEST(TextCorpus, WindowsArePureFunctionsOfSeedStepMicroStepAndRank) {
  const auto corpus = TextCorpus::Load({.path = "synthetic", .context = 32});
  ASSERT_TRUE(corpus.ok()) << corpus.status();
  const BatchKey key{.seed = 3, .step = 17, .micro_step = 1, .rank = 2};
  const auto windows = corpus->TrainWindows(key, 4);
  ASSERT_EQ(windows.size(), 4u * 33u);
  EXPECT_EQ(windows, corpus->TrainWindows(key, 4));
  for (const BatchKey& other : {BatchKey{4, 17, 1, 2}, BatchKey{3, 18, 1, 2}, BatchKey{3, 17, 0, 2},
                                BatchKey{3, 17, 1, 3}}) {
    EXPECT_NE(windows, corpus->TrainWindows(other, 4));
  }
  // A larger batch starts with the smaller one: rows depend on their own number only.
  const auto more = corpus->TrainWindows(key, 6);
  EXPECT_TRUE(std::equal(windows.begin(), windows.end(), more.begin()));
}

TEST(TextCorpus, DrawsEveryWindowOfATextThatHoldsThree) {
  const TempFolder dir;
  // 12 tokens, 6 for validation: 6 training tokens hold the windows of 3 + 1 that start at 0, 1
  // and 2.
  const auto corpus =
      TextCorpus::Load({.path = dir.Write("t", Digits(12)), .context = 3, .val_fraction = 0.5});
  ASSERT_TRUE(corpus.ok()) << corpus.status();
  const auto windows = corpus->TrainWindows({}, 64);
  int starts[3] = {};
  for (size_t i = 0; i < windows.size(); i += 4) {
    ASSERT_GE(windows[i], '0');
    ASSERT_LE(windows[i], '2');
    ++starts[windows[i] - '0'];
    EXPECT_EQ(windows[i + 3], windows[i] + 3);
  }
  EXPECT_THAT(starts, ::testing::Each(::testing::Gt(0)));
}

TEST(TextCorpus, ValidationWindowsRunInOrderAndDropTheIncompleteOne) {
  const TempFolder dir;
  const auto corpus = TextCorpus::Load({.path = dir.Write("t", Digits(40)),
                                        .val_path = dir.Write("v", "abcdefghijk"),
                                        .context = 4});
  ASSERT_TRUE(corpus.ok()) << corpus.status();
  EXPECT_EQ(corpus->train().size(), 40u);  // all of it: the validation text is another file
  ASSERT_EQ(corpus->num_validation_windows(), 2);
  EXPECT_THAT(corpus->ValidationWindows(0, 2),
              ElementsAre('a', 'b', 'c', 'd', 'e', 'e', 'f', 'g', 'h', 'i'));
  EXPECT_THAT(corpus->ValidationWindows(1, 1), ElementsAre('e', 'f', 'g', 'h', 'i'));
}

TEST(TextCorpus, DoesNotOpenThePathWhenOnlyTheValidationTextIsAsked) {
  const TempFolder dir;
  const auto corpus = TextCorpus::Load({.path = dir.Path("absent"),
                                        .val_path = dir.Write("v", "abcdefghijk"),
                                        .context = 4,
                                        .validation_only = true});
  ASSERT_TRUE(corpus.ok()) << corpus.status();
  EXPECT_EQ(corpus->num_validation_windows(), 2);
}

TEST(TextCorpus, NamesWhatIsWrongWithAFile) {
  const TempFolder dir;
  EXPECT_THAT(ErrorOf({.path = dir.Path("absent")}),
              AllOf(HasSubstr("absent"), HasSubstr("No such file")));
  EXPECT_THAT(ErrorOf({.path = dir.Path("")}), HasSubstr("is a folder"));
  EXPECT_THAT(ErrorOf({.path = dir.Write("empty", "")}), HasSubstr("empty: the file is empty"));
  EXPECT_THAT(ErrorOf({.path = dir.Write("empty.gz", Gzip(""))}), HasSubstr("empty once unpacked"));
  EXPECT_THAT(ErrorOf({.path = dir.Write("plain.gz", "no gzip")}), HasSubstr("holds no gzip data"));
  EXPECT_THAT(ErrorOf({.path = dir.Write("odd.bin", "abc")}),
              HasSubstr("3 bytes are no whole number"));
  EXPECT_THAT(ErrorOf({.path = dir.Write("short", "abcdefgh"), .context = 8, .val_fraction = 0.5}),
              AllOf(HasSubstr("has 4 tokens"), HasSubstr("data.context + 1 = 9")));
}

TEST(TextCorpus, NamesACutOrDamagedGzipFile) {
  const TempFolder dir;
  const std::string packed = Gzip(SyntheticText(1, 4000));
  EXPECT_THAT(ErrorOf({.path = dir.Write("cut.gz", packed.substr(0, packed.size() / 2))}),
              AllOf(HasSubstr("cut.gz"), HasSubstr("cut off")));
  EXPECT_THAT(ErrorOf({.path = dir.Write("tail.gz", packed.substr(0, packed.size() - 3))}),
              HasSubstr("cut off"));
  std::string flipped = packed;
  flipped[flipped.size() - 6] ^= 1;  // in the checksum
  EXPECT_THAT(ErrorOf({.path = dir.Write("bad.gz", flipped)}), HasSubstr("damaged gzip data"));
  EXPECT_THAT(ErrorOf({.path = dir.Write("trail.gz", packed + "xx")}),
              HasSubstr("damaged gzip data"));
}

TEST(TextCorpus, EveryFailureIsADataFault) {
  EXPECT_EQ(FaultOf(TextCorpus::Load({.path = "/absent/file"}).status()), Fault::kData);
}

TEST(TextCorpus, CachesTheBibleWhole) {
  if (std::system("command -v bible > /dev/null 2>&1") != 0)
    GTEST_SKIP() << "no program `bible` (Debian bible-kjv)";
  const TempFolder dir;
  const std::string cached = dir.Path("cache/kjv.txt");
  std::filesystem::create_directories(dir.Path("cache"));
  dir.Write("cache/kjv.txt", "cut off by a full disk");
  const auto first = TextCorpus::Load({.path = "kjv", .cache_folder = dir.Path("cache")});
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_EQ(first->train().size() + first->validation().size(), 4404412u);
  EXPECT_EQ(std::filesystem::file_size(cached), 4404412u);
  const auto second = TextCorpus::Load({.path = "kjv", .cache_folder = dir.Path("cache")});
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_TRUE(std::equal(first->train().begin(), first->train().end(), second->train().begin()));
}

TEST(SyntheticText, DependsOnTheSeedAlone) {
  const std::string text = SyntheticText(1, 10000);
  ASSERT_EQ(text.size(), 10000u);
  EXPECT_EQ(text, SyntheticText(1, 20000).substr(0, 10000));
  EXPECT_NE(text, SyntheticText(2, 10000));
}

TEST(TextCorpus, ReadsTinyShakespeareWhereItLies) {
  const std::string path = std::string(TW_SHARED_DATA) + "/tinyshakespeare/input.txt.gz";
  if (!FileExists(path)) GTEST_SKIP() << path << " is not there";
  const auto corpus = TextCorpus::Load({.path = path});
  ASSERT_TRUE(corpus.ok()) << corpus.status();
  EXPECT_EQ(corpus->train().size() + corpus->validation().size(), 1115394u);
  EXPECT_EQ(corpus->validation().size(), 111539u);
}

}  // namespace
}  // namespace tw
