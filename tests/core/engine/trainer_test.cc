#include "core/engine/trainer.h"

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "core/api/convert.h"
#include "tests/core/engine/line_task.h"

namespace tw {
namespace {

struct RunSetup {
  int64_t batch = 4;
  int64_t bad_from = std::numeric_limits<int64_t>::max();
  std::string compressor = "none", feedback = "none";
  const Strategy* strategy = nullptr;  // sync
  TrainerOptions options{.steps = 5, .lr = 0.1, .grad_clip = 0};
};

struct Result {
  Status status;
  TrainSummary summary;
  RecordingSink sink;
  at::Tensor weight, first_weight;
  uint64_t hash = 0;
  std::vector<int64_t> checkpoints;
};

// Rank 0's result of n ranks; plain gradient descent.
Result Train(int n, const RunSetup& setup) {
  Result result;
  RunRanks(n, [&](Communicator& comm) {
    at::set_num_threads(1);
    LineTask task(comm.rank(), setup.batch, setup.options.accumulate);
    task.bad_from = setup.bad_from;
    RouteMaker routes;
    PlanOptions plan_options = routes.Options(n);
    PlanRule rule;
    rule.route = routes.Make(setup.compressor, setup.feedback);
    rule.min_numel = 16;
    plan_options.rules = {rule};
    const auto plan = Plan::Build(SpecsOf(task.parameters()), plan_options);
    TW_CHECK_OK(plan);
    Lane lane;
    StateBag state;
    GradientReducer reducer(task.parameters(), &*plan, &comm, &lane, &state, ReducerOptions{});
    const auto optimizer = MakeVariant<Optimizer>("sgdm", {{"momentum", 0.0}});
    const auto schedule = MakeVariant<Schedule>("constant");
    const auto strategy = MakeVariant<Strategy>("sync");
    std::vector<int64_t> saved;
    RecordingSink sink;
    TrainerParts parts{.task = &task,
                       .reducer = &reducer,
                       .optimizer = optimizer.get(),
                       .schedule = schedule.get(),
                       .strategy = setup.strategy ? setup.strategy : strategy.get(),
                       .state = &state,
                       .comm = &comm,
                       .lane = &lane,
                       .sinks = {},
                       .save_checkpoint =
                           [&](int64_t done) {
                             saved.push_back(done);
                             return OkStatus();
                           },
                       .peak_tensor_bytes = [] { return int64_t{77}; }};
    if (comm.rank() == 0) parts.sinks = {&sink};
    const at::Tensor first = task.weight.detach().clone();
    Trainer trainer(parts, setup.options);
    const Status status = trainer.Run(0);
    if (comm.rank() != 0) return;
    result = {status, trainer.summary(),
              sink,   task.weight.detach(),
              first,  ParametersHash(reducer.views()),
              saved};
  });
  return result;
}

TEST(Trainer, TheLossGoesDown) {
  RunSetup setup;
  setup.options.steps = 60;
  setup.options.lr = 1.0;
  const Result result = Train(2, setup);
  ASSERT_TRUE(result.status.ok()) << result.status;
  EXPECT_LT(result.sink.records.back().loss, 0.1 * result.sink.records.front().loss);
}

// What sync does, in turns: every rank is one client. `sent` must add up to what the optimizer
// sees.
class ByTurns : public Strategy {
 public:
  StatusOr<StepResult> Step(StepMachine& machine) const override {
    EXPECT_EQ(machine.lr(), 0.1);
    TurnsCall call;
    call.moves = true;
    call.work = [&](Client& client) -> StatusOr<bool> {
      TW_RETURN_IF_ERROR(client.ComputeGradients(0).status());
      for (size_t p = 0; p < client.parameters().size(); ++p) {
        FillZero(client.parameters()[p].value);  // the working copy, not what ranks share
        AddScaled(client.Slot("before", p), client.parameters()[p].grad, 1.0f);
      }
      return machine.step() != declined_step || client.id() != 0;
    };
    call.sent = [](Client& client, size_t p, OwnDecoder own) {
      return own(1.0f, client.Slot("sent", p));
    };
    TW_ASSIGN_OR_RETURN(const TurnsResult turn, machine.Turns(call));
    if (turn.arrived == 0) {
      return StepResult{turn.loss, Skip::kEverywhere, "a message did not arrive"};
    }
    EXPECT_EQ(turn.arrived, machine.num_clients());
    TW_RETURN_IF_ERROR(machine.Broadcast({}));
    TW_RETURN_IF_ERROR(machine.ApplyUpdate());
    return StepResult{.loss = turn.loss};
  }
  int64_t declined_step = -1;
};

TEST(Trainer, TurnsOfOneClientARankAreSyncBitForBit) {
  const ByTurns by_turns;
  for (const auto& [compressor, feedback] :
       {std::pair{"none", "none"}, {"topk", "ef14"}, {"randk", "ef21"}, {"qsgd", "none"}}) {
    for (const int n : {1, 3}) {
      RunSetup setup;
      setup.compressor = compressor;
      setup.feedback = feedback;
      const Result sync = Train(n, setup);
      setup.strategy = &by_turns;
      const Result turns = Train(n, setup);
      ASSERT_TRUE(turns.status.ok()) << turns.status;
      EXPECT_EQ(turns.hash, sync.hash) << compressor << " " << n;
      EXPECT_EQ(turns.sink.records.back().loss, sync.sink.records.back().loss);
      if (n == 1 && setup.compressor == "none") continue;  // sync alone sends nothing to itself
      EXPECT_EQ(turns.sink.records.back().payload_bytes, sync.sink.records.back().payload_bytes);
    }
  }
}

TEST(Trainer, AMessageThatDoesNotArriveLeavesNoTrace) {
  ByTurns declines;
  declines.declined_step = 4;  // the last
  RunSetup setup;
  setup.compressor = "topk";
  setup.feedback = "ef14";
  setup.strategy = &declines;
  const Result skipped = Train(2, setup);
  ASSERT_TRUE(skipped.status.ok()) << skipped.status;
  EXPECT_EQ(skipped.summary.skipped, 1);
  setup.options.steps = 4;
  EXPECT_EQ(skipped.hash, Train(2, setup).hash);
}

TEST(Trainer, SinksGetOneRecordAStep) {
  RunSetup setup;
  setup.compressor = "topk";
  setup.feedback = "ef14";
  const Result result = Train(2, setup);
  ASSERT_TRUE(result.status.ok()) << result.status;
  ASSERT_EQ(result.sink.records.size(), 5u);
  EXPECT_EQ(result.sink.flushes, 1);
  for (size_t i = 0; i < 5; ++i) {
    const StepRecord& r = result.sink.records[i];
    EXPECT_EQ(r.step, static_cast<int64_t>(i) + 1);
    EXPECT_EQ(r.samples, r.step * 4 * 2);
    EXPECT_EQ(r.tokens, 3 * r.samples);
    EXPECT_DOUBLE_EQ(r.lr, 0.1);
    EXPECT_EQ(r.dense_bytes, 4 * (8 * 12 + 8));
    EXPECT_GT(r.payload_bytes, 0);
    EXPECT_LT(r.payload_bytes, r.dense_bytes);
    EXPECT_GT(r.wire_bytes, 0);
    EXPECT_GT(r.grad_norm, 0);
    EXPECT_GT(r.residual_norm, 0);
    EXPECT_EQ(r.peak_tensor_bytes, 77);
    EXPECT_GE(r.step_ms, r.forward_ms);
    EXPECT_FALSE(r.skipped);
  }
}

TEST(Trainer, RecordsCanBeEveryOtherStep) {
  RunSetup setup;
  setup.options.metrics_every = 2;
  const Result result = Train(1, setup);
  ASSERT_EQ(result.sink.records.size(), 2u);
  EXPECT_EQ(result.sink.records[1].step, 4);
}

TEST(Trainer, TheSummaryIsOverItsSteps) {
  RunSetup setup;
  setup.options.steps = 30;
  const Result result = Train(2, setup);
  const TrainSummary& s = result.summary;
  EXPECT_EQ(s.steps, 30);
  EXPECT_EQ(s.tokens, 30 * 4 * 2 * 3);
  EXPECT_EQ(s.skipped, 0);
  EXPECT_EQ(s.dense_bytes_per_step, 4 * (8 * 12 + 8));
  EXPECT_EQ(s.payload_bytes_per_step, 4 * (8 * 12 + 8));
  double last = 0, wire = 0;
  for (size_t i = 0; i < 30; ++i) {
    wire += static_cast<double>(result.sink.records[i].wire_bytes);
    if (i >= 10) last += result.sink.records[i].loss;
  }
  EXPECT_NEAR(s.final_loss, last / 20, 1e-12);
  EXPECT_DOUBLE_EQ(s.wire_bytes_per_step, wire / 30);
  EXPECT_GT(s.step_ms_median, 0);
  EXPECT_GT(s.wall_s, 0);
}

TEST(Trainer, GivesUpAfterTooManyNonFiniteStepsInARow) {
  RunSetup setup;
  setup.bad_from = 2;
  setup.options.steps = 50;
  setup.options.max_skipped = 3;
  const Result result = Train(2, setup);
  EXPECT_EQ(ExitCode(result.status), 5) << result.status;
  EXPECT_NE(std::string(result.status.message()).find("train.max_skipped = 3"), std::string::npos);
  EXPECT_EQ(result.summary.skipped, 3);
  setup.bad_from = std::numeric_limits<int64_t>::max();
  setup.options.steps = 2;
  EXPECT_EQ(result.hash, Train(2, setup).hash) << "skipped steps changed the parameters";
}

TEST(Trainer, ClippingBoundsTheUpdate) {
  RunSetup setup;
  setup.options.steps = 1;
  setup.options.lr = 1.0;
  setup.options.grad_clip = 0.01;
  const Result clipped = Train(1, setup);
  const double moved = (clipped.weight - clipped.first_weight).norm().item<double>();
  EXPECT_GT(clipped.sink.records[0].grad_norm, 0.1);  // reported as it was
  EXPECT_LE(moved, 0.01 * 1.001);
  EXPECT_GT(moved, 0.005);
  setup.options.grad_clip = 1e6;
  const Result far = Train(1, setup);
  setup.options.grad_clip = 0;
  EXPECT_EQ(far.hash, Train(1, setup).hash);
}

TEST(Trainer, AccumulationEqualsOneLargeBatch) {
  RunSetup large;
  large.batch = 8;
  RunSetup parts;
  parts.batch = 4;
  parts.options.accumulate = 2;
  const Result a = Train(1, large), b = Train(1, parts);
  EXPECT_TRUE(at::allclose(a.weight, b.weight, 1e-5, 1e-6));
  EXPECT_NEAR(a.summary.final_loss, b.summary.final_loss, 1e-5);
  EXPECT_EQ(a.summary.tokens, b.summary.tokens);
  EXPECT_GT((a.weight - a.first_weight).abs().max().item<double>(), 1e-2);
}

TEST(Trainer, TwoRanksEqualOneWithTheWholeBatch) {
  RunSetup whole;
  whole.batch = 8;
  RunSetup half;
  half.batch = 4;
  const Result a = Train(1, whole), b = Train(2, half);
  EXPECT_TRUE(at::allclose(a.weight, b.weight, 1e-5, 1e-6));
  EXPECT_NEAR(a.summary.final_loss, b.summary.final_loss, 1e-5);
}

TEST(Trainer, ChecksReplicas) {
  RunSetup setup;
  setup.options.check_replicas_every = 1;
  EXPECT_TRUE(Train(3, setup).status.ok());
}

TEST(Trainer, CheckpointsComeWhenDueAndAtTheEnd) {
  RunSetup setup;
  setup.options.checkpoint_every = 2;
  EXPECT_EQ(Train(1, setup).checkpoints, (std::vector<int64_t>{2, 4, 5}));
  setup.options.checkpoint_every = 0;
  EXPECT_TRUE(Train(1, setup).checkpoints.empty());
}

class ThrowingTask : public LineTask {
 public:
  ThrowingTask() : LineTask(0, 4, 1) {}
  at::Tensor Loss(uint64_t, int64_t) override {
    return at::matmul(at::zeros({2, 3}), at::zeros({2, 3}));
  }
};

TEST(Trainer, ALibTorchExceptionBecomesAStatus) {
  RunRanks(1, [](Communicator& comm) {
    ThrowingTask task;
    RouteMaker routes;
    PlanOptions options = routes.Options(1);
    PlanRule rule;
    rule.route = routes.Make("none", "none");
    options.rules = {rule};
    const auto plan = Plan::Build(SpecsOf(task.parameters()), options);
    Lane lane;
    StateBag state;
    GradientReducer reducer(task.parameters(), &*plan, &comm, &lane, &state, ReducerOptions{});
    const auto optimizer = MakeVariant<Optimizer>("sgdm");
    const auto schedule = MakeVariant<Schedule>("constant");
    const auto strategy = MakeVariant<Strategy>("sync");
    TrainerParts parts;
    parts.task = &task;
    parts.reducer = &reducer;
    parts.optimizer = optimizer.get();
    parts.schedule = schedule.get();
    parts.strategy = strategy.get();
    parts.state = &state;
    parts.comm = &comm;
    parts.lane = &lane;
    const Status status = Trainer(parts, TrainerOptions{}).Run(0);
    EXPECT_EQ(ExitCode(status), 70);
    EXPECT_EQ(std::string(status.message()).find('\n'), std::string::npos) << status;
    EXPECT_NE(std::string(status.message()).find("LibTorch"), std::string::npos) << status;
  });
}

}  // namespace
}  // namespace tw
