#include "core/engine/fleet/fleet_client.h"

#include <cstring>
#include <limits>

namespace tw {
namespace {

size_t Rounded(int64_t bytes) { return (static_cast<size_t>(bytes) + 63) / 64 * 64; }

}  // namespace

size_t RoomFor(std::span<const TensorView> views) {
  size_t total = 0;
  for (const TensorView& v : views) total += Rounded(v.bytes());
  return total;
}

void LayOut(std::span<const TensorView> like, uint8_t* memory, std::vector<TensorView>* out) {
  out->clear();
  for (const TensorView& v : like) {
    out->push_back({memory, v.dtype, v.numel});
    memory += Rounded(v.bytes());
  }
}

FleetClient::FleetClient(Problem* problem, std::span<const TensorView> x, StateBag* state,
                         uint64_t seed, int first, int count)
    : problem_(problem), x_(x.begin(), x.end()), state_(state), first_(first) {
  call_.seed = seed;
  for (int id = first; id < first + count; ++id) {
    const std::string own = "client/" + std::to_string(id) + "/";
    for (const TensorSpec& spec : problem->parameters()) {
      const auto scope = [&](const std::string& owner) {
        return StateScope(state, own + owner + "/" + spec.name + "/",
                          owner + "/" + spec.name + "/");
      };
      lots_.push_back({scope("codec"), scope("feedback"), scope("strategy")});
    }
  }
  for (size_t p = 0; p < x_.size(); ++p) views_.push_back({&problem->parameters()[p], {}, {}});
}

void FleetClient::PointGradients(AlignedBuffer& memory) {
  LayOut(x_, memory.Reserve(RoomFor(x_)), &grads_);
}

void FleetClient::Begin(int id, uint64_t step, bool moves, int keep) {
  id_ = id;
  call_.client = id;
  call_.step = step;
  loss_ = std::numeric_limits<double>::quiet_NaN();
  if (moves) {
    LayOut(x_, working_.Reserve(RoomFor(x_)), &own_values_);
    for (size_t p = 0; p < x_.size(); ++p) {
      if (x_[p].numel) {
        std::memcpy(own_values_[p].data, x_[p].data, static_cast<size_t>(x_[p].bytes()));
      }
    }
  }
  values_ = moves ? own_values_ : x_;
  if (keep >= 0 && kept_grads_.size() <= static_cast<size_t>(keep)) {
    kept_grads_.resize(static_cast<size_t>(keep) + 1);
  }
  PointGradients(keep >= 0 ? kept_grads_[static_cast<size_t>(keep)] : shared_grads_);
  for (size_t p = 0; p < views_.size(); ++p) {
    views_[p].value = values_[p];
    views_[p].grad = grads_[p];
  }
  touched_.clear();
  in_work_ = true;
}

StatusOr<double> FleetClient::ComputeGradients(int64_t batch) {
  call_.batch = batch;
  TW_ASSIGN_OR_RETURN(loss_, problem_->Gradient(call_, values_, grads_));
  return loss_;
}

TensorView FleetClient::Slot(const char* name, size_t parameter, bool* created) {
  const TensorSpec& spec = *views_[parameter].spec;
  const StateScope& scope = lots_[LotOf(id_, parameter)].strategy;
  bool made = false;
  const TensorView view =
      scope.Slot(name, spec.shape, spec.dtype == DType::kF64 ? DType::kF64 : DType::kF32,
                 Reshard::kKeepMean, &made);
  if (created) *created = made;
  if (in_work_) Remember(made ? scope.prefix() + name : std::string(), view, made);
  return view;
}

void FleetClient::Remember(const std::string& full_name, TensorView view, bool created) {
  for (const Touched& t : touched_) {
    if (t.view.data == view.data && view.data) return;
  }
  touched_.push_back({full_name, view});
  if (created) return;
  if (before_.size() < touched_.size()) before_.resize(touched_.size());
  const size_t bytes = static_cast<size_t>(view.bytes());
  uint8_t* const copy = before_[touched_.size() - 1].Reserve(bytes);
  if (bytes) std::memcpy(copy, view.data, bytes);
}

void FleetClient::End(bool keep_slots) {
  in_work_ = false;
  if (keep_slots) return;
  for (size_t i = 0; i < touched_.size(); ++i) {
    const Touched& t = touched_[i];
    if (!t.name.empty()) {
      state_->Erase(t.name);
    } else if (t.view.numel) {
      std::memcpy(t.view.data, before_[i].data(), static_cast<size_t>(t.view.bytes()));
    }
  }
}

int64_t FleetClient::memory_bytes() const {
  size_t total = working_.capacity() + shared_grads_.capacity();
  for (const AlignedBuffer& b : kept_grads_) total += b.capacity();
  for (const AlignedBuffer& b : before_) total += b.capacity();
  return static_cast<int64_t>(total);
}

}  // namespace tw
