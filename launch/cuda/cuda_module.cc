// The entry point of libtightwire_cuda.so: what CUDA code there is, in one table.

#include "launch/cuda_module.h"

#include <utility>

#include "core/kernels/device_queue.h"
#include "launch/build_version.h"

namespace {

tw::StatusOr<tw::OpenedDevice> OpenDevice(int device, std::function<void()> when_full) {
  using tw::kernels::QueueStream;
  tw::OpenedDevice opened;
  TW_ASSIGN_OR_RETURN(opened.memory, tw::kernels::MakeDeviceMemory(device, std::move(when_full)));
  TW_ASSIGN_OR_RETURN(
      opened.training,
      tw::kernels::MakeDeviceQueue(
          {.device = device, .stream = QueueStream::kDefault, .memory = opened.memory.get()}));
  TW_ASSIGN_OR_RETURN(auto lane, tw::kernels::MakeDeviceQueue({.device = device,
                                                               .stream = QueueStream::kOwn,
                                                               .memory = opened.memory.get()}));
  opened.lane_stream = lane->stream();
  opened.lane = std::move(lane);
  return opened;
}

}  // namespace

// The words in capitals come from launch/CMakeLists.txt.
extern "C" __attribute__((visibility("default"))) const tw::CudaModule* tightwire_cuda_module() {
  static const tw::CudaModule module = {
      .abi = tw::kCudaModuleAbi,
      .version = tw::BuildVersion(),
      .built_by = TW_CUDA_BUILT_BY,
      .kernels = TW_CUDA_KERNELS,
      .nccl = TW_CUDA_NCCL,
      .tensors = "cuda",
      .open_device = OpenDevice,
      .make_nccl = TW_CUDA_MAKE_NCCL,
  };
  return &module;
}
