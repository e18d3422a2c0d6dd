#include "compressors/planner/assignment.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>

#include "core/base/status.h"

namespace tw {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// What remains of an option after rounding.
struct Step {
  int option = 0;
  int64_t buckets = 1;
  double size = 0;
};

double At(const std::vector<double>& values, int i) { return values[static_cast<size_t>(i)]; }
bool Counted(const AssignmentItem& item) { return !std::isnan(At(item.error, item.uniform)); }

// Options within the budget (> 0), those left out that another one beats in buckets and size alike.
std::vector<Step> StepsOf(const AssignmentItem& item, double budget, int buckets) {
  std::vector<Step> steps;
  const double width = budget / buckets;
  for (size_t c = 0; c < item.error.size(); ++c) {
    const double error = item.error[c];
    if (!(error <= budget)) continue;  // NaN too
    double q = std::ceil(error / width);
    if (q * width < error) ++q;                     // the quotient was rounded down
    q = std::min(q, static_cast<double>(buckets));  // an error of the whole budget, rounded up
    steps.push_back({static_cast<int>(c), static_cast<int64_t>(q), item.size[c]});
  }
  std::stable_sort(steps.begin(), steps.end(), [](const Step& a, const Step& b) {
    return a.buckets != b.buckets ? a.buckets < b.buckets : a.size < b.size;
  });
  std::vector<Step> useful;
  for (const Step& s : steps) {
    if (useful.empty() || s.size < useful.back().size) useful.push_back(s);
  }
  std::sort(useful.begin(), useful.end(),
            [](const Step& a, const Step& b) { return a.option < b.option; });
  return useful;
}

// to[e] = min(to[e], from[e - shift] + size) for e in [shift, n).
void Relax(const double* __restrict from, double size, int64_t shift, int64_t n,
           double* __restrict to) {
  for (int64_t e = shift; e < n; ++e) {
    const double candidate = from[e - shift] + size;
    to[e] = candidate < to[e] ? candidate : to[e];
  }
}

void AddTotals(std::span<const AssignmentItem> items, Assignment* a) {
  a->size = a->error = 0;
  for (size_t l = 0; l < items.size(); ++l) {
    a->size += At(items[l].size, a->choice[l]);
    if (Counted(items[l])) a->error += At(items[l].error, a->choice[l]);
  }
}

// best[l][e]: smallest size of the first l items in at most e buckets. False when there is none.
bool Solve(std::span<const AssignmentItem> items, const std::vector<size_t>& counted, double budget,
           int buckets, Assignment* out) {
  const int64_t n = int64_t{buckets} + 1;
  std::vector<std::vector<Step>> steps;
  std::vector<double> best(static_cast<size_t>(n) * (counted.size() + 1), kInfinity);
  std::fill_n(best.begin(), n, 0.0);
  for (size_t l = 0; l < counted.size(); ++l) {
    steps.push_back(StepsOf(items[counted[l]], budget, buckets));
    const double* from = best.data() + static_cast<int64_t>(l) * n;
    double* to = best.data() + static_cast<int64_t>(l + 1) * n;
    for (const Step& s : steps.back()) Relax(from, s.size, s.buckets, n, to);
  }
  int64_t e = buckets;
  if (best.back() == kInfinity) return false;
  for (size_t l = counted.size(); l-- > 0;) {
    const double* from = best.data() + static_cast<int64_t>(l) * n;
    const double target = from[n + e];
    for (const Step& s : steps[l]) {  // ascending options: the lowest that attains the minimum
      if (s.buckets > e || from[e - s.buckets] + s.size != target) continue;
      out->choice[counted[l]] = s.option;
      e -= s.buckets;
      break;
    }
  }
  return true;
}

}  // namespace

double UniformError(std::span<const AssignmentItem> items) {
  return std::accumulate(items.begin(), items.end(), 0.0, [](double sum, const auto& item) {
    return Counted(item) ? sum + At(item.error, item.uniform) : sum;
  });
}

Assignment Assign(std::span<const AssignmentItem> items, double budget, int buckets) {
  TW_CHECK_GE(buckets, 1);
  Assignment uniform;
  std::vector<size_t> counted;
  for (size_t l = 0; l < items.size(); ++l) {
    TW_CHECK(!items[l].size.empty() && items[l].size.size() == items[l].error.size());
    uniform.choice.push_back(items[l].uniform);
    if (Counted(items[l])) counted.push_back(l);
  }
  AddTotals(items, &uniform);
  uniform.feasible = uniform.error <= budget;
  if (!(budget > 0) || !std::isfinite(budget) || counted.empty()) return uniform;
  Assignment found = uniform;
  if (!Solve(items, counted, budget, buckets, &found)) return uniform;
  found.feasible = true;
  AddTotals(items, &found);
  return uniform.feasible && uniform.size < found.size ? uniform : found;
}

}  // namespace tw
