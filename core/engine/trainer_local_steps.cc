// Steps of each rank's own, and exchanges of what they moved; the rest of the trainer is in
// trainer.cc.

#include <cmath>

#include "core/api/convert.h"
#include "core/engine/norms.h"
#include "core/engine/trainer.h"

namespace tw {

StatusOr<LocalGradients> Trainer::ComputeLocalGradients() {
  TW_RETURN_IF_ERROR(Backward(/*exchange=*/false));
  const bool finite = GradientsFinite(parts_.reducer->views());
  losses_.AddOwn(record_.loss, finite && std::isfinite(record_.loss));
  return LocalGradients{record_.loss, finite};
}

// In fp64: ranks that skipped have counts of their own, and at another number of ranks their mean
// goes on. After common updates, whose moments each rank takes over, it is their count that goes
// on.
double& Trainer::OwnUpdates() {
  bool created = false;
  auto* own = static_cast<double*>(
      parts_.state->Slot("trainer/own_updates", {1}, DType::kF64, Reshard::kKeepMean, &created)
          .data);
  const StateSlot* common = created ? parts_.state->Find("trainer/update") : nullptr;
  if (common) *own = static_cast<double>(*static_cast<const int64_t*>(common->view.data));
  return *own;
}

Status Trainer::ApplyLocalUpdate() {
  return Update(std::llround(++OwnUpdates()), Reshard::kKeepMean);
}

void Trainer::ForgetMoments() {
  OwnUpdates() = 0;
  parts_.state->ForEach([](const std::string& name, const StateSlot& slot) {
    if (name.starts_with("optimizer/")) FillZero(slot.view);
  });
}

StatusOr<bool> Trainer::Exchange(std::span<const TensorView> vectors) {
  std::vector<double> sums = losses_.TakeWaiting();
  TW_ASSIGN_OR_RETURN(const ReduceOutcome outcome,
                      parts_.reducer->Exchange(static_cast<uint64_t>(step_), vectors, sums));
  record_.loss = losses_.Settle(sums, record_.loss);
  RecordExchange(outcome);
  return outcome.finite;
}

Status Trainer::StartExchange(std::span<const TensorView> vectors) {
  residual_norm_ = ResidualNorm(*parts_.state);
  started_sums_ = losses_.TakeWaiting();
  parts_.reducer->StartExchange(static_cast<uint64_t>(step_), vectors, started_sums_);
  return OkStatus();
}

StatusOr<bool> Trainer::FinishStarted() {
  TW_ASSIGN_OR_RETURN(const ReduceOutcome outcome, parts_.reducer->FinishExchange(started_sums_));
  losses_.Settle(started_sums_, record_.loss);
  RecordExchange(outcome);
  return outcome.finite;
}

}  // namespace tw
