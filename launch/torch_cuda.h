#pragma once
// LibTorch's part for CUDA, which the program does not link: loaded at run time, from the folder
// that the rest of LibTorch was loaded from.

#include <string>

#include "core/base/status.h"

namespace tw {

struct TorchCudaOptions {
  std::string library;  // empty: libtorch_cuda.so beside libtorch_cpu.so
};

// Tensors may be on CUDA devices from now on. ConfigError in one line where that cannot be: no such
// library (a LibTorch for CPUs), one that it needs is missing, no driver, no device. REQUIRES: the
// first call comes before anything asks LibTorch for CUDA, as torch::manual_seed does: it asks
// itself once and keeps the answer. What is loaded stays loaded. Main thread only.
Status LoadTorchCuda(const TorchCudaOptions& options = {});

}  // namespace tw
