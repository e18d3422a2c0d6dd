// A CUDA module that is none, and needs nothing: its table with interface FAKE_ABI and version
// FAKE_VERSION.

#include "launch/cuda_module.h"

extern "C" const tw::CudaModule* tightwire_cuda_module() {
  static const tw::CudaModule module = {.abi = FAKE_ABI,
                                        .version = FAKE_VERSION,
                                        .built_by = "nvcc 1.2 for 80",
                                        .kernels = "elementwise only_cuda",
                                        .nccl = "NCCL 9.9.9",
                                        .tensors = "cuda",
                                        .open_device = nullptr,
                                        .make_nccl = nullptr};
  return &module;
}
