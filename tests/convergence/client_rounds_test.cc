// fedavg, scaffold, scallion and scafcom as whole runs in the lab.

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <memory>

#include "core/data/random_rows.h"
#include "core/engine/lane.h"
#include "examples/convergence/problems/logistic.h"
#include "launch/lab/lab_context.h"
#include "tests/comm/thread_group.h"

namespace tw {
namespace {

constexpr int kClients = 8;

std::unique_ptr<LogisticProblem> MakeProblem(int64_t batch = 4) {
  auto made = LogisticProblem::Create(GaussianRows(5, 160, 24, 0.5),
                                      ShardOptions{.kind = "by_label", .world_size = kClients},
                                      LogisticOptions{.l2 = 1e-2, .batch = batch});
  TW_CHECK_OK(made);
  return std::move(*made);
}

// Now and then a client finds a NaN, in its second local step.
class Dropping : public Problem {
 public:
  explicit Dropping(int64_t batch = 4) : inner_(MakeProblem(batch)) {}
  int num_clients() const override { return inner_->num_clients(); }
  std::span<const TensorSpec> parameters() const override { return inner_->parameters(); }
  void Start(std::span<const TensorView> x) override { base().Start(x); }
  StatusOr<double> Gradient(const GradientCall& call, std::span<const TensorView> x,
                            std::span<const TensorView> out) override {
    TW_ASSIGN_OR_RETURN(const double loss, base().Gradient(call, x, out));
    const bool bad = call.step % 3 == static_cast<uint64_t>(call.client) % 3 && call.client % 2;
    if ((bad && call.batch == 1) || all_bad) {
      static_cast<double*>(out[0].data)[7] = std::numeric_limits<double>::quiet_NaN();
    }
    return loss;
  }
  std::vector<std::string> metrics() const override { return inner_->metrics(); }
  Status Measure(std::span<const TensorView> x, std::span<double> out) override {
    return base().Measure(x, out);
  }
  bool all_bad = false;

 private:
  Problem& base() { return *inner_; }
  std::unique_ptr<LogisticProblem> inner_;
};

using Settings = std::vector<std::string>;

struct End {
  std::vector<double> x;
  double control_error = 0;  // max |c - mean c_i|
  int64_t state_bytes = 0;
  Traffic traffic;
  Curve curve;
};

Settings With(const std::string& strategy, const Settings& more) {
  Settings all = {"strategy.name=" + strategy, "optimizer.lr=0.05"};
  all.insert(all.end(), more.begin(), more.end());
  return all;
}

double ControlError(StateBag& state, size_t d) {
  const StateSlot* c = state.Find("strategy/x/c");
  if (!c) return 0;
  std::vector<double> mean(d);
  for (int id = 0; id < kClients; ++id) {
    const StateSlot* own = state.Find("client/" + std::to_string(id) + "/strategy/x/c_i");
    if (!own) continue;
    for (size_t i = 0; i < d; ++i) {
      mean[i] += static_cast<const double*>(own->view.data)[i] / kClients;
    }
  }
  double worst = 0;
  for (size_t i = 0; i < d; ++i) {
    worst = std::max(worst, std::abs(mean[i] - static_cast<const double*>(c->view.data)[i]));
  }
  return worst;
}

StatusOr<End> TryRun(Problem& problem, const Settings& settings, int64_t rounds,
                     Communicator& comm) {
  Lane lane;
  LabContext lab({}, &comm, &lane);
  TW_ASSIGN_OR_RETURN(
      const Curve curve,
      lab.Run(
          {.label = "m", .seed = 3, .problem = &problem, .rounds = rounds, .settings = settings}));
  Fleet& fleet = const_cast<Fleet&>(lab.fleet());
  End end;
  const TensorView x = fleet.x()[0];
  end.x.assign(static_cast<const double*>(x.data), static_cast<const double*>(x.data) + x.numel);
  end.control_error = ControlError(fleet.state(), end.x.size());
  end.state_bytes = fleet.state().bytes();
  end.traffic = fleet.traffic();
  end.curve = curve;
  end.curve.x.clear();
  return end;
}

End EndOf(Problem& problem, const Settings& settings, int64_t rounds) {
  End end;
  RunRanks(1, [&](Communicator& comm) {
    auto ran = TryRun(problem, settings, rounds, comm);
    TW_CHECK_OK(ran);
    end = std::move(*ran);
  });
  return end;
}

TEST(ClientRounds, OneLocalStepOfFedAvgIsSyncBitForBit) {
  const auto problem = MakeProblem();
  for (const Settings& codec :
       {Settings{},
        {"compressor.name=topk", "compressor.ratio=0.1", "feedback.name=ef14"},
        {"compressor.name=qsgd", "compressor.levels=4"}}) {
    Settings one = codec;
    one.push_back("strategy.local_steps=1");
    EXPECT_EQ(EndOf(*problem, With("fedavg", one), 30).x,
              EndOf(*problem, With("sync", codec), 30).x);
  }
}

// One number, two clients that pull it to either side.
class Pull : public VectorProblem {
 public:
  Pull() : VectorProblem(2, 1) {}
  std::vector<std::string> metrics() const override { return {"x"}; }

 protected:
  void Start(std::span<double> x) override { x[0] = 1; }
  StatusOr<double> Gradient(const GradientCall& call, std::span<const double> x,
                            std::span<double> out) override {
    out[0] = x[0] - (call.client == 0 ? 3.0 : -1.0);  // towards 3 and -1
    return 0.0;
  }
  Status Measure(std::span<const double> x, std::span<double> out) override {
    out[0] = x[0];
    return OkStatus();
  }
};

TEST(ClientRounds, RoundsByHand) {
  Pull problem;
  const Settings keys = {"strategy.local_steps=2", "strategy.global_lr=3"};
  // lr 0.05, x = 1. Client 0: g = -2, y = 1.1, g = -1.9: G = -1.95. Client 1: g = 2, y = 0.9, g =
  // 1.9: G = 1.95. The mean is 0 in fedavg and in scaffold's first round; after it c_i = +-1.95.
  const Curve fedavg = EndOf(problem, With("fedavg", keys), 1).curve;
  EXPECT_NEAR(fedavg.last(), 1.0, 1e-15);
  // From x = 1 again the corrected steps hardly move, and what is sent still cancels.
  const End scaffold = EndOf(problem, With("scaffold", keys), 2);
  EXPECT_NEAR(scaffold.x[0], 1.0, 1e-15);
  // Scafcom, beta 0.5: v = G/2; scallion, alpha 0.5: d = G/2. Both say +-0.975.
  const Settings half = {"strategy.local_steps=2", "strategy.participation=0.5"};
  for (const auto& [name, key] :
       {std::pair{"scafcom", "strategy.beta=0.5"}, std::pair{"scallion", "strategy.alpha=0.5"}}) {
    Settings all = half;
    all.push_back(key);
    // One of the two alone: x moves by 0.05 * 2 * 0.975, one way or the other.
    EXPECT_NEAR(std::abs(EndOf(problem, With(name, all), 1).x[0] - 1), 0.0975, 1e-15) << name;
  }
}

TEST(ClientRounds, ScallionScaffoldAndScafcomMeetWithoutDampingAndCompression) {
  const auto problem = MakeProblem();
  for (const char* participation : {"1", "0.5"}) {
    const Settings keys = {"strategy.local_steps=5", "strategy.global_lr=2",
                           std::string("strategy.participation=") + participation};
    const auto with = [&](const char* key) {
      Settings all = keys;
      all.push_back(key);
      return all;
    };
    for (const int64_t rounds : {1, 2, 25}) {
      const End scaffold = EndOf(*problem, With("scaffold", keys), rounds);
      const End scallion = EndOf(*problem, With("scallion", with("strategy.alpha=1")), rounds);
      const End scafcom = EndOf(*problem, With("scafcom", with("strategy.beta=1")), rounds);
      ASSERT_EQ(scaffold.x.size(), scallion.x.size());
      for (size_t i = 0; i < scaffold.x.size(); ++i) {
        EXPECT_NEAR(scaffold.x[i], scallion.x[i], 1e-14);
        EXPECT_NEAR(scaffold.x[i], scafcom.x[i], 1e-14);
      }
      EXPECT_NE(scaffold.x, EndOf(*problem, With("fedavg", keys), rounds + 1).x);
    }
  }
}

TEST(ClientRounds, ControlIsTheMeanOfTheClientsWhoeverDropsOut) {
  for (const char* codec : {"none", "topk", "qsgd", "bf16", "sign", "blockquant"}) {
    for (const char* name : {"scaffold", "scallion", "scafcom"}) {
      for (const char* participation : {"1", "0.4"}) {
        Dropping problem;
        Settings keys = {std::string("compressor.name=") + codec, "strategy.local_steps=3",
                         std::string("strategy.participation=") + participation};
        if (std::string(codec) == "topk") keys.push_back("compressor.ratio=0.1");
        const End end = EndOf(problem, With(name, keys), 100);
        // Codecs but none decode times 1/n in fp32.
        EXPECT_LT(end.control_error, std::string(codec) == "none" ? 1e-13 : 1e-8)
            << codec << " " << name;
        for (const double x : end.x) EXPECT_TRUE(std::isfinite(x));
        const int64_t sent = end.traffic.messages, asked = participation[0] == '1' ? 800 : 300;
        EXPECT_LT(sent, asked);  // somebody was dropped
        EXPECT_GT(sent, asked / 2);
      }
    }
  }
}

TEST(ClientRounds, NothingMovesWhenNobodyArrives) {
  for (const char* name : {"fedavg", "scafcom"}) {
    Dropping problem;
    problem.all_bad = true;
    const End end = EndOf(problem, With(name, {"strategy.local_steps=2"}), 5);
    for (const double x : end.x) EXPECT_EQ(x, 0);
    EXPECT_EQ(end.control_error, 0);
  }
}

TEST(ClientRounds, TheSameBitsOnAnyNumberOfRanks) {
  for (const char* name : {"fedavg", "scaffold", "scallion", "scafcom"}) {
    for (const Settings& codec : {Settings{},
                                  {"compressor.name=topk", "compressor.ratio=0.1"},
                                  {"compressor.name=qsgd", "compressor.levels=4"}}) {
      Settings keys = codec;
      keys.insert(keys.end(), {"strategy.local_steps=3", "strategy.participation=0.6"});
      std::vector<std::vector<double>> ends;
      for (const int ranks : {1, 2, 4}) {
        RunRanks(ranks, [&](Communicator& comm) {
          Dropping problem;
          const auto end = TryRun(problem, With(name, keys), 20, comm);
          TW_CHECK_OK(end);
          if (comm.rank() == 0) ends.push_back(end->x);
        });
      }
      EXPECT_EQ(ends[0], ends[1]) << name;
      EXPECT_EQ(ends[0], ends[2]) << name;
    }
  }
}

TEST(ClientRounds, KeepTheStateTheyDefineAndNoMore) {
  const auto problem = MakeProblem();
  const int64_t d = 24 * 8;
  const Settings keys = {"strategy.local_steps=3"};
  EXPECT_EQ(EndOf(*problem, With("fedavg", keys), 3).state_bytes, 0);
  EXPECT_EQ(EndOf(*problem, With("scaffold", keys), 3).state_bytes, (kClients + 1) * d);
  EXPECT_EQ(EndOf(*problem, With("scallion", keys), 3).state_bytes, (kClients + 1) * d);
  EXPECT_EQ(EndOf(*problem, With("scafcom", keys), 3).state_bytes, (2 * kClients + 1) * d);
}

TEST(ClientRounds, TheShareOfClientsIsDrawnAnewEveryRound) {
  const auto problem = MakeProblem();
  Settings keys = {"strategy.local_steps=1", "strategy.participation=0.25"};
  const End end = EndOf(*problem, With("scaffold", keys), 40);
  EXPECT_EQ(end.traffic.messages, 80);
  EXPECT_EQ(end.state_bytes, (kClients + 1) * 24 * 8);  // everybody had a turn
  EXPECT_EQ(end.traffic.downlink_bytes, 80 * 2 * 24 * 4);
  keys.back() = "strategy.participation=0.001";
  EXPECT_EQ(EndOf(*problem, With("fedavg", keys), 7).traffic.messages, 7);  // one at least
}

TEST(ClientRounds, RefuseFeedbackThatReturnsAnotherEstimate) {
  RunRanks(1, [&](Communicator& comm) {
    const auto problem = MakeProblem();
    for (const char* feedback : {"ef21", "econtrol", "diana"}) {
      const auto end =
          TryRun(*problem, With("scaffold", {std::string("feedback.name=") + feedback}), 3, comm);
      EXPECT_EQ(ExitCode(end.status()), 2) << feedback;
    }
    EXPECT_TRUE(TryRun(*problem,
                       With("scaffold",
                            {"compressor.name=topk", "compressor.ratio=0.1", "feedback.name=ef14"}),
                       3, comm)
                    .ok());
  });
}

TEST(ClientRounds, ScallionWarnsOfTooLittleDampingAndOfBiasedCompressors) {
  const auto make = [](const char* name, std::pair<std::string, FieldValue> key) {
    ConfigSection section;
    section.name = "strategy";
    section.Set(key.first, key.second);
    auto made = Registry<Strategy>::Get().Find(name)->make(section);
    TW_CHECK_OK(made);
    return std::move(*made);
  };
  const auto codec = [](const char* name) {
    auto made = Registry<Compressor>::Get().Find(name)->make(ConfigSection{});
    TW_CHECK_OK(made);
    return std::move(*made);
  };
  const TensorSpec spec{0, "x", {10000}, DType::kF32};
  EXPECT_EQ(make("scallion", {"alpha", 1.0})->Warnings(spec, *codec("qsgd")).size(), 1u);
  EXPECT_EQ(make("scallion", {"alpha", 0.01})->Warnings(spec, *codec("qsgd")).size(), 0u);
  EXPECT_EQ(make("scallion", {"alpha", 0.01})->Warnings(spec, *codec("topk")).size(), 1u);
  EXPECT_EQ(make("scallion", {"alpha", 1.0})->Warnings(spec, *codec("none")).size(), 0u);
  EXPECT_EQ(make("scafcom", {"beta", 1.0})->Warnings(spec, *codec("topk")).size(), 0u);
}

}  // namespace
}  // namespace tw
