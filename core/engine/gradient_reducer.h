#pragma once
// GradientReducer: turns every rank's gradients into what the optimizer sees, while backward is
// still running. HOT PATH, file 2 of 3:
//   trainer.cc           the loop; calls Arm before the last backward of a step and Finish after it
//   gradient_reducer.cc  hooks only count; a full bucket waits its turn (same order on all ranks)
//   and goes to the lane thread bucket_pipeline.cc   one bucket through the wire
// Used from the main thread; the communicator is touched on the lane thread only.

#include <memory>
#include <string>
#include <vector>

#include "core/api/optimizer.h"
#include "core/engine/bucket_pipeline.h"
#include "core/engine/finite_check.h"
#include "core/engine/lane.h"
#include "core/engine/tensor_views.h"
#include "core/engine/two_level.h"

namespace tw {

struct ReducerOptions {
  int64_t bucket_cap_bytes = 4 << 20;
  bool overlap =
      true;  // false: buckets start in Finish, after all ranks agreed that every gradient is finite
  uint64_t seed = 1;
  SpanLog* spans = nullptr;       // null: no timeline
  TwoLevel* two_level = nullptr;  // buckets go through it; null: flat, every rank for itself
  Sketches sketches;  // the parameters whose gradients arrive elsewhere than in their own .grad
  RunDevice device;   // where parameters and gradients lie; the lane is in the scope of its queue
};

struct ReduceOutcome {
  bool finite = true;     // on every rank; false: all state is as it was before Arm
  double exposed_ms = 0;  // Finish waited this long
  PipelineTimes times;
  int64_t wire_bytes = 0;
};

class GradientReducer {
 public:
  using NamedTensors = tw::NamedTensors;

  // Points every parameter's .grad into a bucket and hooks it. All arguments but `options` outlive
  // the reducer.
  GradientReducer(const NamedTensors& parameters, const Plan* plan, Communicator* comm, Lane* lane,
                  StateBag* state, const ReducerOptions& options);
  ~GradientReducer();
  GradientReducer(const GradientReducer&) = delete;
  GradientReducer& operator=(const GradientReducer&) = delete;

  // Before the first backward of a step.
  void ZeroGradients();
  // Before the last backward of a step: from here hooks count.
  void Arm(uint64_t step);
  // After it: parameters without a gradient count as zero. `sums` (a few control numbers of the
  // caller, e.g. the loss) are added over ranks on the way.
  StatusOr<ReduceOutcome> Finish(std::span<double> sums);
  // Instead of Arm and Finish: vectors[i], of parameter i's shape and dtype, travels as its
  // gradient would and becomes the estimate. Ranks agree first that all are finite; when not,
  // nothing is touched.
  StatusOr<ReduceOutcome> Exchange(uint64_t step, std::span<const TensorView> vectors,
                                   std::span<double> sums, const TurnOptions& turn = {});
  // The same in two parts, between which the caller may do anything that needs no exchange. What
  // `vectors` point to and the state of codecs and feedback are the lane's in the meantime.
  void StartExchange(uint64_t step, std::span<const TensorView> vectors,
                     std::span<const double> sums);
  StatusOr<ReduceOutcome> FinishExchange(std::span<double> sums);
  bool exchanging() const { return exchanging_; }

  // Null for none, the default. Between two steps.
  void set_observer(GradientObserver* observer) { pipeline_.set_observer(observer); }

  // In registration order; gradients hold the estimate after Finish.
  std::span<const ParameterView> views() const { return views_; }
  int64_t scratch_bytes() const { return pipeline_.scratch_bytes(); }  // between two steps
  int num_buckets() const { return static_cast<int>(buckets_.size()); }
  // Parameters that got no gradient in the last step and had not been named before.
  std::vector<std::string> TakeNewlyUnused();

 private:
  struct Bucket {
    std::vector<int> parameters;
    std::vector<TensorView> grads;
    std::vector<TensorView> vectors;  // what travels, one a parameter; as a rule the gradients
    at::Tensor storage;
    int waiting = 0;
    std::unique_ptr<DeviceMark> ready;  // its gradients are there; null on the host
  };
  class Hook;

  void OnGradient(int parameter);
  void LaunchReady();
  Async RunBucket(int bucket);
  void LaunchBucket(int bucket);
  bool Identity() const;
  int64_t BytesSent() const;
  void Start(uint64_t step);
  std::unique_ptr<DeviceMark> MarkTraining();
  void LaunchLook();
  Status Agree();
  void LaunchAgreedExchange();
  ReduceOutcome Outcome(double start_ms, std::span<double> sums);

  const Plan* plan_;
  Communicator* comm_;
  Lane* lane_;
  StateBag* state_;
  ReducerOptions options_;
  NamedTensors leaves_;  // where gradients arrive: the parameters, or what stands in for them
  std::vector<ParameterView> views_;
  std::vector<at::Tensor> grads_;
  std::vector<Bucket> buckets_;
  std::vector<int> bucket_of_;
  std::vector<uint8_t> seen_, named_unused_;
  std::vector<std::string> newly_unused_;
  BucketPipeline pipeline_;
  bool armed_ = false;
  uint64_t step_ = 0;
  int next_bucket_ = 0;  // the order gate
  FiniteCheck check_;    // the lane's
  bool agreed_ = false;  // before the buckets: no need to look again
  int64_t wire_start_ = 0;
  bool exchanging_ = false;
  // The caller's sums, then the number of ranks that have something non-finite. The lane's from the
  // first launch to the wait.
  std::vector<double> control_;
  std::unique_ptr<DeviceMark> vectors_ready_;  // of an exchange that ranks agree on first
};

}  // namespace tw
