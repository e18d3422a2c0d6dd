// Strategies of local steps as whole runs.

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/isfinite.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "tests/core/data/temp_folder.h"
#include "tests/optim/strategy_run.h"

namespace tw {
namespace {

Keys Plain(int64_t local_steps) {
  return {{"local_steps", local_steps}, {"outer_lr", 1.0}, {"outer_momentum", 0.0}};
}

TEST(LocalSteps, RoundsOfOneStepAreSync) {
  RunSetup sync;
  sync.strategy = "sync";
  sync.strategy_keys = {};
  RunSetup diloco, sparse;
  diloco.strategy_keys = Plain(1);
  sparse.strategy = "sparseloco";
  sparse.strategy_keys = {{"local_steps", int64_t{1}}};
  const Result a = Train(sync), b = Train(diloco), c = Train(sparse);
  ASSERT_TRUE(b.status.ok()) << b.status;
  EXPECT_TRUE(at::allclose(a.weights[0], b.weights[0], 1e-5, 1e-6));
  EXPECT_EQ(b.hashes[0], c.hashes[0]);  // the same rule when there is no outer momentum
  EXPECT_NEAR(a.summary.final_loss, b.summary.final_loss, 1e-5);
  EXPECT_EQ(a.sink.records.back().wire_bytes > 0, b.sink.records.back().wire_bytes > 0);
}

TEST(LocalSteps, RanksWithTheSameDataAreOneRank) {
  for (const int ranks : {2, 4}) {
    RunSetup one, many;
    one.ranks = 1;
    many.ranks = ranks;
    many.same_data = true;
    const Result a = Train(one), b = Train(many);
    ASSERT_TRUE(b.status.ok()) << b.status;
    EXPECT_EQ(a.hashes[0], b.hashes[0]) << ranks;
    EXPECT_DOUBLE_EQ(a.summary.final_loss, b.summary.final_loss);
  }
}

TEST(LocalSteps, OneRankWithAPlainOuterStepIsLocalTraining) {
  RunSetup sync, local;
  sync.ranks = local.ranks = 1;
  sync.strategy = "sync";
  sync.strategy_keys = {};
  local.strategy_keys = Plain(5);
  const Result a = Train(sync), b = Train(local);
  EXPECT_TRUE(at::allclose(a.weights[0], b.weights[0], 1e-5, 1e-6));
}

// One round by hand: lr 0.5 of the Nesterov direction D + mu * D, as m starts at zero.
TEST(LocalSteps, TheOuterStepIsNesterovs) {
  RunSetup plain, nesterov;
  plain.ranks = nesterov.ranks = 1;
  plain.options.steps = nesterov.options.steps = 4;
  plain.strategy_keys = Plain(4);
  nesterov.strategy_keys = {
      {"local_steps", int64_t{4}}, {"outer_lr", 0.5}, {"outer_momentum", 0.9}};
  const at::Tensor start = LineTask(0, 4, 1).weight.detach();
  const at::Tensor moved = start - Train(plain).weights[0];
  EXPECT_TRUE(at::allclose(Train(nesterov).weights[0], start - 0.5 * 1.9 * moved, 1e-5, 1e-6));
}

Keys Late(int64_t local_steps, int64_t delay_steps, double lr = 1, double momentum = 0) {
  return {{"local_steps", local_steps},
          {"delay_steps", delay_steps},
          {"outer_lr", lr},
          {"outer_momentum", momentum}};
}

TEST(LateRounds, OfOneRankWithAPlainOuterStepAreLocalTraining) {
  RunSetup sync, late;
  sync.ranks = late.ranks = 1;
  sync.strategy = "sync";
  sync.strategy_keys = {};
  const Result a = Train(sync);
  for (const int64_t delay : {1, 3, 4}) {
    late.strategy_keys = Late(4, delay);
    const Result b = Train(late);
    ASSERT_TRUE(b.status.ok()) << b.status;
    EXPECT_TRUE(at::allclose(a.weights[0], b.weights[0], 1e-5, 1e-6)) << delay;
  }
}

// Two rounds by hand: the second, of steps 5 and 6, is the last one and not late.
TEST(LateRounds, TheOuterStepComesLateAndTheStepsInBetweenCountOnce) {
  RunSetup late, plain;
  late.ranks = plain.ranks = 1;
  plain.strategy = "sync";
  plain.strategy_keys = {};
  const at::Tensor x0 = LineTask(0, 4, 1).weight.detach();
  plain.options.steps = 4;
  const at::Tensor x4 = Train(plain).weights[0];
  late.options.steps = plain.options.steps = 6;
  const at::Tensor x6 = Train(plain).weights[0];
  const at::Tensor d1 = x0 - x4, d2 = x4 - x6, m2 = 0.9 * d1 + d2;
  const at::Tensor expected = x0 - 0.5 * 1.9 * d1 - 0.5 * (d2 + 0.9 * m2);
  for (const int64_t delay : {2, 3}) {  // due at the last step, and after it
    late.strategy_keys = Late(4, delay, 0.5, 0.9);
    EXPECT_TRUE(at::allclose(Train(late).weights[0], expected, 1e-5, 1e-6)) << delay;
  }
  late.strategy_keys = Late(4, 0, 0.5, 0.9);
  EXPECT_FALSE(at::allclose(Train(late).weights[0], expected, 1e-5, 1e-6));
}

TEST(LateRounds, RanksWithTheSameDataAreOneRank) {
  for (const int64_t delay : {1, 4}) {
    RunSetup one, many;
    one.strategy_keys = many.strategy_keys = Late(4, delay, 0.7, 0.5);
    one.ranks = 1;
    many.ranks = 4;
    many.same_data = true;
    const Result a = Train(one), b = Train(many);
    ASSERT_TRUE(b.status.ok()) << b.status;
    EXPECT_EQ(a.hashes[0], b.hashes[0]) << delay;
  }
}

TEST(LateRounds, BytesAndRecordsComeWithTheStepThatTakesThem) {
  RunSetup setup;
  setup.options.steps = 18;
  setup.strategy_keys = Late(4, 3);
  const Result result = Train(setup);
  ASSERT_TRUE(result.status.ok()) << result.status;
  for (const StepRecord& r : result.sink.records) {
    const bool takes = r.step == 7 || r.step == 11 || r.step == 15 || r.step == 18;
    EXPECT_EQ(r.wire_bytes > 0, takes) << r.step;
  }
}

TEST(LateRounds, ThatAreNotFiniteAreThrownAwayOnAllRanks) {
  for (const int rank : {0, 1}) {
    RunSetup bad;
    bad.compressor = "topk";
    bad.feedback = "ef14";
    bad.strategy_keys = Late(4, 2);
    bad.spoil_rank = rank;
    bad.spoil_at = 5;  // in the second round, after the first was sent; sent in step 8
    bad.options.steps = 10;
    const Result result = Train(bad);
    ASSERT_TRUE(result.status.ok()) << result.status;
    EXPECT_TRUE(at::isfinite(result.weights[0]).all().item<bool>());
    EXPECT_TRUE(result.sink.records[9].skipped);
    bad.options.steps = 24;
    const Result on = Train(bad);
    EXPECT_NE(on.hashes[0], result.hashes[0]) << "the run goes on";
    EXPECT_FALSE(on.sink.records[23].skipped);
  }
}

TEST(LateRounds, RefuseADelayOfMoreThanARound) {
  ConfigSection section;
  section.name = "strategy";
  section.Set("local_steps", int64_t{4});
  section.Set("delay_steps", int64_t{5});
  EXPECT_EQ(ExitCode(Registry<Strategy>::Get().Find("diloco")->make(section).status()), 2);
}

TEST(LocalSteps, NothingIsSentBetweenOuterSteps) {
  RunSetup setup;
  setup.options.steps = 10;  // 4 + 4 + 2
  setup.options.check_replicas_every = 3;
  const Result result = Train(setup);
  ASSERT_TRUE(result.status.ok()) << result.status;
  ASSERT_EQ(result.sink.records.size(), 10u);
  for (const StepRecord& r : result.sink.records) {
    const bool outer = r.step == 4 || r.step == 8 || r.step == 10;
    EXPECT_EQ(r.wire_bytes > 0, outer) << r.step;
    EXPECT_EQ(r.payload_bytes > 0, outer) << r.step;
    EXPECT_GT(r.grad_norm, 0) << r.step;
  }
}

TEST(LocalSteps, EveryCompressorAndFeedbackTakesPart) {
  for (const std::string& compressor : Registry<Compressor>::Get().names()) {
    for (const char* feedback : {"none", "ef14", "ef21", "econtrol"}) {
      if (std::string(feedback) != "none" && std::string(feedback) != "ef14" &&
          compressor != "topk") {
        continue;
      }
      RunSetup setup;
      setup.compressor = compressor;
      setup.feedback = feedback;
      setup.options.steps = 80;
      setup.strategy_keys = Plain(4);
      // A hundred elements: one of them, which is the default of some, would take longer; of
      // unbiased projections half the directions and more contract, which is what ef14 asks for.
      for (const FieldInfo& f : Registry<Compressor>::Get().Find(compressor)->fields) {
        if (f.key == "ratio") setup.compressor_keys = {{"ratio", 0.25}};
        if (f.key == "rank") setup.compressor_keys = {{"rank", int64_t{8}}};
      }
      const Result result = Train(setup);
      EXPECT_TRUE(result.status.ok()) << compressor << " " << feedback << " " << result.status;
      double first = 0, last = 0;
      for (size_t i = 0; i < 8; ++i) {
        first += result.sink.records[i].loss;
        last += result.sink.records[result.sink.records.size() - 1 - i].loss;
      }
      EXPECT_LT(last, first) << compressor << " " << feedback;
    }
  }
}

// Train compares the ranks' hashes at the end, check_replicas_every after every round.
TEST(LocalSteps, ReplicasAreEqualAtAnyNumberOfRanks) {
  for (const int ranks : {1, 2, 3, 4}) {
    for (const char* compressor : {"none", "topk", "chunked_topk", "blockquant", "powersgd"}) {
      RunSetup setup;
      setup.ranks = ranks;
      setup.compressor = compressor;
      setup.feedback = "ef14";
      setup.optimizer = "adamw";
      setup.optimizer_keys = {};
      setup.options.accumulate = 2;
      setup.options.grad_clip = 0.5;
      const Result result = Train(setup);
      EXPECT_TRUE(result.status.ok()) << compressor << " " << ranks << ": " << result.status;
    }
  }
}

TEST(LocalSteps, FinalLossIsTheMeanOverRanksOfLocalLosses) {
  RunSetup both, first;
  both.options.steps = first.options.steps = 24;
  both.strategy_keys = first.strategy_keys = {{"local_steps", int64_t{24}}};
  first.ranks = 1;
  RunSetup second = first;  // rank 1's data alone: the same as two ranks of which one is not read
  const Result a = Train(both), b = Train(first);
  // Rank 0's local steps are those of a run of its own.
  for (size_t i = 0; i + 1 < 24; ++i) {
    EXPECT_DOUBLE_EQ(a.sink.records[i].loss, b.sink.records[i].loss) << i;
  }
  EXPECT_NE(a.sink.records[23].loss, b.sink.records[23].loss);  // the mean of both ranks
  EXPECT_NE(a.summary.final_loss, b.summary.final_loss);
  double own = 0;
  for (size_t i = 4; i < 24; ++i) own += b.sink.records[i].loss / 20;
  EXPECT_NEAR(b.summary.final_loss, own, 1e-12);
}

TEST(LocalSteps, ANonFiniteGradientSkipsOneRanksLocalStepOnly) {
  RunSetup good, bad;
  bad.bad_rank = 1;
  bad.bad_at = 5;
  const Result a = Train(good), b = Train(bad);
  ASSERT_TRUE(b.status.ok()) << b.status;
  EXPECT_NE(a.hashes[0], b.hashes[0]);
  EXPECT_EQ(b.summary.skipped, 0);  // rank 0 skipped nothing
  EXPECT_TRUE(at::isfinite(b.weights[0]).all().item<bool>());
  EXPECT_TRUE(std::isfinite(b.summary.final_loss));
  bad.bad_rank = 0;
  const Result c = Train(bad);
  EXPECT_EQ(c.summary.skipped, 1);
  EXPECT_TRUE(c.sink.records[5].skipped);
  EXPECT_FALSE(c.sink.records[7].skipped);
}

TEST(LocalSteps, ARoundWithNonFiniteParametersLeavesNoTrace) {
  for (const int rank : {0, 1}) {
    RunSetup good, bad;
    good.options.steps = 8;
    good.compressor = bad.compressor = "topk";
    good.feedback = bad.feedback = "ef14";
    bad.spoil_rank = rank;
    bad.spoil_at = 9;  // in the third round, which is thrown away
    const Result a = Train(good), b = Train(bad);
    ASSERT_TRUE(b.status.ok()) << b.status;
    EXPECT_EQ(a.hashes[0], b.hashes[0]);
    EXPECT_EQ(a.state.at("feedback/weight/e"), b.state.at("feedback/weight/e"));
    EXPECT_EQ(a.state.at("strategy/weight/m"), b.state.at("strategy/weight/m"));
    EXPECT_TRUE(b.sink.records[11].skipped);
    bad.options.steps = 16;
    const Result c = Train(bad);
    EXPECT_NE(c.hashes[0], b.hashes[0]) << "the run goes on";
    EXPECT_FALSE(c.sink.records[15].skipped);
  }
}

TEST(LocalSteps, MomentsOfASpoiledRankStartAnew) {
  RunSetup setup;
  setup.optimizer_keys = {{"momentum", 0.9}};
  setup.options.lr = 0.02;
  for (const int rank : {0, 1}) {
    setup.spoil_rank = rank;
    setup.spoil_at = 9;
    Result result = Train(setup);
    ASSERT_TRUE(result.status.ok()) << result.status;
    const std::vector<uint8_t>& m = result.state.at("optimizer/weight/m");  // rank 0's
    EXPECT_EQ(std::count(m.begin(), m.end(), 0) == static_cast<ptrdiff_t>(m.size()), rank == 0);
  }
}

TEST(LocalSteps, GivesUpWhenRoundAfterRoundIsThrownAway) {
  RunSetup setup;
  setup.options.lr = 3e38;  // every local step is made, and ends in infinity
  setup.optimizer_keys = {{"momentum", 0.0}, {"weight_decay", 1e3}};
  setup.options.steps = 100;
  setup.strategy_keys = {{"local_steps", int64_t{1}}};
  setup.options.max_skipped = 5;
  const Result result = Train(setup);
  EXPECT_EQ(ExitCode(result.status), 5) << result.status;
  EXPECT_EQ(result.sink.records.size(), 4u);
  EXPECT_EQ(result.summary.skipped, 5);
}

// Adam, momentum outside, error memory, and a cut inside of a round; for marina between two dense
// rounds.
TEST(LocalSteps, AResumedRoundIsTheUnbrokenOneBitForBit) {
  const std::pair<const char*, Keys> strategies[] = {{"diloco", Keys{{"local_steps", int64_t{4}}}},
                                                     {"diloco", Late(4, 1, 0.7, 0.5)},
                                                     {"diloco", Late(4, 3, 0.7, 0.5)},
                                                     {"diloco", Late(4, 4, 0.7, 0.5)},
                                                     {"sparseloco", {{"local_steps", int64_t{4}}}},
                                                     {"marina", {{"local_steps", int64_t{4}}}}};
  for (const auto& [strategy, keys] : strategies) {
    for (const int ranks : {1, 2}) {
      TempFolder dir;
      RunSetup whole;
      whole.ranks = ranks;
      whole.strategy = strategy;
      whole.strategy_keys = keys;
      whole.optimizer = "adamw";
      whole.optimizer_keys = {};
      whole.compressor = "topk";
      whole.feedback = "ef14";
      whole.feedback_keys = {{"decay", 0.9}};
      whole.compressor_keys = {{"ratio", 0.1}};
      whole.options.steps = 15;
      const Result a = Train(whole);
      ASSERT_TRUE(a.status.ok()) << a.status;
      RunSetup cut = whole;
      cut.run_dir = dir.Path("run");
      cut.checkpoint_every = 1;
      cut.stop_after = 6;  // two steps into the second round
      EXPECT_FALSE(Train(cut).status.ok());
      cut.stop_after = -1;
      const Result b = Train(cut);
      ASSERT_TRUE(b.status.ok()) << b.status;
      EXPECT_EQ(b.resumed_after, 6);
      EXPECT_EQ(a.hashes, b.hashes);
      EXPECT_EQ(a.state, b.state);
      EXPECT_DOUBLE_EQ(a.summary.final_loss, b.summary.final_loss);
    }
  }
}

TEST(LocalSteps, ACheckpointInARoundHoldsTheAnchor) {
  TempFolder dir;
  RunSetup setup;
  setup.run_dir = dir.Path("run");
  setup.checkpoint_every = 1;
  setup.stop_after = 6;
  EXPECT_FALSE(Train(setup).status.ok());
  RunSetup round;
  round.options.steps = 4;
  const Result anchor = Train(round);
  const std::string folder = dir.Path("run/checkpoints/") + CheckpointName(6);
  LineTask task(0, 4, 1);
  CheckpointSpec spec;
  StateBag state;
  spec.model = task.parameters();
  spec.state = &state;
  RunRanks(1, [&](Communicator& comm) { TW_CHECK_OK(LoadCheckpoint(folder, spec, comm)); });
  EXPECT_TRUE(at::equal(task.weight.detach(), anchor.weights[0]));
}

// Two ranks two steps into a round, gone on by one: the mean of what they moved is kept.
TEST(LocalSteps, AnotherNumberOfRanksKeepsTheMeanOfWhatWasMoved) {
  TempFolder dir;
  RunSetup setup;
  setup.strategy_keys = Plain(8);
  setup.run_dir = dir.Path("run");
  setup.checkpoint_every = 1;
  setup.stop_after = 6;
  EXPECT_FALSE(Train(setup).status.ok());
  setup.checkpoint_every = 0;
  setup.stop_after = -1;
  setup.ranks = 1;
  setup.options.lr = 0;  // nothing moves any more
  setup.options.steps = 8;
  const Result one = Train(setup);
  ASSERT_TRUE(one.status.ok()) << one.status;
  RunSetup unbroken;
  unbroken.strategy_keys = Plain(6);
  unbroken.options.steps = 6;
  EXPECT_TRUE(at::allclose(one.weights[0], Train(unbroken).weights[0], 1e-5, 1e-6));
}

TEST(LocalSteps, SyncCannotGoOnWithMomentsThatDiffer) {
  TempFolder dir;
  RunSetup setup;
  setup.optimizer_keys = {{"momentum", 0.9}};
  setup.run_dir = dir.Path("run");
  setup.checkpoint_every = 1;
  setup.stop_after = 6;
  EXPECT_FALSE(Train(setup).status.ok());
  setup.strategy = "sync";
  setup.strategy_keys = {};
  const Result result = Train(setup);
  EXPECT_EQ(ExitCode(result.status), 3) << result.status;
  EXPECT_NE(result.status.message().find("each rank's own"), absl::string_view::npos);
}

TEST(LocalSteps, RefusesZeroLocalSteps) {
  for (const char* name : {"diloco", "sparseloco"}) {
    ConfigSection section;
    section.name = "strategy";
    section.Set("local_steps", int64_t{0});
    EXPECT_EQ(ExitCode(Registry<Strategy>::Get().Find(name)->make(section).status()), 2);
  }
}

// The federated strategies with one client a rank; what they do to many is tested in the lab.
RunSetup Rounds(const std::string& strategy, int64_t local_steps, int ranks) {
  RunSetup setup;
  setup.strategy = strategy;
  setup.strategy_keys = {{"local_steps", local_steps}};
  setup.ranks = ranks;
  return setup;
}

TEST(ClientRounds, TrainAModelWithOneClientARank) {
  for (const char* name : {"fedavg", "scaffold", "scallion", "scafcom"}) {
    for (const int ranks : {1, 2, 3}) {
      RunSetup setup = Rounds(name, 3, ranks);
      setup.options.steps = 40;
      setup.compressor = "topk";
      setup.compressor_keys = {{"ratio", 0.25}};
      const Result result = Train(setup);
      ASSERT_TRUE(result.status.ok()) << name << " " << result.status;
      EXPECT_LT(result.sink.records.back().loss, 0.5 * result.sink.records[0].loss) << name;
      if (ranks > 1 || std::string(name) == "fedavg") continue;
      EXPECT_EQ(result.state.at("strategy/weight/c"), result.state.at("strategy/weight/c_i"));
    }
  }
}

TEST(ClientRounds, OneLocalStepOfFedAvgAndMarinasDenseRoundsAreSyncInTrain) {
  for (const int ranks : {1, 2, 3}) {
    RunSetup sync = Rounds("fedavg", 1, ranks);
    sync.strategy = "sync";
    sync.strategy_keys = {};
    EXPECT_EQ(Train(Rounds("fedavg", 1, ranks)).hashes, Train(sync).hashes) << ranks;
    RunSetup marina = sync;
    marina.strategy = "marina";
    marina.strategy_keys = {{"dense_probability", 1.0}};
    EXPECT_EQ(Train(marina).hashes, Train(sync).hashes) << ranks;
  }
}

TEST(ClientRounds, ARoundThatIsNotFiniteLeavesNoTraceOnAnyRank) {
  for (const int rank : {0, 1}) {
    RunSetup good = Rounds("scafcom", 3, 2), bad = good;
    good.options.steps = 5;
    bad.options.steps = 6;
    bad.bad_rank = rank;
    bad.bad_at = 5;
    const Result a = Train(good), b = Train(bad);
    ASSERT_TRUE(b.status.ok()) << b.status;
    EXPECT_EQ(a.hashes, b.hashes);
    EXPECT_EQ(a.state, b.state);
    EXPECT_TRUE(b.sink.records[5].skipped);
  }
}

TEST(ClientRounds, SamplingOfRanksIsRefusedInTrain) {
  RunSetup setup = Rounds("scaffold", 2, 2);
  setup.strategy_keys.push_back({"participation", 0.5});
  EXPECT_EQ(ExitCode(Train(setup).status), 2);
}

}  // namespace
}  // namespace tw
