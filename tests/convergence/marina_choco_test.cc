// marina and choco as whole runs in the lab.

#include <gtest/gtest.h>

#include <cmath>
#include <memory>

#include "core/base/normal.h"
#include "core/data/random_rows.h"
#include "core/engine/lane.h"
#include "examples/convergence/problems/logistic.h"
#include "examples/convergence/problems/quadratics.h"
#include "launch/lab/lab_context.h"
#include "tests/comm/thread_group.h"

namespace tw {
namespace {

constexpr int kClients = 8;

using Settings = std::vector<std::string>;

std::unique_ptr<LogisticProblem> MakeProblem(int64_t batch = 4) {
  auto made = LogisticProblem::Create(GaussianRows(5, 160, 24, 0.5),
                                      ShardOptions{.kind = "by_label", .world_size = kClients},
                                      LogisticOptions{.l2 = 1e-2, .batch = batch});
  TW_CHECK_OK(made);
  return std::move(*made);
}

struct End {
  std::vector<double> x;        // shared
  std::vector<double> clients;  // slot x of choco's clients
  Traffic traffic;
  std::vector<std::string> warnings;
  Curve curve;
};

StatusOr<End> TryRun(Problem& problem, const Settings& settings, int64_t rounds, Communicator& comm,
                     int copies = 1) {
  Lane lane;
  LabContext lab({}, &comm, &lane);
  End end;
  LabRun run{.label = "m", .seed = 3, .problem = &problem, .rounds = rounds, .settings = settings};
  run.copies = copies;
  run.fleet_metrics = {"first of client 0"};
  run.measure_fleet = [&](Fleet& fleet, std::span<double> out) -> Status {
    TW_ASSIGN_OR_RETURN(end.clients, fleet.ClientSlots("x", 0));
    out[0] = end.clients[0];
    return OkStatus();
  };
  TW_ASSIGN_OR_RETURN(end.curve, lab.Run(run));
  const TensorView x = lab.fleet().x()[0];
  end.x.assign(static_cast<const double*>(x.data), static_cast<const double*>(x.data) + x.numel);
  end.traffic = lab.fleet().traffic();
  end.warnings = lab.warnings();
  end.curve.x.clear();
  return end;
}

End EndOf(Problem& problem, const Settings& settings, int64_t rounds, int copies = 1) {
  End end;
  RunRanks(1, [&](Communicator& comm) {
    auto ran = TryRun(problem, settings, rounds, comm, copies);
    TW_CHECK_OK(ran);
    end = std::move(*ran);
  });
  return end;
}

Settings operator+(Settings a, const Settings& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

double Furthest(const std::vector<double>& a, const std::vector<double>& b) {
  TW_CHECK_EQ(a.size(), b.size());
  double worst = 0;
  for (size_t i = 0; i < a.size(); ++i) worst = std::max(worst, std::abs(a[i] - b[i]));
  return worst;
}

const Settings kRandK = {"compressor.name=randk", "compressor.ratio=0.25",
                         "compressor.mode=unbiased", "compressor.indices=own"};
const Settings kTopK = {"compressor.name=topk", "compressor.ratio=0.1"};
const Settings kMarina = {"strategy.name=marina", "optimizer.lr=0.05"};
const Settings kChoco = {"strategy.name=choco", "optimizer.lr=0.05"};

TEST(Marina, DenseRoundsAloneAreGradientDescentBitForBit) {
  for (const int64_t batch : {0, 4}) {
    const auto problem = MakeProblem(batch);
    const End sync = EndOf(*problem, {"optimizer.lr=0.05"}, 30);
    const End marina =
        EndOf(*problem, kMarina + kRandK + Settings{"strategy.dense_probability=1"}, 30);
    EXPECT_EQ(marina.x, sync.x);
    EXPECT_EQ(marina.traffic.uplink_bytes, sync.traffic.uplink_bytes);
  }
}

TEST(Marina, WithoutCompressionItIsGradientDescentToRounding) {
  const auto problem = MakeProblem(0);
  const End sync = EndOf(*problem, {"optimizer.lr=0.05"}, 100);
  const End marina = EndOf(*problem, kMarina + Settings{"strategy.dense_probability=0.05"}, 100);
  EXPECT_NE(marina.x, sync.x);  // it has gone another way
  EXPECT_LT(Furthest(marina.x, sync.x), 1e-14);
}

// One number; clients pull towards 3 and -1, and the gradient of client 0 carries the batch's step.
class Pull : public VectorProblem {
 public:
  Pull() : VectorProblem(2, 1) {}
  std::vector<std::string> metrics() const override { return {"x"}; }

 protected:
  void Start(std::span<double> x) override { x[0] = 1; }
  StatusOr<double> Gradient(const GradientCall& call, std::span<const double> x,
                            std::span<double> out) override {
    out[0] = call.client == 0 ? x[0] - 3 + static_cast<double>(call.step) : x[0] + 1;
    return x[0];
  }
  Status Measure(std::span<const double> x, std::span<double> out) override {
    out[0] = x[0];
    return OkStatus();
  }
};

// The difference is taken on one batch: what is the same at both points falls out, and G keeps the
// noise of its last dense round (0, here).
TEST(Marina, DifferencesAreOfTheSameBatch) {
  Pull problem;
  const Settings rare = {"strategy.name=marina", "strategy.dense_probability=1e-9",
                         "optimizer.lr=0.5"};
  // Mean gradient of step 0: x - 1. x = 1: G = 0, nothing moves, ever, although client 0's gradient
  // grows with the step.
  EXPECT_EQ(EndOf(problem, rare, 10).x[0], 1);
  EXPECT_NE(EndOf(problem, {"optimizer.lr=0.5"}, 10).x[0], 1);
}

TEST(Marina, CountsDenseRoundsDense) {
  const auto problem = MakeProblem(0);
  const int64_t d = 24, rounds = 200;
  const End end =
      EndOf(*problem, kMarina + kRandK + Settings{"strategy.dense_probability=0.3"}, rounds);
  EXPECT_EQ(end.traffic.downlink_bytes, rounds * kClients * 4 * d);
  // Of 24 numbers a compressed message has 6.
  const int64_t saved = rounds * kClients * 4 * d - end.traffic.uplink_bytes;
  EXPECT_EQ(saved % (kClients * 4 * 18), 0);
  const int64_t compressed = saved / (kClients * 4 * 18);
  EXPECT_GT(compressed, 110);  // 0.7 * 199, with a standard deviation of 6.5
  EXPECT_LT(compressed, 168);
}

// Client 1 finds a NaN in every third step, the first among them.
class Dropping : public Problem {
 public:
  explicit Dropping(bool all = false) : all_(all), inner_(MakeProblem()) {}
  int num_clients() const override { return inner_->num_clients(); }
  std::span<const TensorSpec> parameters() const override { return inner_->parameters(); }
  void Start(std::span<const TensorView> x) override { base().Start(x); }
  StatusOr<double> Gradient(const GradientCall& call, std::span<const TensorView> x,
                            std::span<const TensorView> out) override {
    TW_ASSIGN_OR_RETURN(const double loss, base().Gradient(call, x, out));
    if (call.step % 3 == 0 && (all_ || call.client == 1)) {
      static_cast<double*>(out[0].data)[7] = std::nan("");
    }
    return loss;
  }
  std::vector<std::string> metrics() const override { return inner_->metrics(); }
  Status Measure(std::span<const TensorView> x, std::span<double> out) override {
    return base().Measure(x, out);
  }

 private:
  Problem& base() { return *inner_; }
  bool all_;
  std::unique_ptr<LogisticProblem> inner_;
};

TEST(Marina, ARoundThatNobodyFinishesLeavesNoTrace) {
  Dropping problem(/*all=*/true);
  // Steps 0 and 3 are lost; 1 is the first dense one. Nothing but batches differs from rounds 1, 2.
  const Settings dense = kMarina + Settings{"strategy.dense_probability=1"};
  EXPECT_EQ(EndOf(problem, dense, 1).x, std::vector<double>(24, 0.0));
  EXPECT_EQ(EndOf(problem, dense, 4).x, EndOf(problem, dense, 3).x);
  const End end = EndOf(problem, kMarina + kRandK, 4);
  EXPECT_EQ(end.x, EndOf(problem, kMarina + kRandK, 3).x);
  // Its first round that arrives is dense, whatever the coin says.
  EXPECT_GE(end.traffic.uplink_bytes, kClients * 4 * (24 + 6));
}

TEST(Marina, WarnsOfBiasedCompressorsOnceAndRefusesTheEf21Family) {
  const auto problem = MakeProblem();
  EXPECT_EQ(EndOf(*problem, kMarina + kTopK, 3).warnings.size(), 1u);
  EXPECT_EQ(EndOf(*problem, kMarina + kRandK, 3).warnings.size(), 0u);
  RunRanks(1, [&](Communicator& comm) {
    const auto end = TryRun(*problem, kMarina + kTopK + Settings{"feedback.name=ef21"}, 3, comm);
    EXPECT_EQ(ExitCode(end.status()), 2);
  });
}

TEST(MarinaAndChoco, GiveTheSameBitsOnAnyNumberOfRanks) {
  for (const Settings& method : {kMarina, kChoco}) {
    for (const Settings& codec : {Settings{}, kTopK, kRandK}) {
      std::vector<End> ends;
      for (const int ranks : {1, 2, 4}) {
        RunRanks(ranks, [&](Communicator& comm) {
          Dropping problem;
          auto end = TryRun(problem, method + codec, 20, comm);
          TW_CHECK_OK(end);
          if (comm.rank() == comm.size() - 1) ends.push_back(std::move(*end));
        });
      }
      for (const size_t other : {1, 2}) {
        EXPECT_EQ(ends[0].x, ends[other].x);
        EXPECT_EQ(ends[0].clients, ends[other].clients);
        EXPECT_EQ(ends[0].traffic.uplink_bytes, ends[other].traffic.uplink_bytes);
      }
    }
  }
}

// One gradient step takes client i to its own vector; from then on there is gossip alone.
class Meeting : public VectorProblem {
 public:
  explicit Meeting(int clients) : VectorProblem(clients, 12), starts_(12 * clients) {
    AddNormal(RngStream::Of(1, RngPurpose::kTest, 0, 0, 0), 1, starts_);
  }
  std::vector<std::string> metrics() const override { return {"first"}; }
  const std::vector<double>& starts() const { return starts_; }

 protected:
  void Start(std::span<double> x) override { std::fill(x.begin(), x.end(), 0.0); }
  StatusOr<double> Gradient(const GradientCall& call, std::span<const double>,
                            std::span<double> out) override {
    for (size_t k = 0; k < out.size(); ++k) {
      out[k] = call.step == 0 ? -starts_[static_cast<size_t>(call.client) * 12 + k] : 0;
    }
    return 0.0;
  }
  Status Measure(std::span<const double> x, std::span<double> out) override {
    out[0] = x[0];
    return OkStatus();
  }

 private:
  std::vector<double> starts_;
};

std::vector<double> MeanOf(const std::vector<double>& all) {
  std::vector<double> mean(12);
  for (size_t i = 0; i < all.size(); ++i) {
    mean[i % 12] += all[i] / (static_cast<double>(all.size()) / 12);
  }
  return mean;
}

Settings GossipOf(double step, const char* topology) {
  return {"strategy.name=choco", "optimizer.lr=1", "strategy.gossip_step=" + std::to_string(step),
          std::string("strategy.topology=") + topology};
}

TEST(Choco, WithoutCompressionAStepOfOneIsPlainAveraging) {
  Meeting problem(7);
  // A round makes the vectors and sends them, nine more average: x_i <- (x_before + x_i +
  // x_after)/3.
  std::vector<double> expected = problem.starts();
  for (int round = 0; round < 9; ++round) {
    std::vector<double> next(expected.size());
    for (size_t i = 0; i < 7; ++i) {
      for (size_t k = 0; k < 12; ++k) {
        next[i * 12 + k] = (expected[(i + 6) % 7 * 12 + k] + expected[i * 12 + k] +
                            expected[(i + 1) % 7 * 12 + k]) /
                           3;
      }
    }
    expected = next;
  }
  const End ring = EndOf(problem, GossipOf(1, "ring"), 10);
  EXPECT_LT(Furthest(ring.clients, expected), 1e-14);
  // Of everybody's: the mean at once.
  const End complete = EndOf(problem, GossipOf(1, "complete"), 2);
  const std::vector<double> mean = MeanOf(problem.starts());
  for (size_t i = 0; i < complete.clients.size(); ++i) {
    EXPECT_NEAR(complete.clients[i], mean[i % 12], 1e-14);
  }
  EXPECT_LT(Furthest(complete.x, mean), 1e-14);
}

TEST(Choco, GossipKeepsTheMeanAndFindsIt) {
  for (const int clients : {2, 3, 8}) {
    for (const Settings& codec : {Settings{}, kTopK, {"compressor.name=qsgd"}}) {
      Meeting problem(clients);
      const std::vector<double> mean = MeanOf(problem.starts());
      const End end = EndOf(problem, GossipOf(0.1, "ring") + codec, 2500);
      EXPECT_LT(Furthest(MeanOf(end.clients), mean), 1e-13) << clients;
      for (size_t i = 0; i < end.clients.size(); ++i) {
        EXPECT_NEAR(end.clients[i], mean[i % 12], 1e-6) << clients;
      }
      EXPECT_LT(Furthest(end.x, mean), 1e-6);
    }
  }
  Meeting alone(1);
  EXPECT_LT(Furthest(EndOf(alone, GossipOf(1, "ring"), 5).x, alone.starts()), 1e-15);
}

TEST(Choco, BytesGoToEveryNeighbourAndNoneComeDown) {
  Meeting problem(8);
  const End end = EndOf(problem, GossipOf(0.1, "ring"), 5, /*copies=*/2);
  EXPECT_EQ(end.traffic.uplink_bytes, 5 * 8 * 12 * 4);
  EXPECT_EQ(end.traffic.downlink_bytes, 0);
  EXPECT_EQ(end.curve.points.back().uplink_bytes, 2 * 5 * 8 * 12 * 4);
  EXPECT_EQ(end.curve.points.back().total_bytes, 2 * 5 * 8 * 12 * 4);
}

// Quadratics of one curvature: the fixed point of decentralised steps has the minimum as its mean.
TEST(Choco, ClientsLearnWhatNoneOfThemSees) {
  Quadratics problem({.num_clients = 8, .dimension = 20, .zeta = 1, .identity = true});
  const End end = EndOf(problem,
                        {"strategy.name=choco", "optimizer.lr=0.01", "strategy.gossip_step=0.3",
                         "compressor.name=topk", "compressor.ratio=0.25"},
                        3000);
  std::vector<double> mean(20);
  for (size_t i = 0; i < end.clients.size(); ++i) mean[i % 20] += end.clients[i] / 8;
  const std::vector<double> solution(problem.solution().begin(), problem.solution().end());
  EXPECT_LT(Furthest(mean, solution), 1e-10);
}

TEST(Choco, IsForTheLabOnly) {
  auto made = Registry<Strategy>::Get().Find("choco")->make(ConfigSection{});
  TW_CHECK_OK(made);
  EXPECT_EQ((*made)->place(), Place::kLabOnly);
}

}  // namespace
}  // namespace tw
