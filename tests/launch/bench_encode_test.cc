#include "launch/bench_encode.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "core/api/compressor.h"

namespace tw {
namespace {

const std::vector<std::string> kSmall = {"rows=16", "cols=16"};

TEST(BenchEncode, HasARowForEveryCompressor) {
  std::stringstream out;
  const Status status = RunBenchEncode(kSmall, true, out);
  ASSERT_TRUE(status.ok()) << status;
  std::set<std::string> names;
  for (std::string line; std::getline(out, line);) {
    const auto row = nlohmann::json::parse(line);
    EXPECT_EQ(row["bench"], "encode");
    EXPECT_EQ(row["numel"], 256);
    EXPECT_GT(row["ms"], 0.0);
    EXPECT_GT(row["copy_ratio"], 0.0);
    EXPECT_GT(row["decode_ratio"], 0.0);
    names.insert(row["name"]);
  }
  const auto expected = Registry<Compressor>::Get().names();
  EXPECT_EQ(names, std::set<std::string>(expected.begin(), expected.end()));
}

TEST(BenchEncode, HonoursTheCompressorsKeys) {
  std::stringstream out;
  auto overrides = kSmall;
  overrides.insert(overrides.end(), {"name=topk", "ratio=0.5"});
  ASSERT_TRUE(RunBenchEncode(overrides, true, out).ok());
  EXPECT_EQ(nlohmann::json::parse(out.str())["wire_bytes"], 4 + 128 + 512);
}

// The part of the bound follows from the other numbers of the row: 12 bytes an element where a
// gradient is pending, 8 where none is, and the body, at a copy's 8 bytes an element.
TEST(BenchEncode, TellsThePartOfTheBound) {
  for (const auto& [feedback, bytes] : {std::pair{"ef14", 12.0}, std::pair{"none", 8.0}}) {
    std::stringstream out;
    auto overrides = kSmall;
    overrides.insert(overrides.end(), {"name=sign", std::string("feedback=") + feedback});
    ASSERT_TRUE(RunBenchEncode(overrides, true, out).ok());
    const auto row = nlohmann::json::parse(out.str());
    EXPECT_EQ(row["feedback"], feedback);
    const double wire = row["wire_bytes"], ratio = row["copy_ratio"];
    EXPECT_NEAR(row["of_bound"], (bytes * 256 + wire) / (8 * 256) / ratio, 1e-9) << feedback;
    EXPECT_FALSE(row.contains("device"));
  }
}

TEST(BenchEncode, TakesANumberOfElementsForTheMatrix) {
  for (const int64_t numel : {1, 7, 1200}) {
    std::stringstream out;
    ASSERT_TRUE(RunBenchEncode({"name=sign", "numel=" + std::to_string(numel)}, true, out).ok());
    EXPECT_EQ(nlohmann::json::parse(out.str())["numel"], numel);
  }
}

TEST(BenchEncode, RefusesUnknownNamesAndKeys) {
  std::stringstream out;
  for (const char* bad :
       {"name=topp", "ratoi=0.5", "simd=AVX9", "numel=256", "device=gpu", "feedback=ef21"}) {
    auto overrides = kSmall;
    overrides.push_back(bad);
    const Status status = RunBenchEncode(overrides, true, out);
    EXPECT_EQ(ExitCode(status), 2) << bad << ": " << status;
  }
}

}  // namespace
}  // namespace tw
