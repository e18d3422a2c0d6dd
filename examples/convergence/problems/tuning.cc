#include "examples/convergence/problems/tuning.h"

#include <cmath>
#include <limits>

#include "absl/strings/str_format.h"

namespace tw {
namespace {

// NaN, of runs that have diverged, never passes.
bool JudgeMean(LabContext& lab, const std::string& claim, std::span<const double> a,
               std::span<const double> b, const std::string& threshold,
               const std::function<bool(double)>& holds) {
  const double ratio = Mean(a) / Mean(b);
  lab.Add({.claim = claim,
           .measured = ratio,
           .threshold = threshold,
           .pass = holds(ratio),
           .seeds = static_cast<int>(a.size()),
           .values = Over(a, b)});
  return holds(ratio);
}

}  // namespace

std::string TunedRate::Note(size_t grid_size) const {
  std::string note = absl::StrFormat("lr %g", rate);
  if (at_edge) note += " at the grid's edge";
  if (diverged > 0) note += absl::StrFormat(", %d of %d diverged", diverged, grid_size);
  return note;
}

std::string TuningLabel(const std::string& label, double rate) {
  const size_t comma = label.find(", ");
  const std::string variant = comma == std::string::npos ? "" : " at " + label.substr(comma + 2);
  return absl::StrFormat("%s, tuning %g%s", label.substr(0, comma), rate, variant);
}

StatusOr<TunedRate> TuneRate(std::span<const double> grid,
                             const std::function<StatusOr<double>(double rate)>& score) {
  TunedRate best{grid[0], std::numeric_limits<double>::infinity(), true, 0};
  for (size_t i = 0; i < grid.size(); ++i) {
    TW_ASSIGN_OR_RETURN(const double value, score(grid[i]));
    if (!std::isfinite(value)) {
      ++best.diverged;
    } else if (value < best.score) {
      best.rate = grid[i];
      best.score = value;
      best.at_edge = i == 0 || i + 1 == grid.size();
    }
  }
  return best;
}

StatusOr<TunedRuns> TrainTuned(LabContext& lab, const TunedTraining& method) {
  const auto once = [&](double rate, uint64_t seed, const std::string& label) {
    LabTraining training{.label = label, .seed = seed, .ranks = method.ranks};
    training.settings = method.settings;
    training.settings.push_back(absl::StrFormat("optimizer.lr=%g", rate));
    return lab.Train(training);
  };
  TunedRuns out;
  out.rate.rate = method.untuned;
  if (!lab.quick()) {
    TW_ASSIGN_OR_RETURN(out.rate, TuneRate(method.grid, [&](double rate) -> StatusOr<double> {
                          double sum = 0;
                          for (int i = 0; i < method.tuning_seeds; ++i) {
                            const uint64_t seed = kTuningSeed + static_cast<uint64_t>(i);
                            TW_ASSIGN_OR_RETURN(const Trained run,
                                                once(rate, seed, TuningLabel(method.label, rate)));
                            sum += method.loss(run.curve);
                          }
                          return sum / method.tuning_seeds;
                        }));
  }
  for (const uint64_t seed : lab.seeds(method.seeds)) {
    TW_ASSIGN_OR_RETURN(Trained run, once(out.rate.rate, seed, method.label));
    out.losses.push_back(method.loss(run.curve));
    out.runs.push_back(std::move(run));
  }
  const std::string note = lab.quick() ? absl::StrFormat("lr %g, untuned", method.untuned)
                                       : out.rate.Note(method.grid.size());
  lab.Report(method.label + " (" + note + "): final loss", out.losses);
  return out;
}

double Mean(std::span<const double> values) {
  double sum = 0;
  for (const double v : values) sum += v;
  return sum / static_cast<double>(values.size());
}

std::vector<double> Over(std::span<const double> a, std::span<const double> b) {
  std::vector<double> out;
  for (size_t s = 0; s < a.size(); ++s) out.push_back(a[s] / b[s]);
  return out;
}

bool MeanBelow(LabContext& lab, const std::string& claim, std::span<const double> a,
               std::span<const double> b, double limit) {
  return JudgeMean(lab, claim, a, b, absl::StrFormat("< %g", limit),
                   [&](double ratio) { return ratio < limit; });
}

bool MeanAbove(LabContext& lab, const std::string& claim, std::span<const double> a,
               std::span<const double> b, double limit) {
  return JudgeMean(lab, claim, a, b, absl::StrFormat("> %g", limit),
                   [&](double ratio) { return ratio > limit; });
}

}  // namespace tw
