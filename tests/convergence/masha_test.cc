// extragradient, ogda, masha1 and masha2 as whole runs in the lab.

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "core/base/normal.h"
#include "core/data/random_rows.h"
#include "core/data/split.h"
#include "core/engine/lane.h"
#include "examples/convergence/problems/robust_logistic.h"
#include "examples/convergence/problems/saddle.h"
#include "launch/lab/lab_context.h"
#include "tests/comm/thread_group.h"
#include "tests/core/engine/engine_parts.h"

namespace tw {
namespace {

using Settings = std::vector<std::string>;

Settings operator+(Settings a, const Settings& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

constexpr int kClients = 6;

std::unique_ptr<RobustLogistic> Robust(int64_t batch = 0) {
  const SparseRows rows = GaussianRows(4, 120, 9, 0.5);
  const auto clients =
      Shards(rows.labels, ShardOptions{.kind = "by_label", .world_size = kClients});
  TW_CHECK_OK(clients);
  auto made = RobustLogistic::Create(rows, *clients, {.batch = batch});
  TW_CHECK_OK(made);
  return std::move(*made);
}

// Another problem from a start of its own; now and then a client finds a NaN.
class Around : public Problem {
 public:
  explicit Around(std::unique_ptr<Problem> inner) : inner_(std::move(inner)) {}
  int num_clients() const override { return inner_->num_clients(); }
  std::span<const TensorSpec> parameters() const override { return inner_->parameters(); }
  void Start(std::span<const TensorView> x) override {
    for (const TensorView& v : x) {
      const std::span<double> numbers(static_cast<double*>(v.data), static_cast<size_t>(v.numel));
      std::fill(numbers.begin(), numbers.end(), 0);
      AddNormal(RngStream::Of(9, RngPurpose::kTest, 0, 0, 0), 0.3, numbers);
    }
  }
  StatusOr<double> Gradient(const GradientCall& call, std::span<const TensorView> x,
                            std::span<const TensorView> out) override {
    TW_ASSIGN_OR_RETURN(const double loss, inner_->Gradient(call, x, out));
    const bool bad = call.step % 3 == static_cast<uint64_t>(call.client) % 3 && call.client % 2;
    // Some in the dense exchange, some in the other.
    if ((drops && bad && (call.batch != 0) == (call.client % 4 == 1)) || all_bad) {
      static_cast<double*>(out[0].data)[3] = std::numeric_limits<double>::quiet_NaN();
    }
    return loss;
  }
  std::vector<std::string> metrics() const override { return inner_->metrics(); }
  Status Measure(std::span<const TensorView> x, std::span<double> out) override {
    return inner_->Measure(x, out);
  }
  bool drops = false, all_bad = false;

 private:
  std::unique_ptr<Problem> inner_;
};

Around Start(std::unique_ptr<Problem> inner) { return Around(std::move(inner)); }
Around SmallSaddle(double curvature = 0) {
  return Start(std::make_unique<Saddle>(SaddleOptions{
      .num_clients = kClients, .side = 7, .lambda = 0.3, .curvature = curvature, .seed = 3}));
}

struct End {
  std::vector<double> x;
  std::map<std::string, std::vector<double>> state;
  Traffic traffic;
  double last = 0;
};

StatusOr<End> TryRun(Problem& problem, const Settings& settings, int64_t rounds, Communicator& comm,
                     const Settings& server = {}) {
  Lane lane;
  LabContext lab({}, &comm, &lane);
  LabRun run{.label = "m", .seed = 3, .problem = &problem, .rounds = rounds};
  run.settings = settings;
  run.server = server;
  TW_ASSIGN_OR_RETURN(const Curve curve, lab.Run(run));
  Fleet& fleet = const_cast<Fleet&>(lab.fleet());
  const auto numbers = [](TensorView v) {
    const auto* const data = static_cast<const double*>(v.data);
    return std::vector<double>(data, data + v.numel);
  };
  End end;
  end.x = numbers(fleet.x()[0]);
  fleet.state().ForEach([&](const std::string& name, const StateSlot& slot) {
    if (slot.view.dtype == DType::kF64) end.state[name] = numbers(slot.view);
  });
  end.traffic = fleet.traffic();
  end.last = curve.last();
  return end;
}

End EndOf(Problem& problem, const Settings& settings, int64_t rounds, const Settings& server = {}) {
  End end;
  RunRanks(1, [&](Communicator& comm) {
    auto ran = TryRun(problem, settings, rounds, comm, server);
    TW_CHECK_OK(ran);
    end = std::move(*ran);
  });
  return end;
}

double Distance(const std::vector<double>& a, const std::vector<double>& b) {
  TW_CHECK_EQ(a.size(), b.size());
  double worst = 0;
  for (size_t i = 0; i < a.size(); ++i) worst = std::max(worst, std::abs(a[i] - b[i]));
  return worst;
}

// max |F - mean F_m|
double ReferenceError(const End& end) {
  std::vector<double> mean(end.x.size());
  for (int id = 0; id < kClients; ++id) {
    const auto own = end.state.find("client/" + std::to_string(id) + "/strategy/x/F_m");
    if (own == end.state.end()) continue;
    for (size_t i = 0; i < mean.size(); ++i) mean[i] += own->second[i] / kClients;
  }
  return Distance(mean, end.state.at("strategy/x/F"));
}

const Settings kLr = {"optimizer.lr=0.2"};
const Settings kTopK = {"compressor.name=topk", "compressor.ratio=0.2", "feedback.name=ef14"};
const Settings kRandK = {"compressor.name=randk", "compressor.ratio=0.2",
                         "compressor.mode=unbiased", "compressor.indices=own"};

TEST(Masha, TauZeroWithoutCompressionIsExtragradient) {
  Around saddle = SmallSaddle(), curved = SmallSaddle(0.5), robust = Start(Robust());
  for (Around* problem : {&saddle, &curved, &robust}) {
    for (const char* name : {"masha1", "masha2"}) {
      for (const char* reference : {"kept", "again"}) {
        for (const int64_t steps : {1, 2, 30}) {
          const End eg = EndOf(*problem, kLr + Settings{"strategy.name=extragradient"}, steps);
          const End masha =
              EndOf(*problem,
                    kLr + Settings{std::string("strategy.name=") + name, "strategy.tau=0",
                                   std::string("strategy.reference=") + reference},
                    steps);
          EXPECT_LT(Distance(eg.x, masha.x), steps == 1 ? 1e-14 : 1e-12) << name << steps;
        }
      }
    }
  }
}

// z - gamma*F(z - gamma*F(z)) and 2*F_k - F_{k-1}, by hand.
TEST(Masha, ExtragradientAndOptimisticStepsByHand) {
  Around problem = SmallSaddle();
  const size_t d = 14;
  const auto mean = [&](const std::vector<double>& at) {
    std::vector<double> sum(d), one(d), copy = at;
    const TensorView x{copy.data(), DType::kF64, 14}, out{one.data(), DType::kF64, 14};
    for (int c = 0; c < kClients; ++c) {
      TW_CHECK_OK(problem.Gradient({.client = c}, {&x, 1}, {&out, 1}));
      for (size_t i = 0; i < d; ++i) sum[i] += one[i] / kClients;
    }
    return sum;
  };
  const auto moved = [&](const std::vector<double>& from, const std::vector<double>& by) {
    std::vector<double> to = from;
    for (size_t i = 0; i < d; ++i) to[i] -= 0.2 * by[i];
    return to;
  };
  std::vector<double> z(d);
  const TensorView view{z.data(), DType::kF64, 14};
  problem.Start({&view, 1});
  const End eg = EndOf(problem, kLr + Settings{"strategy.name=extragradient"}, 1);
  EXPECT_LT(Distance(eg.x, moved(z, mean(moved(z, mean(z))))), 1e-14);
  const auto f0 = mean(z);
  const auto z1 = moved(z, f0);
  auto f1 = mean(z1);
  for (size_t i = 0; i < d; ++i) f1[i] = 2 * f1[i] - f0[i];
  EXPECT_LT(Distance(EndOf(problem, kLr + Settings{"strategy.name=ogda"}, 2).x, moved(z1, f1)),
            1e-14);
}

TEST(Masha, ReachesTheSolutionThroughCompressionOnBothSides) {
  for (const double curvature : {0.0, 0.5}) {
    Around problem = SmallSaddle(curvature);
    const Settings small = {"optimizer.lr=0.07", "strategy.tau=0.8"};
    EXPECT_LT(EndOf(problem, small + kRandK + Settings{"strategy.name=masha1"}, 3000,
                    {"compressor.name=qsgd", "compressor.levels=15"})
                  .last,
              1e-10);
    EXPECT_LT(EndOf(problem, small + kTopK + Settings{"strategy.name=masha2"}, 3000,
                    {"compressor.name=topk", "compressor.ratio=0.5", "feedback.name=ef14"})
                  .last,
              1e-10);
    // Without a reference point compression leaves a floor.
    EXPECT_GT(
        EndOf(problem, Settings{"optimizer.lr=0.07", "strategy.name=extragradient"} + kRandK, 3000)
            .last,
        1e-2);
  }
}

TEST(Masha, TheSameBitsOnAnyNumberOfRanks) {
  struct Case {
    Settings settings, server;
    int64_t batch;
  };
  const Settings some = {"strategy.participation=0.6", "strategy.tau=0.7", "optimizer.lr=0.1"};
  const std::vector<Case> cases = {
      {some + kRandK + Settings{"strategy.name=masha1"},
       {"compressor.name=qsgd", "compressor.levels=15"},
       0},
      {some + kTopK + Settings{"strategy.name=masha2"},
       {"compressor.name=topk", "compressor.ratio=0.5", "feedback.name=ef14"},
       0},
      {some + kTopK +
           Settings{"strategy.name=masha2", "strategy.reference=again",
                    "strategy.reference_batches=3"},
       {},
       4},
      {kLr + kTopK + Settings{"strategy.name=extragradient", "strategy.same_batch=false"}, {}, 4},
      {kLr + kRandK + Settings{"strategy.name=ogda"}, {}, 4}};
  for (size_t c = 0; c < cases.size(); ++c) {
    std::vector<std::vector<double>> ends;
    for (const int ranks : {1, 2, 4}) {
      RunRanks(ranks, [&](Communicator& comm) {
        Around problem = Start(Robust(cases[c].batch));
        problem.drops = true;
        const auto end = TryRun(problem, cases[c].settings, 25, comm, cases[c].server);
        TW_CHECK_OK(end);
        if (comm.rank() == 0) ends.push_back(end->x);
      });
    }
    EXPECT_EQ(ends[0], ends[1]) << c;
    EXPECT_EQ(ends[0], ends[2]) << c;
    for (const double x : ends[0]) EXPECT_TRUE(std::isfinite(x));
  }
}

TEST(Masha, FStaysTheMeanOfWhatClientsKeepWhoeverDropsOut) {
  for (const char* name : {"masha1", "masha2"}) {
    for (const char* participation : {"1", "0.5"}) {
      Around problem = Start(Robust());
      problem.drops = true;
      const Settings keys = {std::string("strategy.name=") + name, "strategy.tau=0.6",
                             std::string("strategy.participation=") + participation};
      const End end = EndOf(problem, kLr + keys + (name[5] == '1' ? kRandK : kTopK), 200);
      EXPECT_LT(ReferenceError(end), 1e-13) << name;
      for (const double x : end.x) EXPECT_TRUE(std::isfinite(x));
      // Less than a fresh dense exchange of all: somebody's is older.
      const double asked = (participation[0] == '1' ? 6 : 3) * 200 + 6 * 0.4 * 200;
      EXPECT_LT(static_cast<double>(end.traffic.messages), asked);
    }
  }
}

TEST(Masha, TheReferenceIsTheOperatorAtW) {
  Around problem = SmallSaddle();
  const End end =
      EndOf(problem, kLr + kTopK + Settings{"strategy.name=masha2", "strategy.tau=0.7"}, 60);
  std::vector<double> w = end.state.at("strategy/x/w"), f(w.size()), mean(w.size());
  const TensorView x{w.data(), DType::kF64, 14}, out{f.data(), DType::kF64, 14};
  for (int c = 0; c < kClients; ++c) {
    TW_CHECK_OK(problem.Gradient({.client = c}, {&x, 1}, {&out, 1}));
    EXPECT_EQ(f, end.state.at("client/" + std::to_string(c) + "/strategy/x/F_m"));
    for (size_t i = 0; i < f.size(); ++i) mean[i] += f[i] / kClients;
  }
  EXPECT_LT(Distance(mean, end.state.at("strategy/x/F")), 1e-14);
  EXPECT_NE(w, end.x);
}

TEST(Masha, NothingMovesWhenNobodyArrives) {
  for (const char* name : {"extragradient", "ogda", "masha1", "masha2"}) {
    Around problem = SmallSaddle();
    std::vector<double> start(14);
    const TensorView view{start.data(), DType::kF64, 14};
    problem.Start({&view, 1});
    problem.all_bad = true;
    const End end = EndOf(problem, kLr + Settings{std::string("strategy.name=") + name}, 5);
    EXPECT_EQ(end.x, start) << name;
    EXPECT_TRUE(end.state.empty()) << name;
  }
}

TEST(Masha, EveryByteIsCounted) {
  Around problem = SmallSaddle();
  const int64_t d = 14, n = kClients, steps = 40;
  // tau 0: a dense exchange at first and after every step. top-k of 3 of 14: 3 values, packed
  // indices.
  const End dense = EndOf(problem, kLr + Settings{"strategy.name=masha1", "strategy.tau=0"}, steps);
  EXPECT_EQ(dense.traffic.messages, n * (2 * steps + 1));
  EXPECT_EQ(dense.traffic.uplink_bytes, 4 * d * n * (2 * steps + 1));
  EXPECT_EQ(dense.traffic.downlink_bytes, 4 * d * n * (2 * steps + 1));
  const Settings one = kLr + kRandK + Settings{"strategy.name=masha1", "strategy.tau=0"};
  const End compressed =
      EndOf(problem, one, steps, {"compressor.name=qsgd", "compressor.levels=1"});
  EXPECT_EQ(compressed.traffic.uplink_bytes, n * (4 * d * (steps + 1) + 4 * 3 * steps));
  // A norm and 2 bits a number.
  EXPECT_EQ(compressed.traffic.downlink_bytes, n * (4 * d * (steps + 1) + (4 + 4) * steps));
  const End eg = EndOf(problem, kLr + Settings{"strategy.name=extragradient"}, steps);
  EXPECT_EQ(eg.traffic.uplink_bytes, 4 * d * n * 2 * steps);
  EXPECT_EQ(eg.traffic.downlink_bytes, 4 * d * n * 2 * steps);
}

TEST(Masha, SomeClientsSendDifferencesAndAllSendReferences) {
  Around problem = SmallSaddle();
  const Settings keys = {"strategy.name=masha1", "strategy.tau=0", "strategy.participation=0.34"};
  EXPECT_EQ(EndOf(problem, kLr + keys, 10).traffic.messages, 10 * 2 + 11 * kClients);
}

// A strategy that only broadcasts, over fp32 parameters of awkward shapes.
class Shouts : public Strategy {
 public:
  explicit Shouts(std::vector<std::vector<double>>* heard) : heard_(heard) {}
  StatusOr<StepResult> Step(StepMachine& machine) const override {
    std::vector<TensorView> vectors;
    for (const ParameterView& p : machine.parameters()) {
      for (int64_t i = 0; i < p.grad.numel; ++i) p.grad.f32()[i] = Value(i);
      vectors.push_back(p.grad);
    }
    TW_RETURN_IF_ERROR(machine.Broadcast(vectors));
    for (size_t p = 0; p < vectors.size(); ++p) {
      (*heard_)[p].resize(static_cast<size_t>(vectors[p].numel));
      for (size_t i = 0; i < (*heard_)[p].size(); ++i) (*heard_)[p][i] += vectors[p].f32()[i];
    }
    return StepResult{};
  }
  static float Value(int64_t i) { return 0.5f + static_cast<float>(i % 5); }

 private:
  std::vector<std::vector<double>>* heard_;
};

class Silent : public Problem {
 public:
  int num_clients() const override { return 3; }
  std::span<const TensorSpec> parameters() const override { return specs_; }
  void Start(std::span<const TensorView> x) override {
    for (const TensorView& v : x) std::fill(v.f32().begin(), v.f32().end(), 0.0f);
  }
  StatusOr<double> Gradient(const GradientCall&, std::span<const TensorView> x,
                            std::span<const TensorView> out) override {
    for (size_t p = 0; p < x.size(); ++p) {
      for (size_t i = 0; i < x[p].f32().size(); ++i) out[p].f32()[i] = x[p].f32()[i] - 1;
    }
    return 0;
  }
  std::vector<std::string> metrics() const override { return {"none"}; }
  Status Measure(std::span<const TensorView> x, std::span<double> out) override {
    out[0] = 0;
    for (const float v : x[0].f32()) out[0] = std::max(out[0], std::abs(double{v} - 1));
    return OkStatus();
  }

 private:
  std::vector<TensorSpec> specs_ = {{0, "matrix", {7, 9}, DType::kF32},
                                    {1, "nothing", {0, 4}, DType::kF32},
                                    {2, "single", {1}, DType::kF32},
                                    {3, "vector", {33}, DType::kF32}};
};

// What the server sent and what its feedback still holds are together what it was given.
TEST(Broadcast, AServersFeedbackLosesNothing) {
  constexpr int64_t kSteps = 12;
  RunRanks(1, [&](Communicator& comm) {
    RouteMaker routes;
    Silent problem;
    PlanOptions options = routes.Options(problem.num_clients());
    options.exchanges = {FindExchange(Merge::kSum), FindExchange(Merge::kGather)};
    PlanRule rule;
    rule.route = routes.Make("none", "none");
    options.rules = {rule};
    const auto plan =
        Plan::Build({problem.parameters().begin(), problem.parameters().end()}, options);
    TW_CHECK_OK(plan);
    const Route server = routes.Make("topk", "ef14", {{"ratio", 0.1}});
    const auto optimizer = MakeVariant<Optimizer>("sgdm");
    const auto schedule = MakeVariant<Schedule>("constant");
    std::vector<std::vector<double>> heard(problem.parameters().size());
    const Shouts strategy(&heard);
    auto fleet = Fleet::Create(
        {&problem, &*plan, &server, optimizer.get(), schedule.get(), &strategy, &comm, nullptr},
        {kSteps, 0.1, 0, 7});
    TW_CHECK_OK(fleet);
    for (int64_t s = 0; s < kSteps; ++s) TW_CHECK_OK((*fleet)->Step());
    int64_t dense = 0;
    for (size_t p = 0; p < heard.size(); ++p) {
      const TensorSpec& spec = problem.parameters()[p];
      dense += 4 * spec.numel() * 3 * kSteps;
      const StateSlot* left = (*fleet)->state().Find("server/feedback/" + spec.name + "/e");
      ASSERT_TRUE(left);
      for (size_t i = 0; i < heard[p].size(); ++i) {
        const double given = kSteps * Shouts::Value(static_cast<int64_t>(i));
        EXPECT_NEAR(heard[p][i] + left->view.f32()[i], given, 1e-4);
      }
    }
    EXPECT_GT((*fleet)->traffic().downlink_bytes, 0);
    EXPECT_LT((*fleet)->traffic().downlink_bytes, dense / 3);
    EXPECT_EQ((*fleet)->traffic().uplink_bytes, 0);
  });
}

TEST(Masha, TakesParametersOfAwkwardShapes) {
  RunRanks(1, [&](Communicator& comm) {
    for (const Settings& method :
         {Settings{"strategy.name=masha1"} + kRandK, Settings{"strategy.name=masha2"} + kTopK}) {
      Lane lane;
      LabContext lab({}, &comm, &lane);
      Silent problem;
      LabRun run{.label = "m", .problem = &problem, .rounds = 300};
      run.settings = Settings{"optimizer.lr=0.05", "strategy.reference_batches=2"} + method;
      run.server = {"compressor.name=qsgd", "compressor.levels=15"};
      const auto curve = lab.Run(run);
      TW_CHECK_OK(curve);
      EXPECT_LT(curve->last(), 1e-3);
    }
  });
}

TEST(Masha, WarnsOfCompressorsThatItsTheoryDoesNotTake) {
  const auto warnings = [](const char* strategy, const char* codec, const Keys& keys = {}) {
    const TensorSpec spec{0, "x", {10000}, DType::kF32};
    return MakeVariant<Strategy>(strategy)
        ->Warnings(spec, *MakeVariant<Compressor>(codec, keys))
        .size();
  };
  const Keys unbiased = {{"mode", std::string("unbiased")}};
  EXPECT_EQ(warnings("masha1", "topk"), 1u);
  EXPECT_EQ(warnings("masha1", "randk", unbiased), 0u);
  EXPECT_EQ(warnings("masha1", "none"), 0u);
  EXPECT_EQ(warnings("masha2", "topk"), 0u);
  EXPECT_EQ(warnings("masha2", "randk", unbiased), 1u);
  EXPECT_EQ(warnings("masha2", "none"), 0u);
}

}  // namespace
}  // namespace tw
