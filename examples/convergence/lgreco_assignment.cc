// How close L-GreCo's dynamic program comes to the best assignment (Markov, Alimohammadi, Frantar,
// Alistarh, "L-GreCo", MLSys 2024, arXiv 2210.17357), by trying all of them.
//   5 layers x 6 options, 60 tables a seed, D = 100, 1000, 10000 buckets, budget: the error of the
//   uniform assignment (option 3)
//   "random" tables: sizes uniform on [1, 10) rising with the option, errors uniform on [0, 1)
//   falling with it, sorted independently for each layer
//   "spectra": rank r = 1..6 of a layer whose singular values fall as j^-p, p uniform on [1/2, 2],
//   times a scale log-uniform on [0.1, 10]: error sqrt(sum_{j > r} s_j^2), size r (n + m)
// Claims: always feasible, never larger than the uniform assignment, and on average within
// 5 / 1 / 0.2 % (random) and 10 / 2 / 0.2 % (spectra) of the best.

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "absl/strings/str_format.h"
#include "compressors/planner/assignment.h"
#include "core/base/rng.h"
#include "launch/lab/experiment.h"

namespace tw {
namespace {

constexpr size_t kLayers = 5, kOptions = 6;
constexpr int kUniform = 3, kTables = 60;

// Uniform numbers in [0, 1), one after the other.
class Numbers {
 public:
  Numbers(uint64_t seed, uint64_t table)
      : stream_(RngStream::Of(seed, RngPurpose::kProblem, table, 0, 0)) {}
  double Next() { return static_cast<double>(stream_.U64(at_++) >> 11) * 0x1.0p-53; }

 private:
  RngStream stream_;
  uint64_t at_ = 0;
};

AssignmentItem RandomItem(Numbers& u) {
  AssignmentItem item;
  for (size_t c = 0; c < kOptions; ++c) item.size.push_back(1 + 9 * u.Next());
  for (size_t c = 0; c < kOptions; ++c) item.error.push_back(u.Next());
  std::sort(item.size.begin(), item.size.end());
  std::sort(item.error.begin(), item.error.end(), std::greater<>());
  item.uniform = kUniform;
  return item;
}

AssignmentItem SpectrumItem(Numbers& u) {
  const double power = 0.5 + 1.5 * u.Next();
  const double scale = 0.1 * std::pow(100.0, u.Next());
  const double sides = std::round(64 + 448 * u.Next()) + std::round(64 + 448 * u.Next());
  AssignmentItem item;
  for (size_t r = 1; r <= kOptions; ++r) {
    double tail = 0;
    for (int j = static_cast<int>(r) + 1; j <= 64; ++j) tail += std::pow(j, -2 * power);
    item.size.push_back(static_cast<double>(r) * sides);
    item.error.push_back(scale * std::sqrt(tail));
  }
  item.uniform = kUniform;
  return item;
}

double BestSize(std::span<const AssignmentItem> items, double budget) {
  double best = std::numeric_limits<double>::infinity();
  const std::function<void(size_t, double, double)> visit = [&](size_t l, double size,
                                                                double error) {
    if (error > budget || size >= best) return;
    if (l == items.size()) {
      best = size;
      return;
    }
    for (size_t c = 0; c < items[l].size.size(); ++c) {
      visit(l + 1, size + items[l].size[c], error + items[l].error[c]);
    }
  };
  visit(0, 0, 0);
  return best;
}

class LgrecoAssignment : public Experiment {
 public:
  ExperimentInfo info() const override {
    return {"Markov et al.: L-GreCo, the dynamic program",
            "2210.17357",
            {"feasible, and no larger than uniform, always",
             "random tables: mean size over the best < 1.05 / 1.01 / 1.002 at D = 100 / 1000 / "
             "10000",
             "tables like gradient spectra: < 1.10 / 1.02 / 1.002"},
            5};
  }

  Status Run(LabContext& lab) const override {
    struct Limit {
      int buckets;
      double random, spectra;
    };
    std::vector<double> violations;
    for (const Limit& limit : {Limit{100, 1.05, 1.10}, {1000, 1.01, 1.02}, {10000, 1.002, 1.002}}) {
      std::vector<double> random, spectra;
      for (const uint64_t seed : lab.seeds()) {
        random.push_back(MeanRatio(RandomItem, seed, limit.buckets, &violations));
        spectra.push_back(MeanRatio(SpectrumItem, seed, limit.buckets, &violations));
      }
      lab.Below(absl::StrFormat("random tables, D = %d: mean size over the best", limit.buckets),
                random, limit.random);
      lab.Below(absl::StrFormat("spectra, D = %d: mean size over the best", limit.buckets), spectra,
                limit.spectra);
    }
    lab.Always("tables where it was infeasible, over the budget or larger than uniform", violations,
               0, 0);
    return OkStatus();
  }

 private:
  static double MeanRatio(const std::function<AssignmentItem(Numbers&)>& make, uint64_t seed,
                          int buckets, std::vector<double>* violations) {
    double sum = 0, bad = 0;
    for (int table = 0; table < kTables; ++table) {
      Numbers u(seed, static_cast<uint64_t>(table));
      std::vector<AssignmentItem> items;
      for (size_t l = 0; l < kLayers; ++l) items.push_back(make(u));
      const double budget = UniformError(items);
      const Assignment found = Assign(items, budget, buckets);
      double uniform = 0;
      for (const AssignmentItem& item : items) uniform += item.size[kUniform];
      // Totals are sums in another order: as many roundings as layers.
      const double slack = 1 + 1e-12;
      if (!found.feasible || found.error > budget * slack || found.size > uniform * slack) ++bad;
      sum += found.size / BestSize(items, budget * slack);
    }
    violations->push_back(bad);
    return sum / kTables;
  }
};

StatusOr<std::unique_ptr<Experiment>> Create(const NoConfig&) {
  return std::make_unique<LgrecoAssignment>();
}

TW_REGISTER(Experiment, lgreco_assignment, 0, NoConfig, Create,
            "L-GreCo's dynamic program against all assignments");

}  // namespace
}  // namespace tw
