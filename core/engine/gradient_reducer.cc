// Buckets hold parameters in reverse registration order, the order in which backward finishes them.
// A hook only counts; a bucket whose gradients are all there is posted to the lane, but never
// before its predecessor, so that every rank issues the same sequence of exchanges. Before:
// trainer.cc. Next: bucket_pipeline.cc. Non-finite gradients: with overlap other buckets are
// already on their way when the bad one shows up, so the state bag keeps a journal and everything
// is rolled back bit for bit; without overlap ranks agree first and no journal is needed.
#include "core/engine/gradient_reducer.h"

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/variable.h>

#include "core/api/convert.h"
#include "core/base/clock.h"
#include "core/engine/buckets.h"

namespace tw {
namespace {

Async Nothing() { co_return OkStatus(); }

}  // namespace

// LibTorch runs it after a parameter's gradient is complete, once a backward, on the thread that
// called backward or, for a device, on one of its own while that thread waits.
class GradientReducer::Hook : public torch::autograd::PostAccumulateGradHook {
 public:
  Hook(GradientReducer* reducer, int parameter) : reducer_(reducer), parameter_(parameter) {}
  void operator()(const at::Tensor&) override { reducer_->OnGradient(parameter_); }

 private:
  GradientReducer* reducer_;
  int parameter_;
};

GradientReducer::GradientReducer(const NamedTensors& parameters, const Plan* plan,
                                 Communicator* comm, Lane* lane, StateBag* state,
                                 const ReducerOptions& options)
    : plan_(plan),
      comm_(comm),
      lane_(lane),
      state_(state),
      options_(options),
      grads_(parameters.size()),
      bucket_of_(parameters.size()),
      seen_(parameters.size()),
      named_unused_(parameters.size()),
      pipeline_(plan, comm, {options.seed, state, options.spans, options.device.memory}) {
  TW_CHECK_EQ(parameters.size(), plan->parameters().size());
  std::vector<int64_t> sizes;
  for (const auto& [name, parameter] : parameters) {
    leaves_.emplace_back(name, GradientLeaf(options.sketches, name, parameter));
    sizes.push_back(static_cast<int64_t>(leaves_.back().second.nbytes()));
  }
  for (std::vector<int>& members : AssignBuckets(sizes, options.bucket_cap_bytes)) {
    buckets_.emplace_back().parameters = std::move(members);
  }
  for (size_t b = 0; b < buckets_.size(); ++b) {
    Bucket& bucket = buckets_[b];
    std::vector<at::Tensor> leaves;
    for (int i : bucket.parameters) leaves.push_back(leaves_[static_cast<size_t>(i)].second);
    const std::vector<at::Tensor> grads = GradientsInARow(leaves, &bucket.storage);
    for (size_t k = 0; k < leaves.size(); ++k) {
      const int i = bucket.parameters[k];
      grads_[static_cast<size_t>(i)] = grads[k];
      bucket_of_[static_cast<size_t>(i)] = static_cast<int>(b);
      bucket.grads.push_back(ViewOf(grads[k]));
      leaves[k].mutable_grad() = grads[k];
      torch::autograd::impl::set_post_acc_grad_hooks(leaves[k], std::make_unique<Hook>(this, i));
    }
  }
  for (size_t i = 0; i < parameters.size(); ++i) {
    const auto sketch = options.sketches.find(parameters[i].first);
    views_.push_back({&plan->parameters()[i].spec, ViewOf(parameters[i].second), ViewOf(grads_[i]),
                      sketch == options.sketches.end() ? nullptr : sketch->second.expansion});
  }
}

GradientReducer::~GradientReducer() {
  (void)lane_->Wait();
  for (auto& [name, leaf] : leaves_) {
    torch::autograd::impl::set_post_acc_grad_hooks(leaf, nullptr);
  }
}

void GradientReducer::ZeroGradients() {
  const DeviceScope scope(options_.device.training);
  Together together;
  for (Bucket& bucket : buckets_) {
    together.Next();
    FillZero({bucket.storage.data_ptr(), DType::kU8, bucket.storage.numel()});
  }
}

void GradientReducer::Start(uint64_t step) {
  step_ = step;
  check_.Begin();
  agreed_ = false;
  wire_start_ = BytesSent();
}

void GradientReducer::Arm(uint64_t step) {
  Start(step);
  armed_ = true;
  next_bucket_ = 0;
  std::fill(seen_.begin(), seen_.end(), uint8_t{0});
  for (Bucket& bucket : buckets_) {
    bucket.waiting = static_cast<int>(bucket.parameters.size());
    bucket.vectors = bucket.grads;
  }
  if (options_.overlap) state_->BeginJournal();
}

void GradientReducer::OnGradient(int parameter) {
  const size_t i = static_cast<size_t>(parameter);
  at::Tensor& tensor = leaves_[i].second;
  if (tensor.grad().data_ptr() != grads_[i].data_ptr()) {  // somebody replaced .grad: take it over
    at::NoGradGuard no_grad;
    grads_[i].copy_(tensor.grad());
    tensor.mutable_grad() = grads_[i];
  }
  if (!armed_ || seen_[i]) return;
  seen_[i] = 1;
  if (--buckets_[static_cast<size_t>(bucket_of_[i])].waiting == 0 && options_.overlap)
    LaunchReady();
}

void GradientReducer::LaunchReady() {
  while (next_bucket_ < num_buckets() && buckets_[static_cast<size_t>(next_bucket_)].waiting == 0) {
    const int bucket = next_bucket_++;
    if (!Identity())
      LaunchBucket(bucket);
    else if (next_bucket_ == num_buckets())
      LaunchLook();
  }
}

// One rank, everything dense: the mean is the gradient.
bool GradientReducer::Identity() const {
  if (comm_->size() > 1 || pipeline_.turn().sent) return false;
  for (const ParameterPlan& p : plan_->parameters()) {
    if (p.compressed) return false;
  }
  return plan_->dense().codec->traits().lossless;
}

int64_t GradientReducer::BytesSent() const {
  return comm_->bytes_sent() + (options_.two_level ? options_.two_level->bytes_sent() : 0);
}

std::unique_ptr<DeviceMark> GradientReducer::MarkTraining() {
  return options_.device.training ? options_.device.training->Mark() : nullptr;
}

void GradientReducer::LaunchBucket(int bucket) {
  buckets_[static_cast<size_t>(bucket)].ready = MarkTraining();
  lane_->Launch([this, bucket] { return RunBucket(bucket); });
}

Async GradientReducer::RunBucket(int b) {
  Bucket& bucket = buckets_[static_cast<size_t>(b)];
  if (bucket.ready) CurrentQueue()->After(*bucket.ready);
  if (!agreed_) {
    ScopedTimer timer(SpanTarget{options_.spans, SpanKind::kCheck, b});
    if (!check_.Look(bucket.vectors)) {  // zeros go on in their place; Finish rolls the step back
      for (const TensorView& v : bucket.vectors) FillZero(v);
    }
  }
  if (options_.two_level) {
    return options_.two_level->Start(b, step_, bucket.parameters, bucket.vectors);
  }
  return pipeline_.Start(b, step_, bucket.parameters, bucket.vectors);
}

void GradientReducer::LaunchLook() {
  vectors_ready_ = MarkTraining();
  lane_->Post([this] {
    if (vectors_ready_) CurrentQueue()->After(*vectors_ready_);
    for (const Bucket& bucket : buckets_) check_.Look(bucket.vectors);
    return OkStatus();
  });
}

Status GradientReducer::Agree() {
  TW_ASSIGN_OR_RETURN(const bool finite, check_.Finite());
  control_.back() = finite ? 0 : 1;
  if (comm_->size() == 1) return OkStatus();
  ScopedTimer timer(SpanTarget{options_.spans, SpanKind::kAgree});
  return comm_->AllReduceSum(control_, {step_, -1, "agreement on finite gradients"});
}

// Buckets follow the agreement on the lane, and do nothing when it says so.
void GradientReducer::LaunchAgreedExchange() {
  LaunchLook();
  lane_->Post([this]() -> Status {
    TW_RETURN_IF_ERROR(Agree());
    agreed_ = control_.back() == 0;
    return OkStatus();
  });
  if (Identity()) return;
  for (int b = 0; b < num_buckets(); ++b) {
    lane_->Launch([this, b] { return agreed_ ? RunBucket(b) : Nothing(); });
  }
}

ReduceOutcome GradientReducer::Outcome(double start_ms, std::span<double> sums) {
  const RunDevice& device = options_.device;
  if (device.training) device.training->After(*device.lane->Mark());
  std::copy(control_.begin(), control_.end() - 1, sums.begin());
  ReduceOutcome outcome;
  outcome.finite = control_.back() == 0;
  const double now = NowMs();
  outcome.exposed_ms = now - start_ms;
  SpanTarget{options_.spans, SpanKind::kWait}.Add(start_ms, now);
  outcome.times = options_.two_level ? options_.two_level->TakeTimes() : pipeline_.TakeTimes();
  outcome.wire_bytes = BytesSent() - wire_start_;
  return outcome;
}

StatusOr<ReduceOutcome> GradientReducer::Finish(std::span<double> sums) {
  TW_CHECK(armed_);
  armed_ = false;
  const double start = NowMs();
  for (size_t i = 0; i < seen_.size(); ++i) {
    if (seen_[i]) continue;
    if (!named_unused_[i]) newly_unused_.push_back(leaves_[i].first);
    named_unused_[i] = 1;
    buckets_[static_cast<size_t>(bucket_of_[i])].waiting = 0;
  }
  for (Bucket& bucket : buckets_) bucket.waiting = 0;

  control_.assign(sums.begin(), sums.end());
  control_.push_back(0);
  if (!options_.overlap) {
    LaunchAgreedExchange();
    TW_RETURN_IF_ERROR(lane_->Wait());
    return Outcome(start, sums);
  }
  LaunchReady();
  TW_RETURN_IF_ERROR(lane_->Run([&] { return Agree(); }));
  const DeviceScope scope(options_.device.lane);  // whose memory it is; the lane is idle
  control_.back() == 0 ? state_->CommitJournal() : state_->Rollback();
  return Outcome(start, sums);
}

std::vector<std::string> GradientReducer::TakeNewlyUnused() {
  return std::exchange(newly_unused_, {});
}

}  // namespace tw
