// One step, read top to bottom: Step -> strategy -> ComputeGradients, FinishExchange, ApplyUpdate
// -> Report. Next: gradient_reducer.cc.
#include "core/engine/trainer.h"

#include <torch/torch.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/base/clock.h"
#include "core/base/hash.h"
#include "core/base/log.h"
#include "core/engine/catch_torch.h"
#include "core/kernels/reduce.h"

namespace tw {
namespace {

constexpr int64_t kFinalLossSteps = 20;
constexpr char kLosses[] = "trainer/losses";
constexpr char kLossCount[] = "trainer/loss_count";

double Median(std::vector<double> values) {
  if (values.empty()) return 0;
  const size_t middle = values.size() / 2;
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(middle),
                   values.end());
  return values[middle];
}

template <class T>
double PlainSumOfSquares(TensorView view) {
  double sum = 0;
  const T* p = static_cast<const T*>(view.data);
  for (int64_t i = 0; i < view.numel; ++i) {
    const double x = static_cast<double>(p[i]);
    sum += x * x;
  }
  return sum;
}

double SumOfSquares(TensorView view) {
  switch (view.dtype) {
    case DType::kF32:
      return kernels::SumOfSquares(view.f32());
    case DType::kF64:
      return PlainSumOfSquares<double>(view);
    case DType::kF16:
      return PlainSumOfSquares<c10::Half>(view);
    default:
      return PlainSumOfSquares<c10::BFloat16>(view);
  }
}

}  // namespace

uint64_t ParametersHash(std::span<const ParameterView> parameters) {
  std::vector<const ParameterView*> sorted;
  for (const auto& p : parameters) sorted.push_back(&p);
  std::sort(sorted.begin(), sorted.end(),
            [](const auto* a, const auto* b) { return a->spec->name < b->spec->name; });
  Hasher hasher;
  for (const auto* p : sorted) hasher.Add(p->value.raw());
  return hasher.digest();
}

Trainer::Trainer(const TrainerParts& parts, const TrainerOptions& options)
    : parts_(parts), options_(options) {
  for (const ParameterView& p : parts_.reducer->views()) {
    summary_.dense_bytes_per_step += 4 * p.grad.numel;
  }
}

Status Trainer::Run(int64_t first_step) {
  const double start = NowMs();
  for (int64_t step = first_step; step < options_.steps; ++step) {
    TW_RETURN_IF_ERROR(Step(step));
    summary_.wall_s = (NowMs() - start) / 1e3;
  }
  for (MetricSink* sink : parts_.sinks) TW_RETURN_IF_ERROR(sink->Flush());
  return OkStatus();
}

Status Trainer::Step(int64_t step) {
  step_ = step;
  record_ = {};
  record_.step = step + 1;
  record_.lr = options_.lr * parts_.schedule->Factor(step, options_.steps);
  record_.dense_bytes = summary_.dense_bytes_per_step;
  const double start = NowMs();
  TW_ASSIGN_OR_RETURN(const StepResult result, parts_.strategy->Step(*this));
  record_.step_ms = NowMs() - start;
  TW_RETURN_IF_ERROR(parts_.state->mismatch());
  record_.skipped = result.skipped;
  for (const std::string& name : parts_.reducer->TakeNewlyUnused()) {
    LogWarning("parameter " + name + " got no gradient in step " + std::to_string(step) +
               "; it counts as zero");
  }
  if (result.skipped) {
    ++summary_.skipped;
    LogWarning("step " + std::to_string(step) +
               ": a rank has a non-finite gradient; the step is skipped on all ranks");
    if (++skipped_in_a_row_ >= options_.max_skipped) {
      return NumbersError("step " + std::to_string(step) + ": " +
                          std::to_string(skipped_in_a_row_) +
                          " steps in a row had a non-finite gradient (train.max_skipped = " +
                          std::to_string(options_.max_skipped) +
                          "); a smaller optimizer.lr or train.grad_clip may help");
    }
  } else {
    skipped_in_a_row_ = 0;
  }
  TW_RETURN_IF_ERROR(Report());
  if (parts_.plan_updater) TW_RETURN_IF_ERROR(parts_.plan_updater->EndStep(record_));
  if (options_.check_replicas_every > 0 && (step + 1) % options_.check_replicas_every == 0 &&
      parts_.comm->size() > 1) {
    const uint64_t hash = ParametersHash(parts_.reducer->views());
    TW_RETURN_IF_ERROR(WithFault(parts_.lane->Run([&] {
      return parts_.comm->Agree(hash, "params_hash after step " + std::to_string(step));
    }),
                                 Fault::kBug));
  }
  if (options_.checkpoint_every > 0 && parts_.save_checkpoint &&
      ((step + 1) % options_.checkpoint_every == 0 || step + 1 == options_.steps)) {
    TW_RETURN_IF_ERROR(parts_.save_checkpoint(step + 1));
  }
  return OkStatus();
}

StatusOr<double> Trainer::ComputeGradients() {
  parts_.reducer->ZeroGradients();
  double loss_sum = 0;
  for (int64_t micro = 0; micro < options_.accumulate; ++micro) {
    at::Tensor loss;
    {
      ScopedTimer timer(&record_.forward_ms);
      TW_RETURN_IF_ERROR(CatchTorch([&]() -> Status {
        loss = parts_.task->Loss(static_cast<uint64_t>(step_), micro);
        loss_sum += loss.item<double>();
        return OkStatus();
      }));
    }
    if (micro + 1 == options_.accumulate) parts_.reducer->Arm(static_cast<uint64_t>(step_));
    ScopedTimer timer(&record_.backward_ms);
    TW_RETURN_IF_ERROR(CatchTorch([&]() -> Status {
      if (options_.accumulate > 1) loss = loss / static_cast<double>(options_.accumulate);
      loss.backward();
      return OkStatus();
    }));
  }
  record_.loss = loss_sum / static_cast<double>(options_.accumulate);
  return record_.loss;
}

StatusOr<bool> Trainer::FinishExchange() {
  double sums[] = {record_.loss};
  TW_ASSIGN_OR_RETURN(const ReduceOutcome outcome, parts_.reducer->Finish(sums));
  record_.loss = sums[0] / parts_.comm->size();
  record_.exposed_ms = outcome.exposed_ms;
  record_.encode_ms = outcome.times.encode_ms;
  record_.exchange_ms = outcome.times.exchange_ms;
  record_.decode_ms = outcome.times.decode_ms;
  record_.payload_bytes = outcome.times.payload_bytes;
  record_.wire_bytes = outcome.wire_bytes;
  return outcome.finite;
}

// Norm and update are own kernels with fixed reduction trees: every rank computes the same bits
// from the same mean.
Status Trainer::ApplyUpdate() {
  ScopedTimer timer(&record_.optimizer_ms);
  double squares = 0;
  for (const ParameterView& p : parts_.reducer->views()) squares += SumOfSquares(p.grad);
  record_.grad_norm = std::sqrt(squares);
  UpdateContext update;
  update.lr = record_.lr;
  if (options_.grad_clip > 0 && record_.grad_norm > options_.grad_clip) {
    update.grad_scale = static_cast<float>(options_.grad_clip / record_.grad_norm);
  }
  const TensorView count =
      parts_.state->Slot("trainer/update", {1}, DType::kI64, Reshard::kReplicated);
  update.update = ++*static_cast<int64_t*>(count.data);
  update.state = parts_.state;
  return parts_.optimizer->Step(parts_.reducer->views(), update);
}

Status Trainer::Report() {
  const int64_t batches = (step_ + 1) * options_.accumulate * parts_.comm->size();
  record_.samples = batches * parts_.task->samples_per_batch();
  record_.tokens = batches * parts_.task->tokens_per_batch();
  summary_.steps = step_ + 1;
  summary_.tokens = record_.tokens;
  if (!record_.skipped) KeepLoss();
  step_ms_.push_back(record_.step_ms);
  exposed_ms_.push_back(record_.exposed_ms);
  wire_bytes_ += static_cast<double>(record_.wire_bytes);
  payload_bytes_ += static_cast<double>(record_.payload_bytes);
  if (parts_.sinks.empty() || record_.step % options_.metrics_every != 0) return OkStatus();
  record_.residual_norm = ResidualNorm();
  if (parts_.peak_tensor_bytes) record_.peak_tensor_bytes = parts_.peak_tensor_bytes();
  for (MetricSink* sink : parts_.sinks) TW_RETURN_IF_ERROR(sink->Write(record_));
  return OkStatus();
}

// A ring in the state bag: a resumed run reports the final loss of the unbroken one.
void Trainer::KeepLoss() {
  StateBag& state = *parts_.state;
  const TensorView ring = state.Slot(kLosses, {kFinalLossSteps}, DType::kF64, Reshard::kReplicated);
  auto* count =
      static_cast<int64_t*>(state.Slot(kLossCount, {1}, DType::kI64, Reshard::kReplicated).data);
  static_cast<double*>(ring.data)[(*count)++ % kFinalLossSteps] = record_.loss;
}

double Trainer::ResidualNorm() const {
  double squares = 0;
  parts_.state->ForEach([&](const std::string& name, const StateSlot& slot) {
    if (name.rfind("feedback/", 0) == 0 && name.size() > 2 &&
        name.substr(name.size() - 2) == "/e") {
      squares += SumOfSquares(slot.view);
    }
  });
  return std::sqrt(squares);
}

TrainSummary Trainer::summary() const {
  TrainSummary out = summary_;
  if (const StateSlot* count = parts_.state->Find(kLossCount)) {
    const auto* ring = static_cast<const double*>(parts_.state->Find(kLosses)->view.data);
    const int64_t kept = std::min(*static_cast<const int64_t*>(count->view.data), kFinalLossSteps);
    if (kept > 0) out.final_loss = std::accumulate(ring, ring + kept, 0.0) / kept;
  }
  out.step_ms_median = Median(step_ms_);
  out.exposed_ms_median = Median(exposed_ms_);
  const double steps = static_cast<double>(std::max<size_t>(step_ms_.size(), 1));
  out.wire_bytes_per_step = wire_bytes_ / steps;
  out.payload_bytes_per_step = payload_bytes_ / steps;
  return out;
}

}  // namespace tw
