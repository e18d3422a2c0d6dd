#include "examples/convergence/problems/tuning.h"

#include <cmath>
#include <limits>

#include "absl/strings/str_format.h"

namespace tw {

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
  std::vector<TunedChoice> choices = method.choices;
  if (choices.empty()) choices.emplace_back();
  const auto once = [&](const TunedChoice& choice, double rate, uint64_t seed,
                        const std::string& label) {
    LabTraining training{.label = label, .seed = seed, .ranks = method.ranks};
    training.settings = method.settings;
    training.settings.insert(training.settings.end(), choice.settings.begin(),
                             choice.settings.end());
    training.settings.push_back(absl::StrFormat("optimizer.lr=%g", rate));
    return lab.Train(training);
  };
  TunedRuns out;
  const TunedChoice* best = &choices[0];
  out.rate = {.rate = method.untuned, .score = std::numeric_limits<double>::infinity()};
  int diverged = 0;
  for (const TunedChoice& choice : choices) {
    if (lab.quick()) break;
    const auto score = [&](double rate) -> StatusOr<double> {
      double sum = 0;
      for (int i = 0; i < method.tuning_seeds; ++i) {
        std::string label = TuningLabel(method.label, rate);
        if (!choice.note.empty()) label += " with " + choice.note;
        TW_ASSIGN_OR_RETURN(const Trained run,
                            once(choice, rate, kTuningSeed + static_cast<uint64_t>(i), label));
        sum += method.loss(run.curve);
      }
      return sum / method.tuning_seeds;
    };
    TW_ASSIGN_OR_RETURN(const TunedRate tuned, TuneRate(method.grid, score));
    diverged += tuned.diverged;
    if (&choice != &choices[0] && !(tuned.score < out.rate.score)) continue;
    out.rate = tuned;
    best = &choice;
  }
  out.rate.diverged = diverged;
  for (const uint64_t seed : lab.seeds(method.seeds)) {
    TW_ASSIGN_OR_RETURN(Trained run, once(*best, out.rate.rate, seed, method.label));
    out.losses.push_back(method.loss(run.curve));
    out.runs.push_back(std::move(run));
  }
  std::string note = lab.quick() ? absl::StrFormat("lr %g, untuned", method.untuned)
                                 : out.rate.Note(method.grid.size() * choices.size());
  if (!best->note.empty()) note += ", " + best->note;
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
  lab.Below(claim, Over(a, b), limit);
  return lab.claims().back().pass;
}

bool MeanAbove(LabContext& lab, const std::string& claim, std::span<const double> a,
               std::span<const double> b, double limit) {
  lab.Above(claim, Over(a, b), limit);
  return lab.claims().back().pass;
}

}  // namespace tw
