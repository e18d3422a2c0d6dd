#include "examples/convergence/problems/federated_pictures.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/strings/str_format.h"
#include "examples/convergence/problems/pictures.h"
#include "examples/convergence/problems/tuning.h"

namespace tw {
namespace {

using Settings = std::vector<std::string>;

struct Method {
  const char* label;
  Settings settings;
};

enum Place : size_t { kScaffold, kFedAvg, kFedEf, kScafcom, kScallion };

std::vector<Method> Methods() {
  const Settings topk = {"compressor.name=topk", "compressor.ratio=0.01"};
  const auto with = [](Settings a, const Settings& b) {
    a.insert(a.end(), b.begin(), b.end());
    return a;
  };
  return {{"SCAFFOLD", {"strategy.name=scaffold"}},
          {"FedAvg", {"strategy.name=fedavg"}},
          {"Fed-EF", with({"strategy.name=fedavg", "feedback.name=ef14"}, topk)},
          {"SCAFCOM", with({"strategy.name=scafcom", "strategy.beta=0.2"}, topk)},
          {"SCALLION",
           {"strategy.name=scallion", "strategy.alpha=0.1", "compressor.name=qsgd",
            "compressor.levels=7", "compressor.bucket=512"}}};
}

struct Rates {
  double local, global;
};

struct Reported {
  std::string label;
  std::vector<double> accuracy, bytes_a_message;  // one a seed
  std::vector<std::vector<double>> megabytes_to;  // uplink, of each error; one a seed
  double dense_bytes = 0;
};

class Comparison {
 public:
  Comparison(LabContext* lab, const FederatedPictures* setup, const Pictures* pictures)
      : lab_(*lab), setup_(*setup), pictures_(*pictures) {}

  Status Run() {
    lab_.plot().lines = setup_.errors;
    for (const Method& method : Methods()) {
      Rates rates{setup_.quick_rate, 1};
      if (!lab_.quick()) {
        TW_ASSIGN_OR_RETURN(rates, Tune(method));
      }
      TW_ASSIGN_OR_RETURN(Reported reported, Report(method, rates));
      all_.push_back(std::move(reported));
    }
    Compare();
    return OkStatus();
  }

 private:
  StatusOr<Curve> OneRun(const Method& method, const Rates& rates, const std::string& label,
                         Problem* problem, int64_t rounds, uint64_t seed, int64_t points) {
    LabRun run{.label = label, .seed = seed, .problem = problem, .rounds = rounds};
    run.settings = method.settings;
    run.settings.insert(run.settings.end(),
                        {absl::StrFormat("optimizer.lr=%g", rates.local),
                         absl::StrFormat("strategy.local_steps=%d", setup_.local_steps),
                         absl::StrFormat("strategy.global_lr=%g", rates.global),
                         absl::StrFormat("strategy.participation=%g", setup_.participation)});
    run.points = points;
    return lab_.Run(run);
  }

  StatusOr<std::unique_ptr<ImageProblem>> MakeProblem(uint64_t seed, bool tuning) {
    const auto deal = [&](std::span<const int32_t> labels) {
      return TwoClassClients(labels, setup_.num_clients, seed);
    };
    TW_ASSIGN_OR_RETURN(PictureSplit split, tuning ? SplitForTuning(pictures_, seed, deal)
                                                   : SplitForTest(pictures_, deal));
    split.evaluated.resize(std::min(split.evaluated.size(), static_cast<size_t>(setup_.evaluated)));
    return ImageProblem::Create(&pictures_.images, std::move(split.clients),
                                std::move(split.evaluated), setup_.network(&pictures_.images),
                                {.batch = setup_.batch, .seed = seed});
  }

  StatusOr<Rates> Tune(const Method& method) {
    TW_ASSIGN_OR_RETURN(const auto problem, MakeProblem(kTuningSeed, /*tuning=*/true));
    Rates best{setup_.quick_rate, 1};
    double least = 2;
    for (const double local : setup_.local_rates) {
      for (const double global : setup_.global_rates) {
        const std::string label =
            absl::StrFormat("%s, tuning %g x %g", method.label, local, global);
        TW_ASSIGN_OR_RETURN(const Curve curve,
                            OneRun(method, {local, global}, label, problem.get(),
                                   setup_.tuning_rounds, kTuningSeed, setup_.tuning_rounds / 10));
        const double error = curve.tail(0.3);
        if (error < least) {
          least = error;
          best = {local, global};
        }
      }
    }
    return best;
  }

  StatusOr<Reported> Report(const Method& method, const Rates& rates) {
    const bool at_edge =
        rates.local <= setup_.local_rates.front() || rates.local >= setup_.local_rates.back();
    Reported out;
    out.label = absl::StrFormat("%s (eta_l %g, eta_g %g%s)", method.label, rates.local,
                                rates.global, at_edge ? ", grid's edge" : "");
    out.megabytes_to.resize(setup_.errors.size());
    const int64_t rounds = lab_.quick() ? setup_.quick_rounds : setup_.rounds;
    for (const uint64_t seed : lab_.seeds(3)) {
      TW_ASSIGN_OR_RETURN(const auto problem, MakeProblem(seed, /*tuning=*/false));
      TW_ASSIGN_OR_RETURN(const Curve curve, OneRun(method, rates, method.label, problem.get(),
                                                    rounds, seed, lab_.quick() ? 4 : rounds / 20));
      out.accuracy.push_back(1 - curve.tail(5 / static_cast<double>(curve.points.size())));
      const auto& traffic = lab_.fleet().traffic();
      out.bytes_a_message.push_back(static_cast<double>(traffic.uplink_bytes) /
                                    static_cast<double>(std::max<int64_t>(1, traffic.messages)));
      out.dense_bytes = 4 * static_cast<double>(problem->parameters()[0].numel());
      for (size_t e = 0; e < setup_.errors.size(); ++e) {
        const CurvePoint* point = curve.Reaches(setup_.errors[e]);
        out.megabytes_to[e].push_back(point ? static_cast<double>(point->uplink_bytes) * 1e-6
                                            : std::numeric_limits<double>::infinity());
      }
    }
    return out;
  }

  void ReportOne(const Reported& r) {
    lab_.Report(r.label + ": accuracy, " + pictures_.name, r.accuracy);
    for (size_t e = 0; e < setup_.errors.size(); ++e) {
      const std::vector<double>& values = r.megabytes_to[e];
      const auto there =
          std::count_if(values.begin(), values.end(), [](double v) { return std::isfinite(v); });
      lab_.ReportMedian(
          absl::StrFormat("%s: uplink MB to %g %%, reached on %d of %d seeds", r.label,
                          100 * (1 - setup_.errors[e]), there, values.size()),
          values);
    }
  }

  void CompareAccuracy(const Reported& r, const std::string& misses) {
    std::vector<double> gaps;
    for (size_t s = 0; s < r.accuracy.size(); ++s) {
      gaps.push_back(all_[kScaffold].accuracy[s] - r.accuracy[s]);
    }
    lab_.Below(r.label + ": accuracy below SCAFFOLD's", gaps, setup_.margin);
    if (!lab_.claims().back().pass && !misses.empty()) lab_.DoesNotHoldHere(misses);
  }

  void Compare() {
    const auto saved = [&](const std::string& name, const Reported& r, double at_least) {
      std::vector<double> factors;
      for (const double bytes : r.bytes_a_message) factors.push_back(r.dense_bytes / bytes);
      lab_.Above(name + ": one dense vector / what is sent (SCAFFOLD's two: double)", factors,
                 at_least);
    };
    saved("SCALLION", all_[kScallion], 7);
    saved("SCAFCOM", all_[kScafcom], 60);
    for (const Reported& r : all_) ReportOne(r);
    if (lab_.quick()) return;  // neither tuned nor at its end
    CompareAccuracy(all_[kScafcom], setup_.scafcom_misses);
    CompareAccuracy(all_[kScallion], setup_.scallion_misses);
  }

  LabContext& lab_;
  const FederatedPictures& setup_;
  const Pictures& pictures_;
  std::vector<Reported> all_;  // by Place
};

}  // namespace

Status CompareOnPictures(LabContext& lab, const FederatedPictures& setup) {
  TW_ASSIGN_OR_RETURN(const Pictures pictures, ReadPictures(lab.images()));
  return Comparison(&lab, &setup, &pictures).Run();
}

}  // namespace tw
