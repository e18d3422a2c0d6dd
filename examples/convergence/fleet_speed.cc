// What the lab itself costs: many clients, a long sparse model, one gradient a message.
//   200 clients x d = 100,000, at most 100 non-zeros a row, 64 rows a client, batch 32, K = 1,
//   SCAFCOM with top-k 1 %, all clients in every round, fp64
// Client-rounds a second of one core's time (a client's gradient, message, encoding and the adding
// up of it), and memory: all tensors of the fleet over the states that the algorithm defines, which
// are c_i and v_i of every client, c and x. The rows themselves are not counted.

#include <ctime>

#include "core/data/random_rows.h"
#include "examples/convergence/problems/logistic.h"
#include "launch/lab/experiment.h"

namespace tw {
namespace {

constexpr int kClients = 200;
constexpr int64_t kDimension = 100000;

// Seconds that all threads of the process have had a core.
double CpuSeconds() {
  timespec t;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

class FleetSpeed : public Experiment {
 public:
  ExperimentInfo info() const override {
    return {"The lab: speed and memory of many clients",
            "",
            {"200 clients x d = 1e5, sparse, batch 32, K = 1: > 200 client-rounds a second a core",
             "memory / states the algorithm defines < 1.1"},
            15,
            /*alone=*/true};
  }

  Status Run(LabContext& lab) const override {
    TW_ASSIGN_OR_RETURN(const auto problem,
                        LogisticProblem::Create(RandomSparseRows(1, 64 * kClients, kDimension, 100),
                                                ShardOptions{.world_size = kClients},
                                                LogisticOptions{.l2 = 1e-3, .batch = 32}));
    // The first rounds make the states; the second run of the same length and a longer one differ
    // in rounds alone.
    const int64_t short_run = 2, long_run = lab.quick() ? 7 : 22;
    std::vector<double> seconds;
    for (const int64_t rounds : {short_run, long_run}) {
      const double start = CpuSeconds();
      TW_RETURN_IF_ERROR(lab.Run({.label = "scafcom, " + std::to_string(rounds) + " rounds",
                                  .problem = problem.get(),
                                  .rounds = rounds,
                                  .settings = {"strategy.name=scafcom", "strategy.local_steps=1",
                                               "compressor.name=topk", "compressor.ratio=0.01",
                                               "optimizer.lr=0.1"},
                                  .points = 1})
                             .status());
      seconds.push_back(CpuSeconds() - start);
    }
    const double client_rounds = static_cast<double>(kClients * (long_run - short_run)) /
                                 static_cast<double>(lab.comm().size());
    lab.Above("client-rounds a second of a core", {client_rounds / (seconds[1] - seconds[0])}, 200);
    const double mine = static_cast<double>(kClients) / lab.comm().size();
    const double defined = (2 * mine + 2) * static_cast<double>(kDimension) * sizeof(double);
    lab.Below("memory of tensors / states defined",
              {static_cast<double>(lab.fleet().memory_bytes()) / defined}, 1.1);
    return OkStatus();
  }
};

StatusOr<std::unique_ptr<Experiment>> Create(const NoConfig&) {
  return std::make_unique<FleetSpeed>();
}

TW_REGISTER(Experiment, fleet_speed, 0, NoConfig, Create,
            "what the lab costs: 200 clients of a sparse model of 100,000 numbers");

}  // namespace
}  // namespace tw
