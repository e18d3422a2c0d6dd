#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "core/api/metrics.h"
#include "core/base/bytes.h"
#include "core/base/file_io.h"
#include "launch/sinks/tfevents.h"

namespace tw {
namespace {

namespace fs = std::filesystem;

std::string Hex(std::string_view bytes) {
  std::string out;
  char digits[3];
  for (char c : bytes) {
    std::snprintf(digits, sizeof(digits), "%02x", static_cast<unsigned>(static_cast<uint8_t>(c)));
    out += digits;
  }
  return out;
}

// The payloads of a file of records; checks lengths and checksums on the way.
std::vector<std::string> Records(const std::string& file) {
  std::vector<std::string> out;
  ByteReader in(ByteSpan(reinterpret_cast<const uint8_t*>(file.data()), file.size()));
  while (in.remaining() > 0) {
    const auto length = in.Read<uint64_t>();
    in.Read<uint32_t>();
    const ByteSpan body = in.Take(length);
    in.Read<uint32_t>();
    if (!in.ok()) {
      ADD_FAILURE() << "torn record";
      break;
    }
    out.emplace_back(reinterpret_cast<const char*>(body.data()), body.size());
  }
  std::string again;
  for (const std::string& record : out) again += FramedRecord(record);
  EXPECT_EQ(again, file);
  return out;
}

TEST(TfEvents, Crc32cMatchesRfc3720) {
  EXPECT_EQ(Crc32c("123456789"), 0xe3069283u);
  EXPECT_EQ(Crc32c(std::string(32, '\0')), 0x8a9136aau);
  EXPECT_EQ(Crc32c(std::string(32, '\xff')), 0x62a8ab43u);
}

// Worked by hand from the message layout in tfevents.h; 1.5 is 3ff8..., 0.25f is 3e800000.
TEST(TfEvents, EncodesEventsByteForByte) {
  EXPECT_EQ(Hex(VersionEvent(1.5)),
            "09000000000000f83f"
            "1a0d"
            "627261696e2e4576656e743a32");
  EXPECT_EQ(Hex(SessionStartEvent(1.5, 300)),
            "09000000000000f83f"
            "10ac02"
            "3a020801");
  EXPECT_EQ(Hex(ScalarsEvent(1.5, 2, {{"a", 0.25f}})),
            "09000000000000f83f"
            "1002"
            "2a0a"
            "0a08"
            "0a0161"
            "150000803e");
}

// The first record of every event file: length 24, and the checksums TensorFlow gives it.
TEST(TfEvents, FramesARecord) {
  const std::string framed = FramedRecord(VersionEvent(0));
  EXPECT_EQ(framed.size(), 8 + 4 + 24 + 4u);
  EXPECT_EQ(Hex(framed.substr(0, 12)),
            "1800000000000000"
            "a37f4b22");
}

class TensorBoardSink : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string folder = (fs::temp_directory_path() / "tw_tb_XXXXXX").string();
    ASSERT_NE(::mkdtemp(folder.data()), nullptr);
    info_.run_dir = folder;
  }
  void TearDown() override { fs::remove_all(info_.run_dir); }
  std::unique_ptr<MetricSink> Open() {
    auto kind = Registry<MetricSinkKind>::Get().Make(ConfigSection{}, "tensorboard");
    TW_CHECK_OK(kind);
    auto sink = (*kind)->Open(info_);
    TW_CHECK_OK(sink);
    return std::move(sink).value();
  }
  std::vector<std::string> Files() const {
    std::vector<std::string> out;
    for (const auto& entry : fs::directory_iterator(info_.run_dir + "/tb")) {
      out.push_back(entry.path().string());
    }
    std::sort(out.begin(), out.end());
    return out;
  }
  RunInfo info_;
};

TEST_F(TensorBoardSink, WritesVersionSessionStartAndOneEventAStep) {
  {
    auto sink = Open();
    for (int64_t step : {1, 2, 3}) {
      StepRecord record;
      record.step = step;
      record.loss = 0.25;
      ASSERT_TRUE(sink->Write(record).ok());
    }
  }
  ASSERT_EQ(Files().size(), 1u);
  const std::vector<std::string> records = Records(*ReadTextFile(Files()[0]));
  ASSERT_EQ(records.size(), 5u);
  EXPECT_NE(records[0].find("brain.Event:2"), std::string::npos);
  EXPECT_EQ(Hex(records[1].substr(9)), "10013a020801");
  EXPECT_EQ(Hex(records[4].substr(9, 2)), "1003");
  // Value { tag "train/loss", simple_value 0.25 }
  EXPECT_NE(Hex(records[2]).find("0a110a0a747261696e2f6c6f7373150000803e"), std::string::npos);
  EXPECT_NE(records[2].find("ms/encode_ms"), std::string::npos);
  EXPECT_NE(records[2].find("bytes/wire_bytes"), std::string::npos);
}

TEST_F(TensorBoardSink, AResumedRunOpensAFileThatSortsLaterAndStartsAtItsStep) {
  { Open(); }
  info_.first_step = 299;
  { Open(); }
  const std::vector<std::string> files = Files();
  ASSERT_EQ(files.size(), 2u);
  EXPECT_EQ(Hex(Records(*ReadTextFile(files[1]))[1].substr(9)), "10ac023a020801");
}

TEST_F(TensorBoardSink, ReportsAFolderThatCannotBeMade) {
  info_.run_dir += "/no/such";
  auto kind = Registry<MetricSinkKind>::Get().Make(ConfigSection{}, "tensorboard");
  ASSERT_TRUE(kind.ok());
  const Status status = (*kind)->Open(info_).status();
  EXPECT_EQ(ExitCode(status), 3);
  EXPECT_NE(std::string(status.message()).find("tb: cannot make folder"), std::string::npos);
}

}  // namespace
}  // namespace tw
