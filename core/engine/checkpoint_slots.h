#pragma once
// The state bag as tensors, for the two halves of the checkpoint. Private to core/engine.

#include <ATen/core/Tensor.h>

#include <string>
#include <utility>
#include <vector>

#include "core/base/state_bag.h"

namespace tw {

inline constexpr char kModelFile[] = "model.safetensors";
inline constexpr char kReplicatedFile[] = "replicated.safetensors";
std::string RankFile(int rank);  // "rank-00003.safetensors"

// Views of the slots' memory, in name order; good until the bag changes its slots. Copies of those
// on a device: in its DeviceScope.
std::vector<std::pair<std::string, at::Tensor>> SlotTensors(const StateBag& state, Reshard reshard);
// Copies `from` into the slot of that name, which is made where it does not exist. DataError when
// one of another shape or dtype is there.
Status PutSlot(StateBag* state, const std::string& name, Reshard reshard, const at::Tensor& from);

}  // namespace tw
