// MASHA1 and MASHA2 on a bilinear saddle point with clients that disagree (Beznosikov, Richtarik,
// Diskin, Ryabinin, Gasnikov, NeurIPS 2022, arXiv 2110.03313, the first experiment).
//   10 clients, 50 + 50 numbers, lambda 0.1 (problems/saddle.h), rand-k and top-k 10 %, tau 0.9, z0
//   = 0, 10000 rounds; L of the mean operator, L_max the largest of the clients'
//   extragradient 0.9 / L;  optimistic gradient 0.45 / L
//   MASHA1   twice its bound, sqrt(p) / (L sqrt(q_s (q/M + 1))): at the bound itself it is no
//   better
//            than extragradient. Each client draws its own indices, which the bound assumes
//   MASHA2   sqrt(p) / L_max, which is far above its theory
//   what has no reference point (rand-k extragradient, quantized SGDA, EF-SGDA) takes the best of
//   eight steps c / L on a seed of its own; with --quick 0.01 / L, which was so found
// Claims: both reach 1e-8 with fewer bytes up than extragradient, on a straight line in log error;
// rand-k extragradient, quantized SGDA and EF-SGDA stall above 0.1. The last two stall lower than
// that at the best step of the grid: those rows say so, beside a weaker claim of 1e-3. Bytes down
// are dense but for "server" runs, and with them MASHA1 loses. A server that sends top-k 25 % does
// not get there at MASHA2's step: natural, 9 bits a number, takes its place.

#include <cmath>
#include <limits>

#include "absl/strings/str_format.h"
#include "examples/convergence/problems/saddle.h"
#include "launch/lab/experiment.h"

namespace tw {
namespace {

using Settings = std::vector<std::string>;

constexpr double kTarget = 1e-8, kP = 0.1;
constexpr uint64_t kTuningSeed = 101;
constexpr double kInfinity = std::numeric_limits<double>::infinity();

const Settings kRandK = {"compressor.name=randk", "compressor.ratio=0.1",
                         "compressor.mode=unbiased", "compressor.indices=own"};
const Settings kTopK = {"compressor.name=topk", "compressor.ratio=0.1", "feedback.name=ef14"};

Settings operator+(Settings a, const Settings& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

// How far, and what it took until kTarget.
struct Score {
  double last = kInfinity;
  double rounds = kInfinity, uplink = kInfinity, total = kInfinity;  // dense vectors a client
  double straight = kInfinity;  // rounds of the second four decades over those of the first four
};

class MashaBilinear : public Experiment {
 public:
  ExperimentInfo info() const override {
    return {"Beznosikov, Richtarik, Diskin, Ryabinin, Gasnikov: MASHA, bilinear saddle point",
            "2110.03313",
            {"MASHA1, MASHA2: relative error 1e-8 in < 10000 rounds, log-linear",
             "MASHA1, MASHA2: fewer bytes up than extragradient",
             "rand-k extragradient, quantized SGDA, EF-SGDA stall > 0.1 (and > 1e-3)",
             "MASHA1: more bytes in total than extragradient, fewer when the server compresses"},
            70};
  }

  Status Run(LabContext& lab) const override {
    std::vector<Score> eg, ogda, masha1, masha2, server1, server2;
    for (const uint64_t seed : lab.seeds(5)) {
      Saddle problem({.seed = seed});
      const double l = problem.L(), most = problem.MaxL();
      const auto run = [&](const std::string& label, double lr, const Settings& settings,
                           std::vector<Score>* to, const Settings& server = {}) -> Status {
        const bool fast = label == "extragradient" || label == "OGDA";
        const int64_t rounds = fast ? 2000 : lab.quick() ? 5000 : kRounds;
        TW_ASSIGN_OR_RETURN(const Score score,
                            OneRun(lab, &problem, label, seed, lr, settings, server, rounds));
        to->push_back(score);
        return OkStatus();
      };
      const auto bound = [&](double q, double server_q) {
        return std::sqrt(kP) / (l * std::sqrt(server_q * (q / 10 + 1)));
      };
      const Settings one = kRandK + Settings{"strategy.name=masha1"};
      const Settings two = kTopK + Settings{"strategy.name=masha2"};
      TW_RETURN_IF_ERROR(run("extragradient", 0.9 / l, {"strategy.name=extragradient"}, &eg));
      TW_RETURN_IF_ERROR(run("OGDA", 0.45 / l, {"strategy.name=ogda"}, &ogda));
      TW_RETURN_IF_ERROR(run("MASHA1", bound(10, 1), one, &masha1));
      TW_RETURN_IF_ERROR(run("MASHA2", std::sqrt(kP) / most, two, &masha2));
      // 15 levels of the norm of 100 numbers: omega = 1/9, 5 bits a number.
      TW_RETURN_IF_ERROR(run("MASHA1, server qsgd", bound(10, 10.0 / 9), one, &server1,
                             {"compressor.name=qsgd", "compressor.levels=15"}));
      TW_RETURN_IF_ERROR(run("MASHA2, server natural", std::sqrt(kP) / most, two, &server2,
                             {"compressor.name=natural", "feedback.name=ef14"}));
    }
    TW_RETURN_IF_ERROR(Stall(lab));

    const auto over = [&](const std::vector<Score>& a, const std::vector<Score>& b,
                          double Score::*what) {
      std::vector<double> out;
      for (size_t s = 0; s < a.size(); ++s) out.push_back(a[s].*what / b[s].*what);
      return out;
    };
    for (const auto& [label, scores] : {std::pair{"MASHA1", &masha1}, {"MASHA2", &masha2}}) {
      const std::string name = label;
      lab.Below(name + ": rounds to 1e-8", All(*scores, &Score::rounds), kRounds);
      lab.Below(name + ": bytes up to 1e-8 / extragradient's", over(*scores, eg, &Score::uplink),
                1);
      lab.Within(name + ": rounds from 1e-4 to 1e-8 / from 1 to 1e-4",
                 All(*scores, &Score::straight), 0.5, 2);
    }
    lab.Above("MASHA1: bytes up and down / extragradient's", over(masha1, eg, &Score::total), 1);
    lab.Below("MASHA1, server qsgd: bytes up and down / extragradient's",
              over(server1, eg, &Score::total), 1);
    const std::vector<std::pair<std::string, const std::vector<Score>*>> all = {
        {"extragradient", &eg},
        {"OGDA", &ogda},
        {"MASHA1", &masha1},
        {"MASHA2", &masha2},
        {"MASHA1, server qsgd", &server1},
        {"MASHA2, server natural", &server2}};
    for (const auto& [label, scores] : all) {
      lab.Report(label + ": dense vectors up to 1e-8", All(*scores, &Score::uplink));
      lab.Report(label + ": dense vectors up and down", All(*scores, &Score::total));
    }
    return OkStatus();
  }

 private:
  static constexpr int64_t kRounds = 10000;

  static StatusOr<Score> OneRun(LabContext& lab, Saddle* problem, const std::string& label,
                                uint64_t seed, double lr, const Settings& settings,
                                const Settings& server, int64_t rounds) {
    LabRun run{.label = label, .seed = seed, .problem = problem, .rounds = rounds};
    run.settings = settings + Settings{absl::StrFormat("optimizer.lr=%.17g", lr)};
    run.server = server;
    run.points = rounds / 5;
    TW_ASSIGN_OR_RETURN(const Curve curve, lab.Run(run));
    Score score;
    score.last = curve.last();
    const CurvePoint *middle = curve.Reaches(1e-4), *end = curve.Reaches(kTarget);
    if (!end) return score;
    const double vector = 4.0 * 100 * problem->num_clients();
    score.rounds = static_cast<double>(end->round);
    score.uplink = static_cast<double>(end->uplink_bytes) / vector;
    score.total = static_cast<double>(end->total_bytes) / vector;
    score.straight =
        static_cast<double>(end->round - middle->round) / static_cast<double>(middle->round);
    return score;
  }

  // Methods without a reference point: at their best step they do not get there.
  static Status Stall(LabContext& lab) {
    struct Method {
      const char* label;
      Settings settings;
      bool lower = false;  // known to stall below 0.1
    };
    const std::vector<Method> methods = {
        {"rand-k extragradient", kRandK + Settings{"strategy.name=extragradient"}},
        {"quantized SGDA", {"compressor.name=qsgd", "compressor.levels=15"}, true},
        {"EF-SGDA", kTopK, true}};
    const std::vector<double> grid = {0.9, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0003};
    for (const Method& method : methods) {
      double best = grid[0], least = kInfinity;
      Saddle tuning({.seed = kTuningSeed});
      for (const double c : lab.quick() ? std::vector<double>{0.01} : grid) {
        TW_ASSIGN_OR_RETURN(
            const Score score,
            OneRun(lab, &tuning, absl::StrFormat("%s, tuning %g / L", method.label, c), kTuningSeed,
                   c / tuning.L(), method.settings, {}, kRounds));
        if (score.last >= least) continue;
        least = score.last;
        best = c;
      }
      const bool edge = best == grid.front() || best == grid.back();
      std::vector<double> last;
      for (const uint64_t seed : lab.seeds(5)) {
        Saddle problem({.seed = seed});
        TW_ASSIGN_OR_RETURN(const Score score,
                            OneRun(lab, &problem, method.label, seed, best / problem.L(),
                                   method.settings, {}, kRounds));
        last.push_back(score.last);
      }
      const std::string claim = absl::StrFormat("%s (step %g / L%s): relative error", method.label,
                                                best, edge ? ", grid's edge" : "");
      lab.Above(claim, last, 1e-3);
      lab.Above(claim, last, 0.1);
      if (method.lower) {
        lab.DoesNotHoldHere("at the best of eight steps it stalls lower, at the level measured");
      }
    }
    return OkStatus();
  }

  static std::vector<double> All(const std::vector<Score>& scores, double Score::*what) {
    std::vector<double> out;
    for (const Score& s : scores) out.push_back(s.*what);
    return out;
  }
};

StatusOr<std::unique_ptr<Experiment>> Create(const NoConfig&) {
  return std::make_unique<MashaBilinear>();
}

TW_REGISTER(Experiment, masha_bilinear, 0, NoConfig, Create,
            "MASHA1 and MASHA2 against extragradient, OGDA and SGDA on a bilinear saddle point");

}  // namespace
}  // namespace tw
