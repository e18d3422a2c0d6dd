#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>

#include "core/api/metrics.h"
#include "core/base/file_io.h"

namespace tw {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

class JsonlSink : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string folder = (fs::temp_directory_path() / "tw_jsonl_XXXXXX").string();
    ASSERT_NE(::mkdtemp(folder.data()), nullptr);
    info_.run_dir = folder;
    info_.total_steps = 10;
  }
  void TearDown() override { fs::remove_all(info_.run_dir); }
  std::unique_ptr<MetricSink> Open() {
    auto kind = Registry<MetricSinkKind>::Get().Make(ConfigSection{}, "jsonl");
    TW_CHECK_OK(kind);
    auto sink = (*kind)->Open(info_);
    TW_CHECK_OK(sink);
    return std::move(sink).value();
  }
  void WriteSteps(int64_t from, int64_t to) {
    auto sink = Open();
    for (int64_t step = from; step <= to; ++step) {
      StepRecord record;
      record.step = step;
      record.loss = 1.0 / static_cast<double>(step);
      TW_CHECK_OK(sink->Write(record));
    }
    TW_CHECK_OK(sink->Flush());
  }
  std::string path() const { return info_.run_dir + "/metrics.jsonl"; }
  std::vector<Json> Lines() {
    auto text = ReadTextFile(path());
    TW_CHECK_OK(text);
    std::vector<Json> out;
    std::istringstream in(*text);
    for (std::string line; std::getline(in, line);) out.push_back(Json::parse(line));
    return out;
  }
  std::vector<int64_t> Steps() {
    std::vector<int64_t> out;
    for (const Json& line : Lines()) out.push_back(line["step"].get<int64_t>());
    return out;
  }
  RunInfo info_;
};

TEST_F(JsonlSink, WritesOneObjectAStepWithAllFieldsInOrder) {
  WriteSteps(1, 3);
  const std::vector<Json> lines = Lines();
  ASSERT_EQ(lines.size(), 3u);
  size_t i = 0;
  for (const auto& [key, value] : lines[2].items()) EXPECT_EQ(key, MetricFields()[i++].name);
  EXPECT_EQ(i, MetricFields().size());
  EXPECT_TRUE(lines[2]["step"].is_number_integer());
  EXPECT_EQ(lines[2]["loss"].get<double>(), 1.0 / 3.0);  // the very double
}

TEST_F(JsonlSink, WritesWhatJsonCannotSayAsNull) {
  {
    auto sink = Open();
    StepRecord record;
    record.loss = std::numeric_limits<double>::quiet_NaN();
    record.grad_norm = std::numeric_limits<double>::infinity();
    ASSERT_TRUE(sink->Write(record).ok());
  }
  EXPECT_TRUE(Lines()[0]["loss"].is_null());
  EXPECT_TRUE(Lines()[0]["grad_norm"].is_null());
}

TEST_F(JsonlSink, WritesAFileForEachRankWhenAsked) {
  auto kind = Registry<MetricSinkKind>::Get().Make(ConfigSection{}, "jsonl_ranks");
  ASSERT_TRUE(kind.ok());
  EXPECT_TRUE((*kind)->on_every_rank());
  for (int rank : {0, 3}) {
    info_.rank = rank;
    auto sink = (*kind)->Open(info_);
    ASSERT_TRUE(sink.ok());
    StepRecord record;
    record.step = 1;
    record.cpu_ms = rank + 0.5;
    ASSERT_TRUE((*sink)->Write(record).ok());
    auto text = ReadTextFile(info_.run_dir + "/metrics.rank" + std::to_string(rank) + ".jsonl");
    ASSERT_TRUE(text.ok());
    EXPECT_EQ(Json::parse(*text)["cpu_ms"].get<double>(), rank + 0.5);
  }
  EXPECT_FALSE(fs::exists(path()));
}

TEST_F(JsonlSink, KeepsEveryNthStep) {
  info_.every = 4;
  WriteSteps(1, 10);
  EXPECT_EQ(Steps(), (std::vector<int64_t>{4, 8}));
}

TEST_F(JsonlSink, DropsLaterLinesWhenARunResumes) {
  WriteSteps(1, 8);
  info_.first_step = 5;
  WriteSteps(6, 7);
  EXPECT_EQ(Steps(), (std::vector<int64_t>{1, 2, 3, 4, 5, 6, 7}));
}

TEST_F(JsonlSink, DropsATornLastLineWhenARunResumes) {
  WriteSteps(1, 4);
  fs::resize_file(path(), fs::file_size(path()) - 7);
  info_.first_step = 4;
  WriteSteps(5, 5);
  EXPECT_EQ(Steps(), (std::vector<int64_t>{1, 2, 3, 5}));
}

TEST_F(JsonlSink, StartsAnewWhenTheRunDoes) {
  WriteSteps(1, 8);
  WriteSteps(1, 2);
  EXPECT_EQ(Steps(), (std::vector<int64_t>{1, 2}));
}

TEST_F(JsonlSink, NamesTheFileWhenTheDiskIsFull) {
  auto sink = Open();
  ASSERT_TRUE(sink->Write(StepRecord{}).ok());
  // A limit on the size of files stands in for the full disk: write() fails half way.
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  rlimit tight = before;
  tight.rlim_cur = fs::file_size(path()) + 10;
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &tight), 0);
  const Status status = sink->Write(StepRecord{});
  ::setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(ExitCode(status), 3);
  EXPECT_EQ(std::string(status.message()), path() + ": cannot write: File too large");
}

TEST_F(JsonlSink, RefusesAFolderThatIsNotThere) {
  info_.run_dir += "/no/such";
  auto kind = Registry<MetricSinkKind>::Get().Make(ConfigSection{}, "jsonl");
  ASSERT_TRUE(kind.ok());
  const Status status = (*kind)->Open(info_).status();
  EXPECT_EQ(ExitCode(status), 3);
  EXPECT_NE(std::string(status.message()).find("metrics.jsonl: cannot open"), std::string::npos);
}

}  // namespace
}  // namespace tw
