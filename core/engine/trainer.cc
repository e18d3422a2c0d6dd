// One step, read top to bottom: Step -> strategy -> ComputeGradients, FinishExchange, ApplyUpdate
// (or their local kin, trainer_local_steps.cc) -> Report. Next: gradient_reducer.cc.
#include "core/engine/trainer.h"

#include <ATen/TensorOperators.h>

#include "core/api/convert.h"
#include "core/base/clock.h"
#include "core/base/log.h"
#include "core/base/thread_time.h"
#include "core/engine/catch_torch.h"
#include "core/engine/update.h"

namespace tw {
Trainer::Trainer(const TrainerParts& parts, const TrainerOptions& options)
    : TurnMachine(parts.reducer, parts.state, parts.comm, options.seed),
      parts_(parts),
      options_(options),
      losses_(parts.state),
      norms_(parts.device),
      optimizer_scratch_(parts.device.memory) {
  for (const ParameterView& p : parts_.reducer->views()) {
    summary_.dense_bytes_per_step += 4 * p.value.numel;
  }
}

Status Trainer::Run(int64_t first_step) {
  const double start = NowMs();
  TW_RETURN_IF_ERROR(parts_.strategy->Continue(*this));
  for (int64_t step = first_step; step < options_.steps; ++step) {
    TW_RETURN_IF_ERROR(Step(step));
    summary_.wall_s = (NowMs() - start) / 1e3;
  }
  for (MetricSink* sink : parts_.sinks) TW_RETURN_IF_ERROR(sink->Flush());
  return OkStatus();
}

Status Trainer::Step(int64_t step) {
  step_ = step;
  BeginTurns();
  record_.step = step + 1;
  record_.lr = options_.lr * parts_.schedule->Factor(step, options_.steps);
  record_.dense_bytes = summary_.dense_bytes_per_step;
  if (parts_.spans) parts_.spans->BeginStep(step + 1);
  const double start = NowMs();
  const ThreadTime thread_start = ThisThreadTime();
  TW_ASSIGN_OR_RETURN(const StepResult result, parts_.strategy->Step(*this));
  if (ReportIsDue() && !parts_.reducer->exchanging()) norms_.StartResiduals(*parts_.state);
  TW_ASSIGN_OR_RETURN(record_.grad_norm, norms_.ReadGradients());
  record_.step_ms = NowMs() - start;
  const ThreadTime thread_end = ThisThreadTime();
  record_.cpu_ms = thread_end.cpu_ms - thread_start.cpu_ms;
  record_.core_wait_ms = thread_end.core_wait_ms - thread_start.core_wait_ms;
  if (parts_.spans) TW_RETURN_IF_ERROR(parts_.spans->EndStep(start, start + record_.step_ms));
  TW_RETURN_IF_ERROR(parts_.state->mismatch());
  if (!updated_ && result.skip == Skip::kNo) {  // whoever has moments has asked for them by now
    updated_ = true;
    TW_RETURN_IF_ERROR(parts_.state->Unclaimed("optimizer/"));
  }
  record_.skipped = result.skip != Skip::kNo;
  for (const std::string& name : parts_.reducer->TakeNewlyUnused()) {
    LogWarning("parameter " + name + " got no gradient in step " + std::to_string(step) +
               "; it counts as zero");
  }
  TW_RETURN_IF_ERROR(skips_.Add(result, step_, options_.max_skipped));
  TW_RETURN_IF_ERROR(Report());
  if (parts_.plan_updater) TW_RETURN_IF_ERROR(parts_.plan_updater->EndStep(record_));
  record_ = {};  // an exchange that a checkpoint waits for is the next step's
  check_due_ = check_due_ || (options_.check_replicas_every > 0 &&
                              (step + 1) % options_.check_replicas_every == 0);
  if (check_due_ && result.replicas_equal) {
    check_due_ = false;
    TW_RETURN_IF_ERROR(CheckReplicas());
  }
  if (options_.checkpoint_every > 0 && parts_.save_checkpoint &&
      ((step + 1) % options_.checkpoint_every == 0 || step + 1 == options_.steps)) {
    TW_RETURN_IF_ERROR(parts_.strategy->Pause(*this));
    TW_RETURN_IF_ERROR(parts_.save_checkpoint(step + 1));
    TW_RETURN_IF_ERROR(parts_.strategy->Continue(*this));
  }
  return OkStatus();
}

Status Trainer::CheckReplicas() {
  if (parts_.comm->size() == 1) return OkStatus();
  const DeviceScope scope(parts_.device.training);
  const uint64_t hash = ParametersHash(parts_.reducer->views());
  return parts_.lane->Run([&] {
    return parts_.comm->Agree(hash, "params_hash after step " + std::to_string(step_), Fault::kBug);
  });
}

StatusOr<double> Trainer::ComputeGradients() {
  TW_RETURN_IF_ERROR(Backward(/*exchange=*/true));
  return record_.loss;
}

Status Trainer::Backward(bool exchange, int64_t batch) {
  parts_.reducer->ZeroGradients();
  std::vector<at::Tensor> losses;  // read at the end: on a device that waits
  for (int64_t micro = 0; micro < options_.accumulate; ++micro) {
    at::Tensor loss;
    {
      ScopedTimer timer(&record_.forward_ms, {parts_.spans, SpanKind::kForward});
      TW_RETURN_IF_ERROR(CatchTorch([&]() -> Status {
        loss = parts_.task->Loss(static_cast<uint64_t>(step_), batch * options_.accumulate + micro);
        losses.push_back(loss.detach());
        return OkStatus();
      }));
    }
    if (exchange && micro + 1 == options_.accumulate) {
      parts_.reducer->Arm(static_cast<uint64_t>(step_));
    }
    ScopedTimer timer(&record_.backward_ms, {parts_.spans, SpanKind::kBackward});
    TW_RETURN_IF_ERROR(CatchTorch([&]() -> Status {
      if (options_.accumulate > 1) loss = loss / static_cast<double>(options_.accumulate);
      loss.backward();
      return OkStatus();
    }));
  }
  double sum = 0;
  for (const at::Tensor& loss : losses) sum += loss.item<double>();
  record_.loss = sum / static_cast<double>(options_.accumulate);
  return OkStatus();
}

StatusOr<double> Trainer::LocalBackward(int64_t batch) {
  TW_RETURN_IF_ERROR(Backward(/*exchange=*/false, batch));
  return record_.loss;
}

// A step's loss is that of its last turn.
void Trainer::RecordTurn(const ReduceOutcome& outcome, double loss) {
  record_.loss = loss;
  if (outcome.finite) losses_.Add(loss);
  RecordExchange(outcome);
}

StatusOr<bool> Trainer::FinishExchange() {
  double sums[] = {record_.loss};
  TW_ASSIGN_OR_RETURN(const ReduceOutcome outcome, parts_.reducer->Finish(sums));
  RecordTurn(outcome, sums[0] / parts_.comm->size());
  return outcome.finite;
}

// Of all exchanges of the step.
void Trainer::RecordExchange(const ReduceOutcome& outcome) {
  record_.exposed_ms += outcome.exposed_ms;
  record_.encode_ms += outcome.times.encode_ms;
  record_.exchange_ms += outcome.times.exchange_ms;
  record_.decode_ms += outcome.times.decode_ms;
  record_.payload_bytes += outcome.times.payload_bytes;
  record_.wire_bytes += outcome.wire_bytes;
}

Status Trainer::ApplyUpdate() {
  const TensorView count =
      parts_.state->Slot("trainer/update", {1}, DType::kI64, Reshard::kReplicated);
  return Update(++*static_cast<int64_t*>(count.data), Reshard::kReplicated);
}

// Norm and update are own kernels with fixed reduction trees: every rank computes the same bits
// from the same mean.
Status Trainer::Update(int64_t update, Reshard moments) {
  ScopedTimer timer(&record_.optimizer_ms, {parts_.spans, SpanKind::kOptimizer});
  const DeviceScope scope(parts_.device.training);
  norms_.MeasureGradients(parts_.reducer->views());
  const StepNorms::Clipping clipping(norms_, options_.grad_clip);
  return tw::Update(*parts_.optimizer, parts_.reducer->views(),
                    {.lr = record_.lr,
                     .grad_scale = clipping.scale(),
                     .update = update,
                     .state = parts_.state,
                     .moments = moments,
                     .treatments = parts_.treatments,
                     .scratch = &optimizer_scratch_,
                     .seed = options_.seed,
                     .masters = options_.masters});
}

Status Trainer::Report() {
  const int64_t batches = (step_ + 1) * options_.accumulate * parts_.comm->size();
  record_.samples = batches * parts_.task->samples_per_batch();
  record_.tokens = batches * parts_.task->tokens_per_batch();
  summary_.steps = step_ + 1;
  summary_.tokens = record_.tokens;
  statistics_.Add(record_);
  if (!ReportIsDue()) return OkStatus();
  record_.residual_norm = residual_norm_;
  if (!parts_.reducer->exchanging()) {
    TW_ASSIGN_OR_RETURN(record_.residual_norm, norms_.ReadResiduals(*parts_.state));
  }
  if (parts_.peak_tensor_bytes) record_.peak_tensor_bytes = parts_.peak_tensor_bytes();
  for (MetricSink* sink : parts_.sinks) TW_RETURN_IF_ERROR(sink->Write(record_));
  return OkStatus();
}

TrainSummary Trainer::summary() const {
  TrainSummary out = summary_;
  out.skipped = skips_.total();
  out.final_loss = losses_.FinalLoss();
  statistics_.Fill(&out);
  return out;
}

}  // namespace tw
