// Gossip with compressed messages finds the mean (Koloskova, Stich, Jaggi, "Decentralized
// stochastic optimization and gossip algorithms with compressed communication", CHOCO-Gossip, arXiv
// 1902.00340, theorem 2 and figure 2).
//   a ring of 16 clients, d = 100, each begins at its own b_i ~ N(0, I), weights 1/3, top-k 10 %,
//   4000 rounds; error: sqrt(sum |x_i - mean x|^2 / sum |b_i - mean b|^2)
// Claims: with gossip step 0.2 the error reaches 1e-10, with 0.5 it diverges: the step must be
// small for a coarse compressor. The mean of the x_i stays what it was. Each message goes to two
// neighbours and is counted twice.

#include <algorithm>
#include <cmath>

#include "absl/strings/str_format.h"
#include "core/base/normal.h"
#include "launch/lab/experiment.h"

namespace tw {
namespace {

constexpr int kClients = 16;
constexpr int64_t kDimension = 100;
constexpr int64_t kRounds = 4000;

// Gradients take every client to its b_i in one step of length 1 from 0, and are 0 from then on.
class Consensus : public VectorProblem {
 public:
  explicit Consensus(uint64_t seed)
      : VectorProblem(kClients, kDimension), starts_(kClients * kDimension), mean_(kDimension) {
    for (int c = 0; c < kClients; ++c) {
      const std::span<double> own = std::span(starts_).subspan(static_cast<size_t>(c) * kDimension,
                                                               static_cast<size_t>(kDimension));
      AddNormal(RngStream::Of(seed, RngPurpose::kProblem, 2, 0, static_cast<uint32_t>(c)), 1, own);
      for (size_t k = 0; k < own.size(); ++k) mean_[k] += own[k] / kClients;
    }
  }
  std::vector<std::string> metrics() const override { return {"public_mean_error"}; }

  // How far vectors of all clients are from their mean, and that mean from where it began.
  double Spread(std::span<const double> all) const {
    const std::vector<double> mean = MeanOf(all);
    double sum = 0;
    for (size_t i = 0; i < all.size(); ++i) {
      const double apart = all[i] - mean[i % mean.size()];
      sum += apart * apart;
    }
    return std::sqrt(sum);
  }
  double Drift(std::span<const double> all) const {
    const std::vector<double> mean = MeanOf(all);
    double worst = 0;
    for (size_t k = 0; k < mean.size(); ++k) {
      const double moved = std::abs(mean[k] - mean_[k]);
      if (std::isnan(moved)) return moved;
      worst = std::max(worst, moved);
    }
    return worst;
  }
  std::span<const double> starts() const { return starts_; }

 protected:
  void Start(std::span<double> x) override { std::fill(x.begin(), x.end(), 0.0); }
  StatusOr<double> Gradient(const GradientCall& call, std::span<const double>,
                            std::span<double> out) override {
    for (size_t k = 0; k < out.size(); ++k) {
      out[k] = call.step == 0 ? -starts_[static_cast<size_t>(call.client) * out.size() + k] : 0;
    }
    return 0.0;
  }
  Status Measure(std::span<const double> x, std::span<double> out) override {
    double sum = 0;
    for (size_t k = 0; k < x.size(); ++k) sum += (x[k] - mean_[k]) * (x[k] - mean_[k]);
    out[0] = std::sqrt(sum);
    return OkStatus();
  }

 private:
  static std::vector<double> MeanOf(std::span<const double> all) {
    std::vector<double> mean(kDimension);
    for (size_t i = 0; i < all.size(); ++i) mean[i % mean.size()] += all[i] / kClients;
    return mean;
  }

  std::vector<double> starts_, mean_;
};

class ChocoConsensus : public Experiment {
 public:
  ExperimentInfo info() const override {
    return {"Koloskova, Stich, Jaggi: CHOCO-Gossip, consensus on a ring of 16, top-k 10 %",
            "1902.00340",
            {"gossip step 0.2: relative distance from the mean <= 1e-10 in < 4000 rounds",
             "gossip step 0.5: it diverges", "the mean is preserved to 1e-13"},
            4};
  }

  Status Run(LabContext& lab) const override {
    std::vector<double> rounds, slow, coarse, drift, bytes;
    for (const uint64_t seed : lab.seeds()) {
      const Consensus problem(seed);
      TW_ASSIGN_OR_RETURN(const Curve good, Gossip(lab, problem, 0.2, seed));
      const CurvePoint* const there = good.Reaches(1e-10, kError);
      rounds.push_back(there ? static_cast<double>(there->round) : INFINITY);
      bytes.push_back(there ? static_cast<double>(there->uplink_bytes) / kClients : INFINITY);
      double worst = 0;
      for (const CurvePoint& point : good.points) {
        if (!(point.y[kDrift] <= worst)) worst = point.y[kDrift];
      }
      drift.push_back(worst);
      TW_ASSIGN_OR_RETURN(const Curve careful, Gossip(lab, problem, 0.1, seed));
      slow.push_back(careful.last(kError));
      TW_ASSIGN_OR_RETURN(const Curve bold, Gossip(lab, problem, 0.5, seed));
      coarse.push_back(bold.last(kError));
    }
    lab.Below("gossip step 0.2: rounds to relative distance 1e-10", rounds, 4000);
    lab.Above("gossip step 0.5: relative distance after 4000 rounds", coarse, 1);
    lab.Below("gossip step 0.2: how far the mean has moved, largest", drift, 1e-13);
    lab.Report("gossip step 0.1: relative distance after 4000 rounds", slow);
    lab.Report("gossip step 0.2: bytes a client sends until 1e-10", bytes);
    return OkStatus();
  }

 private:
  static constexpr size_t kError = 1, kDrift = 2;

  static StatusOr<Curve> Gossip(LabContext& lab, Consensus problem, double step, uint64_t seed) {
    LabRun run{.label = absl::StrFormat("CHOCO, gossip step %g", step),
               .seed = seed,
               .problem = &problem,
               .rounds = kRounds};
    run.settings = {"strategy.name=choco", absl::StrFormat("strategy.gossip_step=%g", step),
                    "optimizer.lr=1", "compressor.name=topk", "compressor.ratio=0.1"};
    run.points = kRounds / 10;
    run.copies = 2;
    run.fleet_metrics = {"error", "mean_moved"};
    run.measure_fleet = [&](Fleet& fleet, std::span<double> out) -> Status {
      out[0] = 1;  // before the first round: as they will begin
      out[1] = 0;
      if (fleet.steps_done() == 0) return OkStatus();
      TW_ASSIGN_OR_RETURN(const std::vector<double> all, fleet.ClientSlots("x", 0));
      out[0] = problem.Spread(all) / problem.Spread(problem.starts());
      out[1] = problem.Drift(all);
      return OkStatus();
    };
    return lab.Run(run);
  }
};

StatusOr<std::unique_ptr<Experiment>> Create(const NoConfig&) {
  return std::make_unique<ChocoConsensus>();
}

TW_REGISTER(Experiment, choco_consensus, 0, NoConfig, Create,
            "compressed gossip on a ring: all clients find the mean, or diverge if too eager");

}  // namespace
}  // namespace tw
