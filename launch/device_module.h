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

// What was found. Without a device nothing of the module is loaded.
struct DeviceModule {
  std::vector<std::string> devices;  // names, in CUDA's order
  const CudaModule* module = nullptr;
  std::string reason;  // why module is null: "no driver: libcuda.so.1 not found"
  std::string path;    // of the module that was, or would have been, loaded
};

// What is loaded stays loaded. Thread safe.
DeviceModule LoadDeviceModule(const DeviceModuleOptions& options);
// The same by default options, looked for once a process. Thread safe.
const DeviceModule& ThisMachinesDevices();

}  // namespace tw
