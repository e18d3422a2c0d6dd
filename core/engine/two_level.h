#pragma once
// TwoLevel: the ranks of a group, as a rule those of one host, act as one towards the other groups.
// Takes the place of the one BucketPipeline of a flat exchange; for every bucket
//
//   inside    the mean of the group's gradients, dense, added in rank order
//   between   the group's first rank composes, encodes, exchanges and resolves: one message a group
//   inside    what the optimizer sees, from the first rank to the others
//
// A group of m of n ranks sends m G / n times its mean, so that the mean over the G messages is the
// mean over all ranks whatever the groups' sizes. Error feedback is that of the group's message and
// rests with its first rank; random numbers are keyed by the group. Elements are added in the order
// of ranks inside a group, then of groups: a function of the grouping only.
//
// Used on the lane thread, and between steps on the main thread.

#include <memory>
#include <vector>

#include "core/engine/bucket_pipeline.h"

namespace tw {

class TwoLevel {
 public:
  // Collective, on the lane. group_of[r] is the group of rank r, groups numbered by their first
  // rank, at least two of them. plan (for as many ranks as there are groups), comm and
  // options.state outlive it; it goes before comm does.
  static StatusOr<std::unique_ptr<TwoLevel>> Create(const Plan* plan, Communicator* comm,
                                                    const std::vector<int>& group_of,
                                                    const PipelineOptions& options);

  // As BucketPipeline::Start.
  Async Start(int bucket, uint64_t step, std::span<const int> parameters,
              std::span<const TensorView> grads);
  // Of all work; payload_bytes that of the group's messages. Since the last call.
  PipelineTimes TakeTimes();
  // Handed on between groups so far. What goes around inside a group is not counted: a host's
  // memory is no network.
  int64_t bytes_sent() const { return across_ ? across_->bytes_sent() : 0; }

 private:
  TwoLevel(const Plan* plan, std::unique_ptr<Communicator> inside,
           std::unique_ptr<Communicator> across, double weight, const PipelineOptions& options);
  // grads <- weight_ * grads
  void Weigh(std::span<const TensorView> grads);
  Async Share(int bucket, uint64_t step, std::span<const TensorView> grads);

  std::unique_ptr<Communicator> inside_;
  std::unique_ptr<Communicator> across_;  // null but for the group's first rank
  double weight_;                         // of the group's mean
  Workspace wide_;                        // fp32 copies of gradients of two bytes
  Plan dense_;
  BucketPipeline inside_pipeline_;
  std::unique_ptr<BucketPipeline> across_pipeline_;
};

// The group of every rank, numbered by first ranks, from any number that the ranks of a group and
// no others have in common.
std::vector<int> NumberGroups(const std::vector<int64_t>& marks);
int CountGroups(const std::vector<int>& group_of);

// Error memories rest with the first ranks: a run can only go on with the grouping it had. Notes
// the grouping (empty: flat) in the state; DataError when `state` comes from a run with another.
Status KeepGrouping(StateBag* state, const std::vector<int>& group_of, bool resumed);

}  // namespace tw
