#include "core/engine/task/module_task.h"

#include <ATen/CPUGeneratorImpl.h>

#include <unordered_set>

#include "core/data/batch_key.h"
#include "core/nn/layers.h"
#include "core/nn/safetensors/safetensors.h"
#include "core/nn/to_device.h"

namespace tw {

void MoveModule(torch::nn::Module& module, at::Device device) {
  if (!device.is_cpu()) module.to(device);
}

ModuleTask::ModuleTask(std::shared_ptr<torch::nn::Module> module, const TaskOptions& options)
    : options_(options), module_(std::move(module)) {
  MoveModule(*module_, options_.device);
}

at::Tensor ModuleTask::Moved(const at::Tensor& batch) const {
  return ToDevice(batch, options_.device);
}

std::vector<std::pair<std::string, at::Tensor>> ModuleTask::parameters() {
  std::vector<std::pair<std::string, at::Tensor>> out;
  std::unordered_set<at::TensorImpl*> seen;
  for (const auto& item : module_->named_parameters()) {
    if (!item.value().requires_grad()) continue;
    if (seen.insert(item.value().unsafeGetTensorImpl()).second)
      out.emplace_back(item.key(), item.value());
  }
  return out;
}

Sketches ModuleTask::sketches() {
  Sketches out;
  for (const auto& item : module_->named_modules()) {
    const auto* linear = item.value()->as<Linear>();
    if (!linear || !linear->sketch()) continue;
    out.emplace((item.key().empty() ? "" : item.key() + ".") + "weight", *linear->sketch());
  }
  return out;
}

Status ModuleTask::LoadWeights(const std::string& path) {
  return LoadSafetensors(path, parameters(), TiedNames());
}

Status ModuleTask::SaveWeights(const std::string& path) const {
  NamedTensors tensors;
  for (const auto& item : module_->named_parameters())
    tensors.emplace_back(item.key(), item.value());
  return WriteSafetensors(path, tensors, {{"format", "pt"}});  // the word other loaders look for
}

at::Generator ModuleTask::BatchGenerator(uint64_t step, int64_t micro) const {
  const BatchKey key{options_.seed, static_cast<int64_t>(step), micro, options_.rank};
  return at::detail::createCPUGenerator(key.Stream().key);
}

}  // namespace tw
