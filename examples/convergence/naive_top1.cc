// Compression without memory can diverge on three quadratics in three dimensions (Beznosikov,
// Horvath, Richtarik, Safaryan, "On Biased Compression for Distributed Learning", arXiv 2002.12410,
// the first example).
//   f_i(x) = <a_i, x>^2 + 1/4 |x|^2,  a = (-3, 2, 2), (2, -3, 2), (2, 2, -3),  x0 = (1, 1, 1)
// At x = (c, c, c) top-1 of each gradient is the coordinate that points the wrong way: a step
// multiplies x by exactly 1 + 11 gamma / 6. Claims: it does; EF14, EF21 and EControl converge.

#include <algorithm>
#include <array>
#include <cmath>

#include "core/api/problem.h"
#include "launch/lab/experiment.h"

namespace tw {
namespace {

class ThreeQuadratics : public VectorProblem {
 public:
  ThreeQuadratics() : VectorProblem(3, 3) {}
  std::vector<std::string> metrics() const override { return {"distance"}; }

 protected:
  void Start(std::span<double> x) override { std::fill(x.begin(), x.end(), 1.0); }
  StatusOr<double> Gradient(const GradientCall& call, std::span<const double> x,
                            std::span<double> out) override {
    std::array<double, 3> a = {2, 2, 2};
    a[static_cast<size_t>(call.client)] = -3;
    double product = 0, square = 0;
    for (size_t k = 0; k < 3; ++k) {
      product += a[k] * x[k];
      square += x[k] * x[k];
    }
    for (size_t k = 0; k < 3; ++k) out[k] = 2 * product * a[k] + 0.5 * x[k];
    return product * product + 0.25 * square;
  }
  Status Measure(std::span<const double> x, std::span<double> out) override {
    out[0] = std::sqrt(x[0] * x[0] + x[1] * x[1] + x[2] * x[2]);
    return OkStatus();
  }
};

class NaiveTop1 : public Experiment {
 public:
  ExperimentInfo info() const override {
    return {"Beznosikov et al.: On biased compression, example 1",
            "2002.12410",
            {"top-1 without feedback: |x_10| / sqrt 3 = (1 + 11 gamma / 6)^10 to 1e-9",
             "EF14, EF21, EControl (eta = 0.1): |x| < 1e-20 after 3000 rounds"},
            1};
  }

  // Nothing here is random: one run says all.
  Status Run(LabContext& lab) const override {
    ThreeQuadratics problem;
    const auto run = [&](const std::string& label, const std::string& step, int64_t rounds,
                         std::vector<std::string> settings) {
      settings.insert(settings.end(),
                      {"optimizer.lr=" + step, "compressor.name=topk", "compressor.ratio=0.3333"});
      return lab.Run(
          {.label = label, .problem = &problem, .rounds = rounds, .settings = std::move(settings)});
    };
    TW_ASSIGN_OR_RETURN(const Curve naive, run("naive", "0.05", 10, {"feedback.name=none"}));
    lab.Below("naive: | |x_10| / sqrt 3 - (1 + 11 gamma / 6)^10 |",
              {std::abs(naive.last() / std::sqrt(3.0) - std::pow(1 + 11 * 0.05 / 6, 10))}, 1e-9);
    lab.DoesNotHoldHere("messages are fp32 on the wire: ten steps round by 2^-24 each");
    for (const char* step : {"0.05", "0.02"}) {
      for (const char* feedback : {"ef14", "ef21", "econtrol"}) {
        const std::string label = std::string(feedback) + ", step " + step;
        std::vector<std::string> settings = {std::string("feedback.name=") + feedback};
        if (std::string(feedback) == "econtrol") settings.push_back("feedback.eta=0.1");
        TW_ASSIGN_OR_RETURN(const Curve curve, run(label, step, 3000, std::move(settings)));
        lab.Below(label + ": |x| after 3000 rounds", {curve.last()}, 1e-20);
        if (std::string(feedback) != "ef14") {
          lab.DoesNotHoldHere(
              "H is a running sum in fp64: what it rounded while it was of size 1 stays in it");
        }
      }
    }
    return OkStatus();
  }
};

StatusOr<std::unique_ptr<Experiment>> Create(const NoConfig&) {
  return std::make_unique<NaiveTop1>();
}

TW_REGISTER(Experiment, naive_top1, 0, NoConfig, Create,
            "top-1 without memory diverges where every feedback converges");

}  // namespace
}  // namespace tw
