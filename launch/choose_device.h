#pragma once
// train.device: whether this run's tensors lie on GPUs.

#include <string>

#include "launch/compose.h"
#include "launch/device_module.h"
#include "launch/settings.h"
#include "launch/world.h"

namespace tw {

// Opens the device that train.device and comm.backend ask for, or none; LibTorch's part of it is
// loaded. auto: GPUs when each rank has one of its own that opens, everything needed is there, and
// strategy, planner and compressors work there, else the host's memory; *note says why where there
// are GPUs and they are not used. Which GPU a rank takes: docs/guide.md. Collective; the same
// verdict on all ranks.
Status OpenChosenDevice(const LoadedConfig& loaded, const DeviceModule& devices, World& world,
                        std::string* note);

// Whether the host's memory will not do.
bool InsistsOnDevice(const Settings& settings);
// The line about GPUs that are not used.
std::string HostNote(const std::string& why);

// Where a run's tensors are.
struct ChosenDevice {
  std::string name;  // "NVIDIA H200", for logs and checkpoints; empty: the host
  at::Device tensors = at::kCPU;
};
// LibTorch's device for CudaModule::tensors: "cuda" is that of the number, "mtia:0" is itself.
at::Device TensorDevice(const std::string& word, int number);
// The module's device of this number. Where it has no memory left, LibTorch gives up what it keeps
// there without a tensor in it.
StatusOr<OpenedDevice> OpenBesideTensors(const CudaModule& module, int number);
// What OpenChosenDevice has chosen.
ChosenDevice DeviceOf(const DeviceModule& devices, const World& world);

// ConfigError about the first thing of a run that does not work on a device. `grouped`: ranks of a
// group sum among themselves first.
Status CheckOnDevice(const Settings& settings, const Assembly& assembly, bool grouped);
// The same as the line that ends a run: what works instead is added.
Status RefusedOnDevice(const Settings& settings, const Status& why);

}  // namespace tw
