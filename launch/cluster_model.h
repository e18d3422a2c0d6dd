#pragma once
// A model of a step on a cluster that is not there: what the lane thread and the link of one rank
// do while backward goes on, bucket by bucket, from measured costs.
//
//   ready(b)   when backward has finished the gradients of bucket b: its share of the elements
//   lane       one thread: encodes, hands messages over and decodes, the earliest ready first
//   link       one bucket's bytes after another's, full duplex, at the link's rate
//   waits      each costs the link's latency and, on the average, half of a look of the lane
//   buckets    at most so many under way as comm.concurrent_buckets, in order
//   step       = forward + backward + exposed + optimizer; exposed = until the last bucket is
//              decoded and all ranks have agreed, after backward
//
// Left out: ranks that are late, cores that the lane takes from backward, congestion inside the
// network.

#include <cstdint>
#include <span>
#include <vector>

namespace tw {

// Lane work, then bytes to wait for (none: the bucket ends here).
struct LaneStage {
  double lane_ms = 0;
  double sent_bytes = 0;
  double waits = 0;
  double messages = 0;
};
struct BucketWork {
  int64_t numel = 0;
  std::vector<LaneStage> stages;
};
struct Arithmetic {
  double forward_ms = 0, backward_ms = 0, optimizer_ms = 0;
  double sum_ms() const { return forward_ms + backward_ms + optimizer_ms; }
};
struct ClusterLink {
  double bytes_per_ms = 0;  // of each host, each direction
  double latency_ms = 0;    // one way
};
struct StepPrediction {
  double step_ms = 0, exposed_ms = 0;
  double lane_ms = 0;  // encoding, decoding and messages
  double wire_ms = 0;  // bytes alone
  double sent_bytes = 0;
};

StepPrediction PredictStep(std::span<const BucketWork> buckets, const Arithmetic& arithmetic,
                           const ClusterLink& link, int ranks, int concurrent_buckets,
                           bool overlap);

}  // namespace tw
