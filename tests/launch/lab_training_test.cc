// lab.Train: runs of `train` on ranks that are threads.

#include "launch/lab/lab_training.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <mutex>
#include <nlohmann/json.hpp>

#include "launch/commands.h"
#include "tests/comm/thread_group.h"
#include "tests/core/data/temp_folder.h"

namespace tw {
namespace {

using ::testing::HasSubstr;

using Settings = std::vector<std::string>;

// 784-8-10: 6370 parameters, 6280 of them in two matrices.
const Settings kSmall = {"task.name=image",    "data.path=synthetic", "model.name=mlp",
                         "model.layers=1",     "model.width=8",       "train.steps=12",
                         "train.batch_size=8", "optimizer.lr=0.01",   "compressor.min_numel=0"};
constexpr int64_t kParameters = 784 * 8 + 8 + 8 * 10 + 10;

LabTraining Training(int ranks, const Settings& own, int64_t points = 4) {
  LabTraining training{.label = "run", .seed = 3, .ranks = ranks};
  training.settings = kSmall;
  training.settings.insert(training.settings.end(), own.begin(), own.end());
  training.points = points;
  return training;
}

Trained Train(int ranks, const Settings& own, int64_t points = 4) {
  auto trained = TrainInThreads(Training(ranks, own, points));
  TW_CHECK_OK(trained);
  return std::move(trained).value();
}

void ExpectSame(const Trained& a, const Trained& b) {
  EXPECT_EQ(a.curve.metrics, b.curve.metrics);
  EXPECT_EQ(a.num_parameters, b.num_parameters);
  EXPECT_EQ(a.curve.diverged, b.curve.diverged);
  ASSERT_EQ(a.curve.points.size(), b.curve.points.size());
  for (size_t i = 0; i < a.curve.points.size(); ++i) {
    const CurvePoint &p = a.curve.points[i], &q = b.curve.points[i];
    EXPECT_EQ(p.round, q.round);
    EXPECT_EQ(p.uplink_bytes, q.uplink_bytes);
    EXPECT_EQ(p.total_bytes, q.total_bytes);
    EXPECT_EQ(p.y, q.y);
  }
  ASSERT_EQ(a.plans.size(), b.plans.size());
  for (size_t i = 0; i < a.plans.size(); ++i) {
    EXPECT_EQ(a.plans[i].bytes, b.plans[i].bytes);
    EXPECT_EQ(a.plans[i].error, b.plans[i].error);
  }
}

TEST(LabTraining, IsWhatTrainDoes) {
  const TempFolder folder;
  Settings settings = kSmall;
  settings.insert(settings.end(), {"train.seed=3", "train.threads=1", "comm.backend=thread",
                                   "metrics.sinks=[\"jsonl\"]", "run.dir=" + folder.Path("run")});
  const Status status = RunTrain("", settings, false);
  ASSERT_TRUE(status.ok()) << status;
  const Trained here = Train(1, {}, 12);
  ASSERT_EQ(here.curve.points.size(), 12u);
  std::ifstream in(folder.Path("run") + "/metrics.jsonl");
  size_t step = 0;
  for (std::string line; std::getline(in, line); ++step) {
    ASSERT_LT(step, 12u);
    EXPECT_EQ(nlohmann::json::parse(line)["loss"].get<double>(), here.curve.points[step].y[0]);
  }
  EXPECT_EQ(step, 12u);
  std::ifstream summary(folder.Path("run") + "/summary.json");
  EXPECT_NEAR(nlohmann::json::parse(summary)["val_loss"].get<double>(), here.curve.last(1), 1e-9);
  EXPECT_EQ(here.num_parameters, kParameters);
}

TEST(LabTraining, RepeatsBitForBitAndLearns) {
  for (const Settings& own :
       {Settings{},
        {"compressor.name=topk", "compressor.ratio=0.1", "feedback.name=ef14"},
        {"strategy.name=diloco", "strategy.local_steps=4"}}) {
    const Trained first = Train(3, own), second = Train(3, own);
    ExpectSame(first, second);
    EXPECT_EQ(first.curve.metrics, (std::vector<std::string>{"loss", "eval_loss", "eval_error"}));
    EXPECT_LT(first.curve.points.back().y[0], first.curve.points.front().y[0]);
    EXPECT_LT(first.curve.last(1), std::log(10.0));
    EXPECT_EQ(first.curve.points.back().round, 12);
  }
}

TEST(LabTraining, CountsTheBytesOfAllRanks) {
  const Trained dense = Train(2, {});
  ASSERT_EQ(dense.curve.points.size(), 4u);
  for (const CurvePoint& p : dense.curve.points) {
    EXPECT_EQ(p.uplink_bytes, p.round * 2 * 4 * kParameters);
    // On 2 ranks a sum hands on as many bytes as it has; the rest are control numbers.
    EXPECT_GE(p.total_bytes, p.uplink_bytes);
    EXPECT_LT(p.total_bytes, p.uplink_bytes + p.round * 2 * 200);
  }
  // A codec of a fixed size on every matrix and vector: 16 bits a number.
  EXPECT_EQ(Train(2, {"compressor.name=bf16"}).curve.points.back().uplink_bytes,
            12 * 2 * 2 * kParameters);
  // Every fourth step.
  EXPECT_EQ(
      Train(2, {"strategy.name=diloco", "strategy.local_steps=4"}).curve.points.back().uplink_bytes,
      3 * 2 * 4 * kParameters);
}

TEST(LabTraining, TellsThePlansOfAPlanner) {
  const Trained run =
      Train(2, {"compressor.name=powersgd", "compressor.rank=2", "feedback.name=ef14",
                "planner.name=lgreco", "planner.every=8", "planner.window=2", "train.steps=26"});
  ASSERT_GE(run.plans.size(), 2u);
  for (const TrainedPlan& plan : run.plans) {
    EXPECT_GT(plan.error, 0);
    EXPECT_LE(plan.bytes, plan.uniform_bytes);
    EXPECT_LE(plan.error, plan.uniform_error * (1 + 1e-9));
  }
  EXPECT_TRUE(Train(2, {}).plans.empty());
}

TEST(LabTraining, ARunThatDivergesIsMarked) {
  const Trained run = Train(
      2, {"optimizer.name=sgdm", "optimizer.lr=1e30", "train.grad_clip=0", "train.max_skipped=3"});
  EXPECT_TRUE(run.curve.diverged);
  EXPECT_TRUE(std::isinf(run.curve.last()));
  EXPECT_TRUE(std::isinf(run.curve.tail(0.5)));
}

TEST(LabTraining, RefusesWhatDoesNothingHere) {
  const auto message = [](const Settings& own) {
    const auto trained = TrainInThreads(Training(2, own));
    EXPECT_EQ(FaultOf(trained.status()), Fault::kConfig);
    return std::string(trained.status().message());
  };
  EXPECT_THAT(message({"compressor.ratio=0.1"}), HasSubstr("run: compressor.ratio"));
  EXPECT_THAT(message({"comm.group_size=2"}), HasSubstr("without groups"));
  EXPECT_THAT(message({"model.name=mpl"}), HasSubstr("mlp"));
}

TEST(LabTraining, AllRanksOfTheLabGetTheSameNumbers) {
  const Trained alone = Train(2, {});
  std::mutex mutex;
  std::vector<Trained> got;
  RunRanks(3, [&](Communicator& comm) {
    Lane lane;
    LabContext lab({}, &comm, &lane);
    auto trained = lab.Train(Training(2, {}));
    TW_CHECK_OK(trained);
    EXPECT_EQ(lab.curves().size(), 1u);
    EXPECT_EQ(lab.curves()[0].label, "run");
    const std::lock_guard lock(mutex);
    got.push_back(std::move(trained).value());
  });
  ASSERT_EQ(got.size(), 3u);
  for (const Trained& trained : got) ExpectSame(trained, alone);
}

}  // namespace
}  // namespace tw
