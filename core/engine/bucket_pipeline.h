#pragma once
// BucketPipeline: one bucket of gradients through the wire. HOT PATH, file 3 of 3:
//   trainer.cc           the loop; calls
//   gradient_reducer.cc  hooks, buckets, order gate, lane thread; calls
//   bucket_pipeline.cc   compose, encode, absorb, exchange, resolve
// Runs on the lane thread only, several buckets at once: while one waits for bytes another encodes
// or decodes. In: gradients. Out: in the same memory, what the optimizer sees.

#include <memory>
#include <vector>

#include "core/engine/plan.h"

namespace tw {

struct PipelineTimes {
  double encode_ms = 0;
  double exchange_ms = 0;
  double decode_ms = 0;
  int64_t payload_bytes = 0;
};

// Sees what passes, on the lane thread. Slots it takes are journaled like any other of the step.
class GradientObserver {
 public:
  virtual ~GradientObserver() = default;
  // What a parameter's codec is about to encode; the addition may be pending. Not for dense ones.
  virtual void OnMessage(int parameter, const Message& message) = 0;
  // What the optimizer is about to see, the same on every rank.
  virtual void OnEstimate(int parameter, TensorView gradient) = 0;
};

struct PipelineOptions {
  uint64_t seed = 1;
  StateBag* state = nullptr;
  SpanLog* spans = nullptr;  // null: no timeline
  DeviceMemory* memory =
      nullptr;  // where gradients lie, when on a device; the lane is in its scope
};

class BucketPipeline {
 public:
  // plan, comm and options.state outlive the pipeline.
  BucketPipeline(const Plan* plan, Communicator* comm, const PipelineOptions& options);

  ~BucketPipeline();

  // parameters: indices into the plan; grads[i] belongs to parameters[i], same dtype as its spec.
  // Both live until the end.
  Async Start(int bucket, uint64_t step, std::span<const int> parameters,
              std::span<const TensorView> grads);
  // Since the last call.
  PipelineTimes TakeTimes();
  // Payloads and whatever codecs and exchanges need beside them. While nothing is under way.
  int64_t scratch_bytes() const;
  // Null for none, the default. While nothing is under way.
  void set_observer(GradientObserver* observer) { observer_ = observer; }
  // For what starts from here on.
  void set_turn(const TurnOptions& turn) { turn_ = turn; }
  const TurnOptions& turn() const { return turn_; }

 private:
  struct Item;    // one parameter on its way
  struct Group;   // items that share an exchange, a number of rounds and an element type
  struct Flight;  // one bucket on its way: its items, groups and scratch memory
  class Boarding;

  const Route& ChooseRoute(int parameter, uint64_t step, bool* through_policy);
  void Compose(Item& item, uint64_t step, Workspace* scratch);
  // Returns how many groups there are.
  size_t ComposeAll(Flight& flight, uint64_t step, std::span<const int> parameters,
                    std::span<const TensorView> grads);
  SpanTarget SpansOf(SpanKind kind, int bucket) const { return {options_.spans, kind, bucket}; }
  static bool InPlace(const Flight& flight, const Group& group);
  MutableByteSpan BodiesInPlace(Flight& flight, Group& group);
  Status EncodeRound(Flight& flight, Group& group, int round, MutableByteSpan* send);
  void PointMeansAtGradients(Flight& flight, Group& group);
  Async RunGroup(Flight& flight, Group& group, OpTag tag);

  const Plan* plan_;
  Communicator* comm_;
  PipelineOptions options_;
  std::vector<StateScope> codec_state_, feedback_state_, hop_state_, engine_state_;
  std::vector<std::unique_ptr<Flight>> idle_;  // their memory is kept
  PipelineTimes times_;
  GradientObserver* observer_ = nullptr;
  TurnOptions turn_;
};

}  // namespace tw
