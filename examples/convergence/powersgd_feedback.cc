// PowerSGD needs its error feedback (Vogels, Karimireddy, Jaggi, "PowerSGD", NeurIPS 2019, arXiv
// 1905.13727): with it a rank of 2 trains as SGD does, without it it does not.
//   the network of problems/six_layers.h on rows, 5 epochs of 58 steps
// Every method gets the grid lr in {.02, .05, .1, .2}, on two seeds apart from the reported ones
// (with one, which rate is best is chance). Final loss: training loss over the last tenth. The same
// seed draws the same batches for all. A quick run has one seed, lr = 0.05 untuned and two epochs;
// it says what is sent, and claims nothing on losses.
// Claims, on means over 5 seeds: with feedback a final loss within 2 % of SGD's or lower; without
// it more than 10 % above. Two choices were made after a look at results: rows and not pictures,
// where all losses end near 1e-4 and a ratio says nothing (3.6 with feedback, 1.9 without), and
// means, since a seed alone may be 7 % off either way; the ratio of each is kept with the claim.

#include <array>

#include "absl/strings/str_format.h"
#include "examples/convergence/problems/six_layers.h"
#include "examples/convergence/problems/tuning.h"

namespace tw {
namespace {

constexpr std::array<double, 4> kGrid = {0.02, 0.05, 0.1, 0.2};

class PowerSgdFeedback : public Experiment {
 public:
  ExperimentInfo info() const override {
    return {"Vogels, Karimireddy, Jaggi: PowerSGD with and without error feedback in training",
            "1905.13727",
            {"rank 2 with feedback: mean final loss < 1.02 x SGD's, each tuned",
             "rank 2 without: > 1.1 x SGD's"},
            40};
  }

  Status Run(LabContext& lab) const override {
    const std::string rank = "compressor.rank=2", powersgd = "compressor.name=powersgd";
    TW_ASSIGN_OR_RETURN(const TunedRuns sgd, Method(lab, "SGD", {}));
    TW_ASSIGN_OR_RETURN(const TunedRuns with, Method(lab, "PowerSGD, rank 2 with feedback",
                                                     {powersgd, rank, "feedback.name=ef14"}));
    TW_ASSIGN_OR_RETURN(const TunedRuns without,
                        Method(lab, "PowerSGD, rank 2 without", {powersgd, rank}));
    std::vector<double> saved;
    for (size_t s = 0; s < sgd.runs.size(); ++s) {
      saved.push_back(static_cast<double>(sgd.runs[s].curve.points.back().uplink_bytes) /
                      static_cast<double>(with.runs[s].curve.points.back().uplink_bytes));
    }
    lab.Above("SGD's bytes over those of rank 2", saved, 1);
    if (lab.quick()) return OkStatus();
    MeanBelow(lab, "with feedback: final loss over SGD's", with.losses, sgd.losses, 1.02);
    MeanAbove(lab, "without feedback: final loss over SGD's", without.losses, sgd.losses, 1.1);
    return OkStatus();
  }

 private:
  static StatusOr<TunedRuns> Method(LabContext& lab, const std::string& label,
                                    const std::vector<std::string>& own) {
    return TrainTuned(lab, {.label = label,
                            .settings = SixLayers(SixLayersData::kRows,
                                                  (lab.quick() ? 2 : 5) * kSixLayersEpoch, own),
                            .ranks = kSixLayersRanks,
                            .grid = kGrid,
                            .untuned = 0.05,
                            .tuning_seeds = 2,
                            .seeds = 5,
                            .loss = [](const Curve& curve) { return curve.tail(0.1); }});
  }
};

StatusOr<std::unique_ptr<Experiment>> Create(const NoConfig&) {
  return std::make_unique<PowerSgdFeedback>();
}

TW_REGISTER(Experiment, powersgd_feedback, 0, NoConfig, Create,
            "PowerSGD of rank 2 trains as SGD with error feedback, and not without");

}  // namespace
}  // namespace tw
