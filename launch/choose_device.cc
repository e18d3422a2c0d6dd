#include "launch/choose_device.h"

#include <algorithm>

#include "launch/torch_cuda.h"

namespace tw {
namespace {

// Why this rank has no GPU of its own that it could use; empty when it has one.
std::string WhyNot(const DeviceModule& devices, const World& world) {
  if (!devices.module) return devices.reason;
  const int count = static_cast<int>(devices.devices.size());
  if (world.local_rank() >= count) {
    return std::to_string(world.local_size()) + " ranks on " + world.host() + ", which has " +
           std::to_string(count) + (count == 1 ? " GPU" : " GPUs");
  }
  const bool cuda = std::string(devices.module->tensors) == "cuda";
  const Status torch = cuda ? LoadTorchCuda() : OkStatus();
  return torch.ok() ? "" : std::string(torch.message());
}

}  // namespace

at::Device TensorDevice(const std::string& word, int number) {
  return at::Device(word.find(':') == std::string::npos ? word + ":" + std::to_string(number)
                                                        : word);
}

namespace {

// What a config asks for and only the host has; empty: nothing.
std::string OnlyOnHosts(const Settings& s) {
  if (s.strategy != "sync") {
    return "strategy.name = \"" + s.strategy + "\" moves tensors on the host";
  }
  if (s.planner != "none") return "planner.name = \"" + s.planner + "\" measures on the host";
  return "";
}

}  // namespace

Status OpenChosenDevice(const Settings& settings, const DeviceModule& devices, World& world,
                        std::string* note) {
  const TrainConfig& train = settings.train;
  const CommConfig& comm = settings.comm;
  const bool nccl = comm.backend == "nccl";
  if (train.device == "cpu" && nccl) {
    return ConfigError(
        "comm.backend = nccl carries gradients between GPUs, and train.device = cpu keeps them in "
        "the host's memory: use mpi");
  }
  if (train.device == "cpu") return OkStatus();
  const std::string why = WhyNot(devices, world);
  const bool must = train.device == "cuda" || nccl;
  if (must) {
    const bool cuda = train.device == "cuda";
    const std::string line = std::string(cuda ? "train.device = cuda" : "comm.backend = nccl") +
                             ": no GPU to use: " + why + (cuda ? "; cpu works" : "; mpi works");
    TW_RETURN_IF_ERROR(world.AgreeOn(why.empty() ? OkStatus() : DataError(line)));
    return world.OpenDevice(devices, comm.backend, comm.timeout_s);
  }
  if (const std::string only = OnlyOnHosts(settings); !only.empty()) {
    if (!devices.devices.empty()) {
      *note = "train.device = auto: tensors lie in the host's memory; " + only;
    }
    return OkStatus();
  }
  std::vector<int64_t> able;
  TW_RETURN_IF_ERROR(world.lane().Run([&]() -> Status {
    TW_ASSIGN_OR_RETURN(able, world.comm().AllGatherInt(why.empty() ? 1 : 0, {0, -1, "devices"}));
    return OkStatus();
  }));
  const auto without = std::find(able.begin(), able.end(), 0);
  if (without == able.end()) return world.OpenDevice(devices, comm.backend, comm.timeout_s);
  if (!devices.devices.empty()) {
    *note = "train.device = auto: tensors lie in the host's memory; " +
            (why.empty() ? "rank " + std::to_string(without - able.begin()) + " has no GPU to use"
                         : why);
  }
  return OkStatus();
}

ChosenDevice DeviceOf(const DeviceModule& devices, const World& world) {
  if (!world.device().memory) return {};
  const int number = world.local_rank();
  return {devices.devices[static_cast<size_t>(number)],
          TensorDevice(devices.module->tensors, number)};
}

Status CheckOnDevice(const Settings& s, const Assembly& a, bool grouped) {
  const std::string cpu = "; train.device = cpu works";
  if (s.comm.sums == "library" && grouped) {
    return ConfigError(
        "comm.sums = \"library\" is a sum of all ranks, and comm.hierarchical has "
        "groups of them: use comm.sums = \"auto\"");
  }
  if (const std::string only = OnlyOnHosts(s); !only.empty()) return ConfigError(only + cpu);
  for (const ParameterPlan& p : a.plan->parameters()) {
    if (p.spec.dtype == DType::kF64) {
      return ConfigError("parameter " + p.spec.name + " is fp64, which no kernel on a GPU takes" +
                         cpu);
    }
    if (const char* why = p.route.codec->traits().host_only) {
      return ConfigError("compressor.name = \"" + p.route.compressor + "\": " + why + cpu);
    }
    if (p.route.exchange->merge() == Merge::kSparse) {
      return ConfigError("compressor.merge = \"sparse\" adds lists on the host" + cpu);
    }
  }
  for (const ParameterPlan& p : a.plan->parameters()) {
    TensorSpec spec = p.spec;
    if (a.masters != Masters::kNone && spec.dtype == DType::kBF16) spec.dtype = DType::kF32;
    const Status step = a.optimizer->CheckOnDevice(spec, a.treatments[spec.id]);
    if (!step.ok()) return ConfigError(std::string(step.message()) + cpu);
  }
  return OkStatus();
}

}  // namespace tw
