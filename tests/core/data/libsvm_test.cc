#include "core/data/libsvm.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/data/file.h"
#include "tests/core/data/gzip_for_test.h"
#include "tests/core/data/temp_folder.h"

namespace tw {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string ErrorOf(const std::string& text) {
  const auto rows = ParseLibsvm(text, "f.txt");
  EXPECT_FALSE(rows.ok()) << text;
  EXPECT_EQ(FaultOf(rows.status()), Fault::kData);
  return std::string(rows.status().message());
}

std::vector<float> Row(const SparseRows& rows, int64_t i) {
  std::vector<float> out(static_cast<size_t>(rows.features), -7.0f);
  rows.Densify(i, out);
  return out;
}

TEST(Libsvm, ReadsRowsWithTrailingBlanksNoFeaturesAndAnEmptyLastLine) {
  const auto rows = ParseLibsvm("+1 1:0.5 3:-2e-1 \n-1 \n-1\t2:1\r\n# all\n\n", "f");
  ASSERT_TRUE(rows.ok()) << rows.status();
  EXPECT_EQ(rows->size(), 3);
  EXPECT_EQ(rows->features, 3);
  EXPECT_EQ(rows->classes, 2);
  EXPECT_THAT(rows->labels, ElementsAre(1, 0, 0));
  EXPECT_THAT(Row(*rows, 0), ElementsAre(0.5f, 0.0f, -0.2f));
  EXPECT_THAT(Row(*rows, 1), ElementsAre(0, 0, 0));
  EXPECT_THAT(Row(*rows, 2), ElementsAre(0, 1, 0));
}

TEST(Libsvm, MapsAnyLabelsToClassesInRisingOrder) {
  for (const char* text :
       {"-1 1:1\n+1 1:1\n", "0 1:1\n1 1:1\n", "1 1:1\n2 1:1", "-1.0 1:1\n1.0 1:1"}) {
    const auto rows = ParseLibsvm(text, "f");
    ASSERT_TRUE(rows.ok()) << rows.status();
    EXPECT_THAT(rows->labels, ElementsAre(0, 1)) << text;
  }
  const auto rows = ParseLibsvm("7 1:1\n3 1:1\n5 1:1\n3 1:1\n", "f");
  ASSERT_TRUE(rows.ok());
  EXPECT_EQ(rows->classes, 3);
  EXPECT_THAT(rows->labels, ElementsAre(2, 0, 1, 0));
}

TEST(Libsvm, AppendsRowsByTheLabelsOfTheFiles) {
  auto train = ParseLibsvm("-1 1:1\n+1 2:2\n", "train");
  const auto test = ParseLibsvm("+1 3:3\n+1 1:4\n", "test"),
             other = ParseLibsvm("2 1:1\n3 1:1\n", "other");
  ASSERT_TRUE(train.ok() && test.ok() && other.ok());
  EXPECT_FALSE(train->Append(*other));
  EXPECT_EQ(train->size(), 2);
  // A file that holds only +1 fits: the label decides, not how many classes a file shows.
  EXPECT_TRUE(train->Append(*test));
  EXPECT_THAT(train->labels, ElementsAre(0, 1, 1, 1));
  EXPECT_EQ(train->features, 3);
  EXPECT_THAT(Row(*train, 2), ElementsAre(0, 0, 3));
  EXPECT_THAT(Row(*train, 3), ElementsAre(4, 0, 0));
}

TEST(Libsvm, WidensToTheColumnsAskedFor) {
  const auto rows = ParseLibsvm("1 2:1\n0 1:1", "f", 5);
  ASSERT_TRUE(rows.ok());
  EXPECT_EQ(rows->features, 5);
}

TEST(Libsvm, NamesFileLineAndWord) {
  EXPECT_THAT(ErrorOf("1 1:1\nspam 1:1\n"), AllOf(HasSubstr("f.txt:2: "), HasSubstr("\"spam\"")));
  EXPECT_THAT(ErrorOf("0.5 1:1\n"), HasSubstr("f.txt:1: label \"0.5\""));
  EXPECT_THAT(ErrorOf("1 1:1\n\n1 1:1 4;2\n"), AllOf(HasSubstr("f.txt:3: "), HasSubstr("\"4;2\"")));
  EXPECT_THAT(ErrorOf("1 0:1\n"), HasSubstr("index 0, allowed 1 to"));
  EXPECT_THAT(ErrorOf("1 99999999999:1\n"), HasSubstr("index 99999999999"));
  EXPECT_THAT(ErrorOf("1 3:1 3:2\n"), HasSubstr("index 3 after 3"));
  EXPECT_THAT(ErrorOf("1 1:nan\n"), HasSubstr("\"1:nan\""));
  EXPECT_THAT(ErrorOf("1 1:1e99\n"), HasSubstr("\"1:1e99\""));
  EXPECT_THAT(ErrorOf("1 1:\n"), HasSubstr("\"1:\""));
  EXPECT_THAT(ErrorOf("\n \n"), HasSubstr("no rows"));
  EXPECT_THAT(ErrorOf("1\n0\n"), HasSubstr("no row has a feature"));
  EXPECT_THAT(ErrorOf(std::string("\x01\x02\x00\xff 1:1", 8)), HasSubstr("\"????\""));
}

TEST(Libsvm, ReadsGzippedFiles) {
  const TempFolder dir;
  const auto rows = ReadLibsvm(dir.Write("f.gz", Gzip("1 1:2\n0 2:3\n")));
  ASSERT_TRUE(rows.ok()) << rows.status();
  EXPECT_EQ(rows->size(), 2);
  EXPECT_FALSE(ReadLibsvm(dir.Path("absent")).ok());
}

TEST(Libsvm, ReadsTheSharedSetsWhereTheyLie) {
  const std::string folder = std::string(TW_SHARED_DATA) + "/libsvm/";
  if (!IsFolder(folder)) GTEST_SKIP() << folder << " is not there";
  struct Expected {
    const char* name;
    int64_t rows, features, positive;
  };
  for (const Expected& e :
       {Expected{"a9a.gz", 32561, 123, 7841}, Expected{"a9a.t.gz", 16281, 122, 3846},
        Expected{"w8a.gz", 49749, 300, 1479}, Expected{"mushrooms-agaricus.gz", 8124, 126, 3916},
        Expected{"phishing-8405.gz", 8405, 68, 4678}}) {
    const auto rows = ReadLibsvm(folder + e.name);
    ASSERT_TRUE(rows.ok()) << rows.status();
    EXPECT_EQ(rows->size(), e.rows) << e.name;
    EXPECT_EQ(rows->features, e.features) << e.name;
    EXPECT_EQ(std::count(rows->labels.begin(), rows->labels.end(), 1), e.positive) << e.name;
  }
}

}  // namespace
}  // namespace tw
