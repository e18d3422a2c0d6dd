#include "core/engine/update.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <algorithm>
#include <functional>
#include <iterator>

#include "core/api/convert.h"
#include "core/base/device.h"
#include "core/base/rng.h"
#include "core/engine/tensor_views.h"
#include "core/kernels/elementwise.h"
#include "core/kernels/state_codes.h"

namespace tw {
namespace {

bool TakesMasters(const ParameterView& p, Masters masters) {
  return masters != Masters::kNone && p.value.dtype == DType::kBF16;
}

// The step of one bf16 parameter, in fp32. On a device, where the optimizer has it, in one pass.
Status StepViewOf(const Optimizer& optimizer, const ParameterView& p, const UpdateContext& context,
                  Workspace& scratch) {
  const size_t numel = static_cast<size_t>(p.value.numel);
  const std::span<uint16_t> narrow(static_cast<uint16_t*>(p.value.data), numel);
  TensorSpec spec = *p.spec;
  spec.dtype = DType::kF32;
  const bool has_master = context.masters == Masters::kFp32;  // else it is rounded at random
  TensorView master;
  if (has_master) {
    bool is_new = false;
    master = context.state->Slot("optimizer/" + spec.name + "/master", spec.shape, DType::kF32,
                                 context.moments, &is_new, StatePlace::kTensors);
    if (is_new) ConvertToFp32(p.value, master.f32());
  }
  const RngStream stream =
      RngStream::Of(context.seed, RngPurpose::kStateRounding, static_cast<uint64_t>(context.update),
                    spec.id, kSharedRank);
  const uint64_t key = stream.key + 2 * 0x9E3779B97F4A7C15ull;  // not those of the moments 0 and 1
  if (CurrentQueue()) {
    const kernels::NarrowParameter in_place{narrow.data(), static_cast<uint16_t*>(p.grad.data),
                                            static_cast<float*>(master.data), key, p.value.numel};
    if (optimizer.StepNarrow(spec, in_place, context)) return OkStatus();
  }

  const std::span<float> grad = scratch.Get<float>(kScratchMessage, numel);
  ConvertToFp32(p.grad, grad);
  const TensorView value = has_master ? master : ViewOf(scratch.Get<float>(kScratchMean, numel));
  if (!has_master) ConvertToFp32(p.value, value.f32());
  const ParameterView wide[] = {{&spec, value, ViewOf(grad)}};
  TW_RETURN_IF_ERROR(optimizer.Step(wide, context));
  if (has_master) {
    kernels::ConvertToBf16(value.f32(), narrow);
  } else {
    kernels::RoundToBf16(value.f32(), key, 0, narrow);
  }
  return OkStatus();
}

}  // namespace

int64_t MasterBytes(const TensorSpec& spec, Masters masters) {
  const bool kept = masters == Masters::kFp32 && spec.dtype == DType::kBF16;
  return kept ? spec.numel() * DTypeBytes(DType::kF32) : 0;
}

Status Update(const Optimizer& optimizer, std::span<const ParameterView> parameters,
              const UpdateContext& context) {
  const auto own_way = [&](const ParameterView& p) {
    return p.expansion != nullptr || TakesMasters(p, context.masters);
  };
  if (std::none_of(parameters.begin(), parameters.end(), own_way)) {
    return optimizer.Step(parameters, context);
  }

  const WeightDecay decay = optimizer.weight_decay();
  std::vector<ParameterView> whole;
  std::copy_if(parameters.begin(), parameters.end(), std::back_inserter(whole),
               std::not_fn(own_way));
  TW_RETURN_IF_ERROR(optimizer.Step(whole, context));
  Workspace own;
  Workspace& scratch = context.scratch ? *context.scratch : own;
  {
    Together together;
    for (const ParameterView& p : parameters) {
      if (!own_way(p) || p.expansion != nullptr) continue;
      together.Next();
      TW_RETURN_IF_ERROR(StepViewOf(optimizer, p, context, scratch));
    }
  }
  for (const ParameterView& p : parameters) {
    if (p.expansion == nullptr) continue;
    TW_CHECK(p.value.dtype == DType::kF32);
    TW_CHECK(decay.decoupled || decay.rate == 0);
    // On the host it goes as it came: moments and gradients of the others want the memory.
    at::Tensor memory;
    if (!CurrentQueue()) memory = at::empty({p.grad.numel}, at::kFloat);
    const TensorView update =
        memory.defined()
            ? ViewOf(memory)
            : ViewOf(scratch.Get<float>(kScratchMean, static_cast<size_t>(p.grad.numel)));
    FillZero(update);
    const ParameterView zeros[] = {{p.spec, update, p.grad}};
    TW_RETURN_IF_ERROR(optimizer.Step(zeros, context));
    p.expansion->Apply(p.value, 1 - context.lr * decay.rate, update);
  }
  return OkStatus();
}

}  // namespace tw
