// Error feedback on logistic regression whose clients see one label each, full gradients (Gao,
// Islamov, Stich, "EControl", ICLR 2024, arXiv 2311.05645, the logistic experiments; Richtarik,
// Sokolov, Fatkhullin, "EF21", arXiv 2106.05203).
//   8 clients of 100 rows sorted by label, x ~ N(0, I_100), labels turned by noise of 0.5 standard
//   deviations of <x, w>; l2 = 0.1, or 0.1 * sum x^2/(1 + x^2) in its place
//   top-k 10 %, step 0.25/L with L of f, EControl eta 0.02, 3000 rounds, x0 = 0, h0 = g0
//   top-k 1 %, EControl eta 0.002, 6000 rounds
//   the convex problem also with rows dealt out at random, and by Dirichlet(0.5) of each label: how
//   far each method gets there is told, and no claim is made
// Claims on |grad f(x)| / |grad f(x0)| at the end: EControl, EF21 and plain gradient descent reach
// rounding; EF14 stops at a floor; compression without memory goes nowhere. At 1/L EF21 and
// EControl stall if x is scaled by 1/sqrt(d), and on data that differ in class means EF14's floor
// is lower: the claims are about this generator.
// rows=FILE (LIBSVM, two classes) takes the place of the drawn rows and of the seeds. Where plain
// gradient descent is itself not at 1e-10 by then, as on real rows with the non-convex regulariser,
// EF21 and EControl must be within 1.1 of it: a threshold chosen after that had been seen. The
// floors of EF14 and of compression without memory are told there, not judged: they depend on how
// much labels tell of the rows (docs/references.md).

#include <algorithm>

#include "absl/strings/str_format.h"
#include "examples/convergence/problems/client_logistic.h"
#include "launch/lab/experiment.h"

namespace tw {
namespace {

using Settings = std::vector<std::string>;

struct Method {
  const char* label;
  Settings settings;
};

class LogisticHeterogeneous : public Experiment {
 public:
  ExperimentInfo info() const override {
    return {"Gao, Islamov, Stich: EControl, logistic regression with label-sorted clients",
            "2311.05645",
            {"convex and non-convex, top-k 10 %: GD, EF21, EControl: |grad| / |grad_0| < 1e-10",
             "EF14 > 1e-3, top-k without feedback > 0.1",
             "top-k 1 %, 6000 rounds: EF21 < 1e-10, EControl < 1e-5"},
            17};
  }

  Status Run(LabContext& lab) const override {
    TW_RETURN_IF_ERROR(TenPercent(lab, "convex", {.l2 = 0.1}));
    TW_RETURN_IF_ERROR(TenPercent(lab, "non-convex", {.nonconvex = 0.1}));
    TW_RETURN_IF_ERROR(OnePercent(lab));
    return OtherSplits(lab);
  }

 private:
  // Data of the user's are the same for every seed, and nothing here is random but the drawn rows.
  static std::vector<uint64_t> Seeds(LabContext& lab) {
    const std::vector<uint64_t> seeds = lab.seeds();
    return lab.rows().empty() ? seeds : std::vector<uint64_t>{1};
  }

  // |grad f| at the end over that at the start, one a seed.
  static StatusOr<std::vector<double>> Ratios(LabContext& lab, const std::string& label,
                                              const Settings& settings,
                                              const LogisticOptions& options, int64_t rounds,
                                              const std::string& split = "by_label") {
    std::vector<double> out;
    for (const uint64_t seed : Seeds(lab)) {
      TW_ASSIGN_OR_RETURN(
          const auto problem,
          ClientLogistic({.file = lab.rows(), .seed = seed, .split = split}, options));
      LabRun run{.label = label, .seed = seed, .problem = problem.get(), .rounds = rounds};
      run.settings = settings;
      run.settings.push_back(absl::StrFormat("optimizer.lr=%.17g", 0.25 / problem->Smoothness()));
      TW_ASSIGN_OR_RETURN(const Curve curve, lab.Run(run));
      out.push_back(curve.last() / curve.points[0].y[0]);
    }
    return out;
  }

  static Status TenPercent(LabContext& lab, const std::string& kind,
                           const LogisticOptions& options) {
    const Settings topk = {"compressor.name=topk", "compressor.ratio=0.1"};
    const auto with = [&](const Settings& more) {
      Settings all = topk;
      all.insert(all.end(), more.begin(), more.end());
      return all;
    };
    const std::vector<Method> converge = {
        {"GD", {}},
        {"EF21", with({"feedback.name=ef21"})},
        {"EControl", with({"feedback.name=econtrol", "feedback.eta=0.02"})}};
    double limit = 1e-10;
    for (const Method& m : converge) {
      TW_ASSIGN_OR_RETURN(const auto ratios, Ratios(lab, std::string(m.label) + ", " + kind,
                                                    m.settings, options, 3000));
      const std::string claim = kind + ", " + m.label + ": |grad| / |grad_0|";
      if (lab.rows().empty() || &m != &converge.front()) {
        lab.Below(claim, ratios, limit);
      } else {
        lab.Report(claim, ratios);
        limit = std::max(limit, 1.1 * ratios[0]);
      }
    }
    TW_ASSIGN_OR_RETURN(const auto ef14,
                        Ratios(lab, "EF14, " + kind, with({"feedback.name=ef14"}), options, 3000));
    Floor(lab, kind + ", EF14: |grad| / |grad_0|", ef14, 1e-3);
    TW_ASSIGN_OR_RETURN(const auto naive, Ratios(lab, "top-k, " + kind, topk, options, 3000));
    Floor(lab, kind + ", top-k without feedback: |grad| / |grad_0|", naive, 0.1);
    return OkStatus();
  }

  static void Floor(LabContext& lab, const std::string& claim, const std::vector<double>& ratios,
                    double above) {
    lab.rows().empty() ? lab.Above(claim, ratios, above) : lab.Report(claim, ratios);
  }

  static Status OnePercent(LabContext& lab) {
    const Settings topk = {"compressor.name=topk", "compressor.ratio=0.01"};
    Settings ef21 = topk, econtrol = topk;
    ef21.push_back("feedback.name=ef21");
    econtrol.insert(econtrol.end(), {"feedback.name=econtrol", "feedback.eta=0.002"});
    TW_ASSIGN_OR_RETURN(const auto a, Ratios(lab, "EF21, top-k 1 %", ef21, {.l2 = 0.1}, 6000));
    lab.Below("top-k 1 %, EF21: |grad| / |grad_0|", a, 1e-10);
    TW_ASSIGN_OR_RETURN(const auto b,
                        Ratios(lab, "EControl, top-k 1 %", econtrol, {.l2 = 0.1}, 6000));
    lab.Below("top-k 1 %, EControl: |grad| / |grad_0|", b, 1e-5);
    return OkStatus();
  }

  static Status OtherSplits(LabContext& lab) {
    for (const char* split : {"iid", "dirichlet"}) {
      for (const auto& [name, feedback] : {std::pair{"top-k", "none"},
                                           {"EF14", "ef14"},
                                           {"EF21", "ef21"},
                                           {"EControl", "econtrol"}}) {
        Settings settings = {"compressor.name=topk", "compressor.ratio=0.1",
                             std::string("feedback.name=") + feedback};
        if (std::string(name) == "EControl") settings.push_back("feedback.eta=0.02");
        const std::string label = absl::StrFormat("%s, %s clients", name, split);
        TW_ASSIGN_OR_RETURN(const auto ratios,
                            Ratios(lab, label, settings, {.l2 = 0.1}, 3000, split));
        lab.Report(label + ": |grad| / |grad_0|", ratios);
      }
    }
    return OkStatus();
  }
};

StatusOr<std::unique_ptr<Experiment>> Create(const NoConfig&) {
  return std::make_unique<LogisticHeterogeneous>();
}

TW_REGISTER(Experiment, logistic_heterogeneous, 0, NoConfig, Create,
            "EControl, EF21, EF14 and GD on logistic regression with label-sorted clients");

}  // namespace
}  // namespace tw
