#pragma once
// Who trains on which sample: validation split, shards over ranks, order within a shard. All pure
// functions of their arguments, the same on every rank; thread safe.

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/base/status.h"
#include "core/data/batch_key.h"

namespace tw {

// 0 .. n-1 in an order that `rng` alone decides (Fisher-Yates).
std::vector<int64_t> Permutation(const RngStream& rng, int64_t n);

struct Split {
  std::vector<int64_t> train, validation;
};
// floor(n * val_fraction) samples of a seeded permutation are for validation.
// ConfigError unless 0 < val_fraction < 1; DataError when either part would be empty.
StatusOr<Split> SplitSamples(uint64_t seed, int64_t n, double val_fraction);

struct ShardOptions {
  std::string kind = "iid";  // iid | by_label | dirichlet
  double alpha = 0.5;        // of dirichlet; smaller is more unequal
  uint64_t seed = 1;
  int world_size = 1;
};
// For each rank the positions 0 .. labels.size()-1 that are its own; every position has exactly one
// owner, no rank is empty.
//   iid        a seeded permutation dealt out like cards
//   by_label   sorted by label, then cut into world_size runs of equal length: a rank sees few
//   classes dirichlet  each class is divided by proportions drawn from Dirichlet(alpha) (Hsu, Qi,
//   Brown, arXiv 1909.06335);
//              a rank left without samples takes one from the largest
// ConfigError: unknown kind, alpha <= 0. DataError: fewer samples than ranks.
StatusOr<std::vector<std::vector<int64_t>>> Shards(std::span<const int32_t> labels,
                                                   const ShardOptions& options);

// Positions in a shard of `shard_size` samples that make up a batch: each micro step walks through
// the shard again and again, every time in a new order, and sees each sample once a pass. O(batch),
// whatever the step.
std::vector<int64_t> BatchPositions(const BatchKey& key, int64_t shard_size, int64_t batch);

}  // namespace tw
