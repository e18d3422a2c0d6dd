// Compressed differences reach the solution, compressed gradients do not (Mishchenko, Gorbunov,
// Takac, Richtarik, "DIANA", arXiv 1901.09269; Gorbunov, Burlachenko, Li, Richtarik, "MARINA",
// arXiv 2102.07845).
//   f_i(x) = a_i/2 |x - b_i|^2, 8 clients, d = 100, a_i evenly from 0.2 to 2, b_i ~ N(0, I), x0 = 0
//   rand-k 10 %, unbiased, each client its own indices: omega = 9
//   L = max a_i; DIANA and DCGD: step 1/(L (1 + 6 omega/n)), DIANA with alpha = 1/(1 + omega), h0 =
//   g0; MARINA: p = 0.1, step 1/(L (1 + sqrt(omega (1-p) / (n p))))
// Claims: rounds until |x - x*| / |x0 - x*| is at most 1e-10; DCGD, which compresses gradients
// themselves, stays at a floor that clients' gradients at x* set. Steps are those of the theory,
// not tuned.

#include <cmath>

#include "absl/strings/str_format.h"
#include "examples/convergence/problems/quadratics.h"
#include "launch/lab/experiment.h"

namespace tw {
namespace {

constexpr int kClients = 8;
constexpr double kOmega = 9, kDense = 0.1, kTarget = 1e-10;

class DianaMarina : public Experiment {
 public:
  ExperimentInfo info() const override {
    return {"Mishchenko et al.: DIANA; Gorbunov et al.: MARINA; quadratics, rand-k 10 %",
            "1901.09269, 2102.07845",
            {"DIANA: relative error 1e-10 in < 1000 rounds", "MARINA: in < 600 rounds",
             "DCGD: relative error > 0.05 after 6000 rounds"},
            1};
  }

  Status Run(LabContext& lab) const override {
    std::vector<double> diana_rounds, marina_rounds, diana_floats, marina_floats, dcgd;
    for (const uint64_t seed : lab.seeds(5)) {
      std::vector<double> curvatures;
      for (int i = 0; i < kClients; ++i) curvatures.push_back(0.2 + 1.8 * i / (kClients - 1));
      Quadratics problem({.num_clients = kClients,
                          .dimension = 100,
                          .zeta = 1,
                          .curvatures = curvatures,
                          .seed = seed});
      const double L = problem.Lmax();
      const double careful = 1 / (L * (1 + 6 * kOmega / kClients));
      const double marina_step =
          1 / (L * (1 + std::sqrt(kOmega * (1 - kDense) / (kClients * kDense))));
      const auto run = [&](const std::string& label, double step, int64_t rounds,
                           const std::string& method) {
        LabRun r{.label = label, .seed = seed, .problem = &problem, .rounds = rounds};
        r.settings = {absl::StrFormat("optimizer.lr=%.17g", step), "compressor.name=randk",
                      "compressor.ratio=0.1", "compressor.mode=unbiased", "compressor.indices=own"};
        if (!method.empty()) r.settings.push_back(method);
        if (label == "MARINA") {
          r.settings.push_back(absl::StrFormat("strategy.dense_probability=%g", kDense));
        }
        r.points = rounds;  // rounds and bytes to the target are exact
        return lab.Run(r);
      };
      TW_ASSIGN_OR_RETURN(const Curve diana, run("DIANA", careful, 1000, "feedback.name=diana"));
      TW_ASSIGN_OR_RETURN(const Curve marina,
                          run("MARINA", marina_step, 600, "strategy.name=marina"));
      TW_ASSIGN_OR_RETURN(const Curve plain, run("DCGD", careful, 6000, ""));
      NoteTarget(diana, &diana_rounds, &diana_floats);
      NoteTarget(marina, &marina_rounds, &marina_floats);
      dcgd.push_back(plain.last() / plain.points[0].y[0]);
    }
    lab.Below("DIANA: rounds to relative error 1e-10", diana_rounds, 1000);
    lab.Below("MARINA: rounds to relative error 1e-10", marina_rounds, 600);
    lab.Above("DCGD: relative error after 6000 rounds", dcgd, 0.05);
    lab.Report("DIANA: numbers a client has sent by then", diana_floats);
    lab.Report("MARINA: numbers a client has sent by then", marina_floats);
    return OkStatus();
  }

 private:
  // Infinities when it was not reached. Indices are drawn by whoever decodes: all that is sent is
  // numbers of 4 bytes.
  static void NoteTarget(const Curve& curve, std::vector<double>* rounds,
                         std::vector<double>* floats) {
    const CurvePoint* const at = curve.Reaches(kTarget * curve.points[0].y[0]);
    rounds->push_back(at ? static_cast<double>(at->round) : INFINITY);
    floats->push_back(at ? static_cast<double>(at->uplink_bytes) / (4 * kClients) : INFINITY);
  }
};

StatusOr<std::unique_ptr<Experiment>> Create(const NoConfig&) {
  return std::make_unique<DianaMarina>();
}

TW_REGISTER(Experiment, diana_marina, 0, NoConfig, Create,
            "compressed differences, DIANA's and MARINA's, against compressed gradients");

}  // namespace
}  // namespace tw
