#pragma once
// What libtightwire_cuda.so offers, as one table behind one C entry point. The module is loaded
// only where a GPU is (launch/device_module.h); no type of CUDA is named here, and the program that
// loads it is built without any. Both sides come out of one build: the version says so.

#include <cstdint>
#include <functional>
#include <memory>

#include "comm/nccl/nccl_communicator.h"
#include "core/base/device.h"

namespace tw {

// Raised with every change of CudaModule.
inline constexpr uint32_t kCudaModuleAbi = 3;

// A GPU, taken for a run.
struct OpenedDevice {
  std::unique_ptr<DeviceMemory> memory;
  // On LibTorch's stream, and on one beside it.
  std::unique_ptr<DeviceQueue> training, lane;
  void* lane_stream = nullptr;  // of the latter, for NcclOptions::producer
};

struct CudaModule {
  uint32_t abi;          // kCudaModuleAbi of its build; first, whatever changes behind it
  const char* version;   // BuildVersion() of its build
  const char* built_by;  // "nvcc 13.0.88 for 80-real;90"
  const char* kernels;   // names, as of core/kernels/NAME.cu, with a blank between each
  const char* nccl;      // "NCCL 2.28.9", or why there is none
  const char* tensors;   // LibTorch's word for devices that tensors are on: "cuda"
  // `when_full` as in core/kernels/device_queue.h.
  StatusOr<OpenedDevice> (*open_device)(int device, std::function<void()> when_full);
  // null where it was built without NCCL
  StatusOr<std::unique_ptr<Communicator>> (*make_nccl)(const NcclOptions& options,
                                                       Communicator& control);
};

// extern "C" const tw::CudaModule* tightwire_cuda_module();
inline constexpr char kCudaModuleEntry[] = "tightwire_cuda_module";
using CudaModuleEntry = const CudaModule* (*)();

}  // namespace tw
