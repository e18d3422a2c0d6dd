#include "launch/torch_cuda.h"

#include <ATen/Context.h>
#include <dlfcn.h>

#include <filesystem>

namespace tw {
namespace {

constexpr char kName[] = "libtorch_cuda.so";

// Where the code of at::detail::getCUDAHooks lies, which is libtorch_cpu.so.
std::filesystem::path TorchFolder() {
  Dl_info info{};
  if (!dladdr(reinterpret_cast<void*>(&at::detail::getCUDAHooks), &info) || !info.dli_fname) {
    return ".";
  }
  std::error_code ignored;
  const auto path = std::filesystem::canonical(info.dli_fname, ignored);
  return ignored ? "." : path.parent_path();
}

Status NoCuda(const std::string& reason) {
  return ConfigError("LibTorch cannot use a GPU here: " + reason);
}

}  // namespace

Status LoadTorchCuda(const TorchCudaOptions& options) {
  const std::string path =
      options.library.empty() ? (TorchFolder() / kName).string() : options.library;
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored)) {
    return NoCuda("there is no " + path + "; this LibTorch is one for CPUs");
  }
  // Global: its operators, and what is loaded after it, find each other by name.
  if (!dlopen(path.c_str(), RTLD_NOW | RTLD_GLOBAL)) {
    const char* error = dlerror();
    return NoCuda(path + " does not load: " + (error ? error : "unknown"));
  }
  if (at::globalContext().hasCUDA()) {
    // fp32 is fp32: convolutions would take 10 bits of it by default, products do not.
    at::globalContext().setAllowTF32CuDNN(false);
    return OkStatus();
  }
  return NoCuda("no driver or no device, or it was asked for one before " + path + " was loaded");
}

}  // namespace tw
