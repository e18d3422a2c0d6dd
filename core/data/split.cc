// BatchPositions needs one entry of a permutation without making all of it: a Feistel network of
// four Philox rounds permutes the numbers below the next power of four, and numbers outside the
// shard are sent through it again until they fall inside (Black and Rogaway, "Ciphers with
// arbitrary finite domains", 2002). At most 4 tries on average.
//
// Dirichlet(alpha) = normalized Gamma(alpha) draws; Gamma by Marsaglia and Tsang (2000), in
// logarithms, since for a small alpha all draws may underflow.

#include "core/data/split.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

namespace tw {
namespace {

// Where position `at` of the permutation that `rng` names lies in 0 .. n-1.
int64_t PermutedPosition(const RngStream& rng, int64_t at, int64_t n) {
  int half_bits = 1;
  while ((int64_t{1} << (2 * half_bits)) < n) ++half_bits;
  const uint64_t mask = (uint64_t{1} << half_bits) - 1;
  auto x = static_cast<uint64_t>(at);
  do {
    uint64_t left = x >> half_bits, right = x & mask;
    for (uint64_t round = 0; round < 4; ++round) {
      const uint64_t mixed = left ^ (rng.U64(round << 32 | right) & mask);
      left = right;
      right = mixed;
    }
    x = left << half_bits | right;
  } while (x >= static_cast<uint64_t>(n));
  return static_cast<int64_t>(x);
}

// Uniform in (0, 1).
double OpenUniform(const RngStream& rng, uint64_t counter) {
  return (static_cast<double>(rng.U64(counter) >> 12) + 0.5) * 0x1.0p-52;
}

// ln of a Gamma(alpha, 1) draw. Gamma(alpha) = Gamma(alpha + 1) * U^(1/alpha).
double LogGammaDraw(const RngStream& rng, double alpha) {
  const double d = alpha + 1 - 1.0 / 3, c = 1 / std::sqrt(9 * d);
  for (uint64_t counter = 1;; counter += 3) {
    const double normal = std::sqrt(-2 * std::log(OpenUniform(rng, counter))) *
                          std::cos(2 * M_PI * OpenUniform(rng, counter + 1));
    const double v = std::pow(1 + c * normal, 3);
    if (v <= 0) continue;
    if (std::log(OpenUniform(rng, counter + 2)) <
        0.5 * normal * normal + d - d * v + d * std::log(v)) {
      return std::log(d * v) + std::log(OpenUniform(rng, 0)) / alpha;
    }
  }
}

std::vector<double> DirichletDraw(uint64_t seed, uint32_t label, double alpha, int world) {
  std::vector<double> p(static_cast<size_t>(world));
  for (size_t r = 0; r < p.size(); ++r) {
    const auto rng =
        RngStream::Of(seed, RngPurpose::kDataSplit, 2, label, static_cast<uint32_t>(r));
    p[r] = LogGammaDraw(rng, alpha);
  }
  const double top = *std::max_element(p.begin(), p.end());
  for (double& x : p) x = std::exp(x - top);
  const double sum = std::accumulate(p.begin(), p.end(), 0.0);
  for (double& x : p) x /= sum;
  return p;
}

using Owners = std::vector<std::vector<int64_t>>;

Owners DealIid(const std::vector<int64_t>& order, size_t world) {
  Owners out(world);
  for (size_t i = 0; i < order.size(); ++i) out[i % world].push_back(order[i]);
  return out;
}

Owners CutByLabel(std::vector<int64_t> order, std::span<const int32_t> labels, size_t world) {
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
    return labels[static_cast<size_t>(a)] < labels[static_cast<size_t>(b)];
  });
  Owners out(world);
  for (size_t r = 0; r < world; ++r) {
    const auto from = static_cast<int64_t>(order.size() * r / world);
    const auto to = static_cast<int64_t>(order.size() * (r + 1) / world);
    out[r].assign(order.begin() + from, order.begin() + to);
  }
  return out;
}

Owners DivideByDirichlet(const std::vector<int64_t>& order, std::span<const int32_t> labels,
                         const ShardOptions& options) {
  std::map<int32_t, std::vector<int64_t>> by_class;
  for (int64_t i : order) by_class[labels[static_cast<size_t>(i)]].push_back(i);
  const auto world = static_cast<size_t>(options.world_size);
  Owners out(world);
  for (const auto& [label, members] : by_class) {
    const auto p = DirichletDraw(options.seed, static_cast<uint32_t>(label), options.alpha,
                                 options.world_size);
    double upto = 0;
    size_t from = 0;
    for (size_t r = 0; r < world; ++r) {
      upto += p[r];
      const size_t to = r + 1 == world ? members.size()
                                       : std::min(members.size(),
                                                  static_cast<size_t>(std::llround(
                                                      upto * static_cast<double>(members.size()))));
      for (; from < to; ++from) out[r].push_back(members[from]);
    }
  }
  for (auto& shard : out) {
    if (!shard.empty()) continue;
    auto largest = std::max_element(
        out.begin(), out.end(), [](const auto& a, const auto& b) { return a.size() < b.size(); });
    shard.push_back(largest->back());
    largest->pop_back();
  }
  return out;
}

}  // namespace

std::vector<int64_t> Permutation(const RngStream& rng, int64_t n) {
  std::vector<int64_t> order(static_cast<size_t>(n));
  std::iota(order.begin(), order.end(), int64_t{0});
  for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[rng.Below(i, i)]);
  return order;
}

StatusOr<Split> SplitSamples(uint64_t seed, int64_t n, double val_fraction) {
  if (!(val_fraction > 0 && val_fraction < 1)) {
    return ConfigError("data.val_fraction must lie between 0 and 1, both excluded");
  }
  const auto held = static_cast<int64_t>(std::floor(static_cast<double>(n) * val_fraction));
  if (held < 1 || held >= n) {
    return DataError(std::to_string(n) + " samples cannot be split: data.val_fraction leaves " +
                     std::to_string(held) + " for validation");
  }
  const auto order = Permutation(RngStream::Of(seed, RngPurpose::kDataSplit, 0, 0, kSharedRank), n);
  return Split{{order.begin() + held, order.end()}, {order.begin(), order.begin() + held}};
}

StatusOr<std::vector<std::vector<int64_t>>> Shards(std::span<const int32_t> labels,
                                                   const ShardOptions& options) {
  const auto n = static_cast<int64_t>(labels.size());
  if (n < options.world_size) {
    return DataError(std::to_string(n) + " training samples are too few for " +
                     std::to_string(options.world_size) + " ranks");
  }
  const auto order =
      Permutation(RngStream::Of(options.seed, RngPurpose::kDataSplit, 1, 0, kSharedRank), n);
  const auto world = static_cast<size_t>(options.world_size);
  if (options.kind == "iid") return DealIid(order, world);
  if (options.kind == "by_label") return CutByLabel(order, labels, world);
  if (options.kind != "dirichlet") {
    return ConfigError("data.shard = \"" + options.kind +
                       "\" is not known; iid, by_label or dirichlet");
  }
  if (!(options.alpha > 0)) return ConfigError("data.alpha must be above 0");
  return DivideByDirichlet(order, labels, options);
}

std::vector<int64_t> BatchPositions(const BatchKey& key, int64_t shard_size, int64_t batch) {
  std::vector<int64_t> out;
  out.reserve(static_cast<size_t>(batch));
  for (int64_t i = 0; i < batch; ++i) {
    const int64_t ordinal = key.step * batch + i;
    BatchKey pass = key;
    pass.step = ordinal / shard_size;
    out.push_back(PermutedPosition(pass.Stream(), ordinal % shard_size, shard_size));
  }
  return out;
}

}  // namespace tw
