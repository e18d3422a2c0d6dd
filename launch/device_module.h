#pragma once
// Is there a GPU, and the module with what runs on it? Looks for the driver and then loads the
// module, both at run time: the program itself links neither.

#include <string>
#include <vector>

#include "launch/cuda_module.h"

namespace tw {

struct DeviceModuleOptions {
  std::string driver = "libcuda.so.1";
  std::string module;  // empty: libtightwire_cuda.so beside the library (or program) this is in
};

// CUDA's compute capability; below 8.0 there are no kernels here.
struct DeviceCapability {
  int major = 0, minor = 0;
};
std::string ToString(const DeviceCapability& capability);  // "9.0"

// What was found. Without a usable device nothing of the module is loaded.
struct DeviceModule {
  std::vector<std::string> devices;  // names, in CUDA's order
  const CudaModule* module = nullptr;
  std::string reason;  // why module is null: "no driver: libcuda.so.1 not found"
  std::string path;    // of the module that was, or would have been, loaded
  // Both as `devices`, or empty where the driver does not say. An id is the device's own, whatever
  // number a process sees it as: "4a2c8d10-...", as nvidia-smi writes it.
  std::vector<std::string> ids;
  std::vector<DeviceCapability> capabilities;

  bool usable(size_t number) const;
  std::vector<int> usable() const;  // their numbers
};

// What is loaded stays loaded. Thread safe.
DeviceModule LoadDeviceModule(const DeviceModuleOptions& options);
// The same by default options, looked for once a process. Thread safe.
const DeviceModule& ThisMachinesDevices();

}  // namespace tw
