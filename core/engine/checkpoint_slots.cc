#include "core/engine/checkpoint_slots.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <array>
#include <cstdio>
#include <cstring>

#include "core/base/device.h"

namespace tw {
namespace {

constexpr std::array<std::pair<DType, at::ScalarType>, 7> kTypes = {{
    {DType::kF32, at::kFloat},
    {DType::kF64, at::kDouble},
    {DType::kF16, at::kHalf},
    {DType::kBF16, at::kBFloat16},
    {DType::kU8, at::kByte},
    {DType::kI32, at::kInt},
    {DType::kI64, at::kLong},
}};

at::ScalarType ScalarTypeOf(DType dtype) {
  for (const auto& [ours, theirs] : kTypes) {
    if (ours == dtype) return theirs;
  }
  TW_CHECK(false);
  return at::kFloat;
}

std::string Describe(const std::vector<int64_t>& shape, const char* dtype) {
  std::string out = std::string(dtype) + " [";
  for (size_t i = 0; i < shape.size(); ++i) out += (i ? ", " : "") + std::to_string(shape[i]);
  return out + "]";
}

}  // namespace

std::string RankFile(int rank) {
  char name[40];
  std::snprintf(name, sizeof(name), "rank-%05d.safetensors", rank);
  return name;
}

std::vector<std::pair<std::string, at::Tensor>> SlotTensors(const StateBag& state,
                                                            Reshard reshard) {
  std::vector<std::pair<std::string, at::Tensor>> out;
  state.ForEach([&](const std::string& name, const StateSlot& slot) {
    if (slot.reshard != reshard) return;
    const at::ScalarType type = ScalarTypeOf(slot.view.dtype);
    if (slot.view.numel > 0 && !slot.on_device) {
      out.emplace_back(name, at::from_blob(slot.view.data, slot.shape, type));
      return;
    }
    const at::Tensor copy = at::empty(slot.shape, type);
    GetBytes(copy.data_ptr(), slot.view.data, static_cast<size_t>(slot.view.bytes()));
    out.emplace_back(name, copy);
  });
  return out;
}

Status PutSlot(StateBag* state, const std::string& name, Reshard reshard, const at::Tensor& from) {
  const DType* dtype = nullptr;
  for (const auto& [ours, theirs] : kTypes) {
    if (theirs == from.scalar_type()) dtype = &ours;
  }
  if (!dtype) {
    return DataError("state " + name + ": no state is ever " + c10::toString(from.scalar_type()));
  }
  const std::vector<int64_t> shape = from.sizes().vec();
  if (const StateSlot* there = state->Find(name)) {
    if (there->shape != shape || there->view.dtype != *dtype) {
      return DataError("state " + name + " is " + Describe(shape, DTypeName(*dtype)) +
                       " in the checkpoint, " +
                       Describe(there->shape, DTypeName(there->view.dtype)) + " in this run");
    }
  }
  const TensorView to = state->Restore(name, shape, *dtype, reshard);
  const at::Tensor flat = from.contiguous();
  const size_t bytes = static_cast<size_t>(to.bytes());
  if (state->Find(name)->on_device) {
    PutBytes(to.data, flat.const_data_ptr(), bytes);
  } else if (bytes > 0) {
    std::memcpy(to.data, flat.const_data_ptr(), bytes);
  }
  return OkStatus();
}

}  // namespace tw
