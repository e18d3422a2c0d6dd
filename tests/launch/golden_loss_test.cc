// The losses of a few short runs of the program, against tests/golden/lm_losses.json. A change that
// is not meant to change the math keeps them; one that is commits the record this test prints.

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "launch/commands.h"
#include "tests/core/data/temp_folder.h"

namespace tw {
namespace {

using nlohmann::json;

// Plain gradient descent: under Adam, entries whose gradient is rounding noise would take steps as
// large as any, and LibTorch's rounding differs from machine to machine.
std::vector<double> Losses(const std::vector<std::string>& own) {
  const TempFolder folder;
  std::vector<std::string> overrides = {"run.dir=" + folder.Path("run"),
                                        "data.path=synthetic",
                                        "data.context=32",
                                        "model.layers=1",
                                        "model.width=32",
                                        "model.heads=2",
                                        "train.steps=10",
                                        "train.batch_size=4",
                                        "train.threads=1",
                                        "optimizer.name=sgdm",
                                        "optimizer.lr=0.1",
                                        "compressor.min_numel=512",
                                        "comm.backend=thread",
                                        "metrics.sinks=[\"jsonl\"]"};
  overrides.insert(overrides.end(), own.begin(), own.end());
  const Status status = RunTrain("", overrides, false);
  EXPECT_TRUE(status.ok()) << status;
  std::vector<double> losses;
  std::ifstream in(folder.Path("run") + "/metrics.jsonl");
  for (std::string line; std::getline(in, line);) losses.push_back(json::parse(line)["loss"]);
  return losses;
}

TEST(GoldenLosses, ShortRunsRepeatTheRecord) {
  const json golden =
      json::parse(std::ifstream(std::string(TW_SOURCE_DIR) + "/tests/golden/lm_losses.json"));
  json now = golden;
  double worst = 0;
  ASSERT_EQ(golden.size(), 4u);
  for (auto& [name, record] : now.items()) {
    const std::vector<double> losses = Losses(record["overrides"]);
    const std::vector<double> expected = record["losses"];
    record["losses"] = losses;
    ASSERT_EQ(losses.size(), 10u) << name;
    EXPECT_LT(losses.back(), losses.front()) << name;
    EXPECT_EQ(expected.size(), losses.size()) << name;
    for (size_t i = 0; i < std::min(losses.size(), expected.size()); ++i) {
      worst = std::max(worst, std::abs(losses[i] / expected[i] - 1));
      EXPECT_NEAR(losses[i] / expected[i], 1, 1e-5) << name << " step " << i + 1;
    }
  }
  if (HasFailure()) ADD_FAILURE() << "this run's record:\n" << now.dump(1);
  RecordProperty("worst_relative", json(worst).dump());
}

}  // namespace
}  // namespace tw
