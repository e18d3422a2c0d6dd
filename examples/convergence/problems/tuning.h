#pragma once
// A step size from a grid, for experiments that compare methods: every method gets the same grid
// and the same budget, on a seed that is not reported.

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "launch/lab/experiment.h"
#include "launch/lab/lab_training.h"

namespace tw {

// Apart from those of lab.seeds().
inline constexpr uint64_t kTuningSeed = 1001;

struct TunedRate {
  double rate = 0;       // the best; of equals the smaller
  double score = 0;      // infinite when all have diverged
  bool at_edge = false;  // the best may lie beyond the grid
  int diverged = 0;      // of the grid

  // "lr 0.1", "lr 0.3 at the grid's edge, 1 of 5 diverged".
  std::string Note(size_t grid_size) const;
};

// Of a run of `label` while it is tuned: "METHOD, tuning 0.1", plus the variant where it has one.
std::string TuningLabel(const std::string& label, double rate);

// score: the lower the better; infinite or NaN where it has diverged. The grid ascends.
StatusOr<TunedRate> TuneRate(std::span<const double> grid,
                             const std::function<StatusOr<double>(double rate)>& score);

// A setting that is tuned beside the rate: every one with every rate.
struct TunedChoice {
  std::string note;
  std::vector<std::string> settings;
};

// A method of a comparison by lab.Train.
struct TunedTraining {
  std::string label;                  // as LabRun's
  std::vector<std::string> settings;  // all but optimizer.lr
  int ranks = 4;
  std::span<const double> grid;              // of optimizer.lr
  double untuned = 0.1;                      // in a quick run, which does not tune
  std::vector<TunedChoice> choices;          // none: the rate alone; a quick run has the first
  int tuning_seeds = 1;                      // kTuningSeed and those after it; their mean counts
  int seeds = 1;                             // at least so many are reported, as lab.seeds()
  std::function<double(const Curve&)> loss;  // the final one: what is tuned and reported
};
struct TunedRuns {
  TunedRate rate;              // of the best choice
  std::vector<Trained> runs;   // one a seed
  std::vector<double> losses;  // theirs
};

// Tunes the rate, trains with lab.seeds(), and reports what came out.
StatusOr<TunedRuns> TrainTuned(LabContext& lab, const TunedTraining& method);

double Mean(std::span<const double> values);
// a[s] / b[s].
std::vector<double> Over(std::span<const double> a, std::span<const double> b);

// Claims on the mean over seeds of a[s] / b[s]. True when it holds.
bool MeanBelow(LabContext& lab, const std::string& claim, std::span<const double> a,
               std::span<const double> b, double limit);
bool MeanAbove(LabContext& lab, const std::string& claim, std::span<const double> a,
               std::span<const double> b, double limit);

}  // namespace tw
