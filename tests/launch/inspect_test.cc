#include "launch/inspect.h"

#include <ATen/ops/full.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "comm/thread_communicator.h"
#include "core/engine/checkpoint.h"

namespace tw {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

class Inspect : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string folder = (fs::temp_directory_path() / "tw_inspect_XXXXXX").string();
    ASSERT_NE(::mkdtemp(folder.data()), nullptr);
    run_ = folder;
    StateBag state;
    state.Slot("optim/w/m", {2, 2}, DType::kF32, Reshard::kReplicated);
    state.Slot("optim/w/v", {2, 2}, DType::kF32, Reshard::kReplicated);
    state.Slot("feedback/w/e", {2, 2}, DType::kF32, Reshard::kKeepMean);
    CheckpointSpec spec;
    spec.model = {{"w", at::full({2, 2}, 1.5)}};
    spec.state = &state;
    spec.step = 40;
    spec.simd = "AVX2";
    spec.config_hash = "00000000c0ffee00";
    const auto saved = SaveCheckpoint(run_, spec, *MakeThreadGroup(1, 30)[0], 3);
    TW_CHECK_OK(saved);
    checkpoint_ = *saved;
    std::ofstream(run_ + "/config.toml") << "name = \"quick\"\n";
    std::ofstream(run_ + "/metrics.jsonl")
        << "{\"step\":39,\"loss\":3}\n{\"step\":40,\"loss\":2.5}\n";
  }
  void TearDown() override { fs::remove_all(run_); }
  std::string Text(const std::string& path) {
    std::ostringstream out;
    const Status status = RunInspect(path, false, out);
    EXPECT_TRUE(status.ok()) << status;
    return out.str();
  }
  nlohmann::json Object(const std::string& path) {
    std::ostringstream out;
    const Status status = RunInspect(path, true, out);
    EXPECT_TRUE(status.ok()) << status;
    EXPECT_EQ(out.str().find('\n'), out.str().size() - 1);  // one object, one line
    return nlohmann::json::parse(out.str());
  }
  std::string run_, checkpoint_;
};

TEST_F(Inspect, ShowsTheTensorsOfASafetensorsFile) {
  EXPECT_THAT(Text(checkpoint_ + "/model.safetensors"), HasSubstr("w     Float  [2, 2]  3"));
  const auto json = Object(checkpoint_ + "/model.safetensors");
  EXPECT_EQ(json["kind"], "safetensors");
  EXPECT_EQ(json["tensors"][0]["norm"], 3.0);
  EXPECT_EQ(json["bytes"], 16);
}

TEST_F(Inspect, ShowsACheckpointWithItsStateByOwner) {
  const std::string text = Text(checkpoint_);
  EXPECT_THAT(text, HasSubstr("step-00000040: whole"));
  EXPECT_THAT(text, HasSubstr("rank-00000.safetensors"));
  const auto json = Object(checkpoint_);
  EXPECT_EQ(json["step"], 40);
  ASSERT_EQ(json["state"].size(), 2u);
  EXPECT_EQ(json["state"][0]["owner"], "optim");
  EXPECT_EQ(json["state"][0]["slots"], 2);
  EXPECT_EQ(json["state"][0]["bytes"], 32);
  EXPECT_EQ(json["state"][1]["owner"], "feedback");
}

TEST_F(Inspect, ShowsARunThatHasNotEnded) {
  const std::string text = Text(run_);
  EXPECT_THAT(text, HasSubstr("none: the run has not ended, or was killed"));
  EXPECT_THAT(text, HasSubstr("name = \"quick\""));
  const auto json = Object(run_);
  EXPECT_EQ(json["last_metrics"]["loss"], 2.5);
  EXPECT_EQ(json["checkpoints"][0]["status"], "whole");
}

TEST_F(Inspect, ShowsWhatIsDamaged) {
  const std::string weights = checkpoint_ + "/model.safetensors";
  fs::resize_file(weights, fs::file_size(weights) - 1);
  EXPECT_THAT(Text(checkpoint_), HasSubstr(weights + ": damaged: "));
  EXPECT_THAT(Text(run_), HasSubstr(weights + ": damaged: "));
}

TEST_F(Inspect, RefusesAnythingElse) {
  std::ostringstream out;
  const Status absent = RunInspect(run_ + "/none", false, out);
  EXPECT_EQ(ExitCode(absent), 3);
  EXPECT_THAT(std::string(absent.message()), HasSubstr("is not there; wanted a run folder"));
  fs::create_directory(run_ + "/empty");
  EXPECT_THAT(std::string(RunInspect(run_ + "/empty", false, out).message()),
              HasSubstr("is none of these: a run folder"));
  EXPECT_EQ(ExitCode(RunInspect(run_ + "/config.toml", false, out)), 3);
}

}  // namespace
}  // namespace tw
