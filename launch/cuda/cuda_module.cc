// The entry point of libtightwire_cuda.so: what CUDA code there is, in one table.

#include "launch/cuda_module.h"

#include "launch/build_version.h"

// The words in capitals come from launch/CMakeLists.txt.
extern "C" __attribute__((visibility("default"))) const tw::CudaModule* tightwire_cuda_module() {
  static const tw::CudaModule module = {
      .abi = tw::kCudaModuleAbi,
      .version = tw::BuildVersion(),
      .built_by = TW_CUDA_BUILT_BY,
      .kernels = TW_CUDA_KERNELS,
      .nccl = TW_CUDA_NCCL,
      .make_nccl = TW_CUDA_MAKE_NCCL,
  };
  return &module;
}
