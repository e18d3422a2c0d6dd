// extragradient, ogda, masha1 and masha2 in `train`, where every rank is a client.

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>

#include "tests/core/data/temp_folder.h"
#include "tests/optim/strategy_run.h"

namespace tw {
namespace {

RunSetup Steps(const std::string& strategy, int ranks, const Keys& keys = {}) {
  RunSetup setup;
  setup.strategy = strategy;
  setup.strategy_keys = keys;
  setup.ranks = ranks;
  setup.options.lr = 0.05;
  return setup;
}

void ExpectNear(const Result& a, const Result& b, double tolerance) {
  ASSERT_TRUE(a.status.ok()) << a.status;
  ASSERT_TRUE(b.status.ok()) << b.status;
  for (size_t r = 0; r < a.weights.size(); ++r) {
    EXPECT_LT((a.weights[r] - b.weights[r]).abs().max().item<double>(), tolerance);
  }
}

TEST(ViSteps, TrainAModelWithOneClientARank) {
  for (const char* name : {"extragradient", "ogda", "masha1", "masha2"}) {
    for (const int ranks : {1, 2, 3}) {
      RunSetup setup = Steps(name, ranks);
      setup.options.steps = 300;
      setup.options.lr = 0.1;
      setup.compressor = name == std::string("masha1") ? "qsgd" : "topk";
      if (setup.compressor == "topk") {
        setup.compressor_keys = {{"ratio", 0.25}};
        setup.feedback = "ef14";
      }
      const Result result = Train(setup);
      ASSERT_TRUE(result.status.ok()) << name << " " << result.status;
      EXPECT_LT(result.sink.records.back().loss, 0.5 * result.sink.records[0].loss) << name;
    }
  }
}

// The look ahead by hand: a step of the model's own gradients from z to half, then one from z.
TEST(ViSteps, AnExtragradientStepIsTwoGradients) {
  const double lr = 0.05;
  LineTask task(0, 4, 1);
  const auto gradients = [&](const at::Tensor& weight, const at::Tensor& bias) {
    {
      at::NoGradGuard no_grad;
      task.weight.copy_(weight);
      task.bias.copy_(bias);
    }
    return torch::autograd::grad({task.Loss(0, 0)}, {task.weight, task.bias});
  };
  const at::Tensor weight = task.weight.detach().clone(), bias = task.bias.detach().clone();
  const auto first = gradients(weight, bias);
  const auto second = gradients(weight - lr * first[0], bias - lr * first[1]);
  RunSetup setup = Steps("extragradient", 1);
  setup.options.steps = 1;
  const Result result = Train(setup);
  EXPECT_LT((result.weights[0] - (weight - lr * second[0])).abs().max().item<double>(), 1e-6);
  EXPECT_GT((result.weights[0] - (weight - lr * first[0])).abs().max().item<double>(), 1e-4);
}

TEST(ViSteps, MashaOfTauZeroIsExtragradientInTrain) {
  for (const char* name : {"masha1", "masha2"}) {
    for (const int ranks : {1, 2, 3}) {
      // A batch of its own for the dense gradient at w: equal where there is one batch only.
      RunSetup eg = Steps("extragradient", ranks), masha = Steps(name, ranks, {{"tau", 0.0}});
      eg.one_batch = masha.one_batch = true;
      ExpectNear(Train(eg), Train(masha), 2e-6);
    }
  }
}

TEST(ViSteps, AStepThatIsNotFiniteLeavesNoTraceOnAnyRank) {
  for (const char* name : {"extragradient", "ogda", "masha1", "masha2"}) {
    for (const int rank : {0, 1}) {
      RunSetup good = Steps(name, 2), bad = good;
      good.options.steps = 5;
      bad.options.steps = 6;
      bad.bad_rank = rank;
      bad.bad_at = 5;
      const Result a = Train(good), b = Train(bad);
      ASSERT_TRUE(b.status.ok()) << b.status;
      EXPECT_EQ(a.hashes, b.hashes) << name;
      EXPECT_EQ(a.state, b.state) << name;
      EXPECT_TRUE(b.sink.records[5].skipped);
    }
  }
}

TEST(ViSteps, AResumedRunIsTheUnbrokenOneBitForBit) {
  for (const char* name : {"extragradient", "ogda", "masha1", "masha2"}) {
    for (const int ranks : {1, 2}) {
      TempFolder dir;
      RunSetup whole = Steps(name, ranks);
      whole.optimizer = "adamw";
      whole.optimizer_keys = {};
      whole.compressor = "topk";
      whole.compressor_keys = {{"ratio", 0.25}};
      whole.feedback = "ef14";
      whole.options.steps = 15;
      const Result a = Train(whole);
      ASSERT_TRUE(a.status.ok()) << a.status;
      RunSetup cut = whole;
      cut.run_dir = dir.Path("run");
      cut.checkpoint_every = 1;
      cut.stop_after = 6;
      EXPECT_FALSE(Train(cut).status.ok());
      cut.stop_after = -1;
      const Result b = Train(cut);
      ASSERT_TRUE(b.status.ok()) << b.status;
      EXPECT_EQ(b.resumed_after, 6);
      EXPECT_EQ(a.hashes, b.hashes) << name;
      EXPECT_EQ(a.state, b.state) << name;
    }
  }
}

TEST(ViSteps, SamplingOfRanksIsRefusedInTrain) {
  RunSetup setup = Steps("masha1", 2, {{"participation", 0.5}});
  EXPECT_EQ(ExitCode(Train(setup).status), 2);
}

}  // namespace
}  // namespace tw
