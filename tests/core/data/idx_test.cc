#include "core/data/idx.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

#include "core/data/file.h"
#include "tests/core/data/gzip_for_test.h"
#include "tests/core/data/temp_folder.h"

namespace tw {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

std::string Header(std::initializer_list<uint32_t> words) {
  std::string out;
  for (uint32_t w : words) {
    for (int shift = 24; shift >= 0; shift -= 8) out += static_cast<char>(w >> shift & 0xff);
  }
  return out;
}

// `count` images of 2 x 3 whose bytes count up from `first`, labels 0, 1, 2, 0, ...
struct Pair {
  std::string images, labels;
};
Pair MakePair(uint32_t count, int first = 0) {
  Pair out{Header({0x803, count, 2, 3}), Header({0x801, count})};
  for (uint32_t i = 0; i < 6 * count; ++i)
    out.images += static_cast<char>(first + static_cast<int>(i));
  for (uint32_t i = 0; i < count; ++i) out.labels += static_cast<char>(i % 3);
  return out;
}

void WriteTrain(const TempFolder& dir, const Pair& pair) {
  dir.Write("train-images-idx3-ubyte", pair.images);
  dir.Write("train-labels-idx1-ubyte", pair.labels);
}

std::string ErrorOf(const TempFolder& dir) {
  const auto data = ReadIdxFolder(dir.Path(""));
  EXPECT_FALSE(data.ok());
  EXPECT_EQ(FaultOf(data.status()), Fault::kData);
  EXPECT_THAT(std::string(data.status().message()), Not(HasSubstr("\n")));
  return std::string(data.status().message());
}

TEST(IdxFolder, ReadsPlainAndGzippedFiles) {
  const TempFolder dir;
  WriteTrain(dir, MakePair(5));
  const Pair test = MakePair(2, 100);
  dir.Write("t10k-images-idx3-ubyte.gz", Gzip(test.images));
  dir.Write("t10k-labels-idx1-ubyte.gz", Gzip(test.labels));
  const auto data = ReadIdxFolder(dir.Path(""));
  ASSERT_TRUE(data.ok()) << data.status();
  EXPECT_EQ(data->train.size(), 5);
  EXPECT_EQ(data->train.height, 2);
  EXPECT_EQ(data->train.width, 3);
  EXPECT_EQ(data->train.pixels[29], 29);
  EXPECT_THAT(data->train.labels, ElementsAre(0, 1, 2, 0, 1));
  ASSERT_TRUE(data->test.has_value());
  EXPECT_EQ(data->test->pixels[0], 100);
  EXPECT_EQ(data->test->classes, 3);  // that of both parts, though label 2 is not in this one
}

TEST(IdxFolder, MayLackTheTestFiles) {
  const TempFolder dir;
  WriteTrain(dir, MakePair(4));
  const auto data = ReadIdxFolder(dir.Path(""));
  ASSERT_TRUE(data.ok()) << data.status();
  EXPECT_FALSE(data->test.has_value());
}

TEST(IdxFolder, NamesWhatIsWrong) {
  const TempFolder dir;
  EXPECT_THAT(std::string(ReadIdxFolder(dir.Path("absent")).status().message()),
              HasSubstr("no such folder"));
  EXPECT_THAT(ErrorOf(dir), HasSubstr("train-images-idx3-ubyte[.gz]: no such file"));
  const Pair good = MakePair(4);

  WriteTrain(dir, {good.images, MakePair(3).labels});
  EXPECT_THAT(ErrorOf(dir), AllOf(HasSubstr("4 images"), HasSubstr("3 labels")));

  WriteTrain(dir, {good.images.substr(0, 20), good.labels});
  EXPECT_THAT(ErrorOf(dir), AllOf(HasSubstr("4 x 2 x 3"), HasSubstr("holds 4 behind it")));

  WriteTrain(dir, {good.images.substr(0, 16), good.labels});
  EXPECT_THAT(ErrorOf(dir), HasSubstr("holds 0 behind it"));

  WriteTrain(dir, {good.images + "x", good.labels});
  EXPECT_THAT(ErrorOf(dir), HasSubstr("holds 25 behind it"));

  WriteTrain(dir, {good.labels, good.labels});
  EXPECT_THAT(ErrorOf(dir),
              AllOf(HasSubstr("starts with 0x00000801"), HasSubstr("with 0x00000803")));

  WriteTrain(dir, {"PK", good.labels});
  EXPECT_THAT(ErrorOf(dir), HasSubstr("starts with 2 bytes"));

  WriteTrain(dir, {Header({0x803, 0xffffffff, 0xffffffff, 0xffffffff}) + "abc", good.labels});
  EXPECT_THAT(ErrorOf(dir), HasSubstr("4294967295 x 4294967295"));

  WriteTrain(dir, {"", good.labels});
  EXPECT_THAT(ErrorOf(dir), HasSubstr("the file is empty"));
}

TEST(IdxFolder, RefusesHalfATestSet) {
  const TempFolder dir;
  WriteTrain(dir, MakePair(4));
  dir.Write("t10k-images-idx3-ubyte", MakePair(2).images);
  EXPECT_THAT(ErrorOf(dir), HasSubstr("only one is there"));
}

TEST(IdxFolder, ReadsMnistWhereItLies) {
  const std::string folder = std::string(TW_SHARED_DATA) + "/mnist";
  if (!IsFolder(folder)) GTEST_SKIP() << folder << " is not there";
  const auto data = ReadIdxFolder(folder);
  ASSERT_TRUE(data.ok()) << data.status();
  EXPECT_EQ(data->train.size(), 60000);
  EXPECT_EQ(data->test->size(), 10000);
  EXPECT_EQ(data->train.classes, 10);
  // The known mean brightness of MNIST.
  const double sum = std::accumulate(data->train.pixels.begin(), data->train.pixels.end(), 0.0);
  EXPECT_NEAR(sum / (60000.0 * 784 * 255), 0.1306604763, 1e-9);
}

}  // namespace
}  // namespace tw
