#include "launch/bench_optimizer.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "core/api/optimizer.h"

namespace tw {
namespace {

TEST(BenchOptimizer, HasARowForEveryPair) {
  std::stringstream out;
  const Status status = RunBenchOptimizer({"rows=72", "cols=71"}, true, out);
  ASSERT_TRUE(status.ok()) << status;
  std::set<std::pair<std::string, std::string>> pairs;
  for (std::string line; std::getline(out, line);) {
    const auto row = nlohmann::json::parse(line);
    EXPECT_EQ(row["bench"], "optimizer");
    EXPECT_EQ(row["numel"], 72 * 71);
    EXPECT_GT(row["ms"], 0.0);
    EXPECT_GT(row["copy_ratio"], 0.0);
    const double moved = 12 + 2 * row["state_bytes_per_param"].get<double>();
    EXPECT_NEAR(row["of_bound"], moved / 8 / row["copy_ratio"].get<double>(), 1e-9);
    pairs.emplace(row["name"].get<std::string>(), row["state"].get<std::string>());
    if (row["name"] == "adamw" && row["state"] == "int4") {
      EXPECT_EQ(row["state_bytes"], 2 * (72 * 71 / 2 + 4 * 40));
    }
  }
  EXPECT_EQ(pairs.size(),
            Registry<Optimizer>::Get().names().size() * Registry<StateCodec>::Get().names().size());
}

TEST(BenchOptimizer, RefusesUnknownNamesAndKeys) {
  for (const char* bad : {"name=adamm", "state=int5", "simd=AVX9", "rwos=3"}) {
    std::stringstream out;
    const Status status = RunBenchOptimizer({"rows=8", "cols=8", bad}, true, out);
    EXPECT_EQ(ExitCode(status), 2) << bad << ": " << status;
  }
}

// The peer takes turns: one line to say it is ready, one a turn.
TEST(BenchOptimizer, SaysSoWhenThePeerDoesNotRun) {
  std::stringstream out;
  const Status status = RunBenchOptimizer(
      {"rows=8", "cols=8", "name=adamw", "state=int4", "peer=torch", "python=/bin/false"}, true,
      out);
  EXPECT_EQ(ExitCode(status), 2) << status;
  EXPECT_NE(std::string(status.message()).find("does not run the peer"), std::string::npos);
}

}  // namespace
}  // namespace tw
