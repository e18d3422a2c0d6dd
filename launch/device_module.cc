#include "launch/device_module.h"

#include <dlfcn.h>

#include <array>
#include <filesystem>

#include "launch/build_version.h"

namespace tw {
namespace {

// From CUDA's driver interface, which has kept these since its beginning.
constexpr int kDriverSuccess = 0;
constexpr int kDriverNoDevice = 100;
using InitFunction = int (*)(unsigned);
using CountFunction = int (*)(int*);
using GetFunction = int (*)(int*, int);
using NameFunction = int (*)(char*, int, int);

// What the loader last complained of, in one line; without the name of the file it starts with.
std::string LoaderError() {
  const char* text = dlerror();
  return text ? text : "unknown";
}

// The devices' names; an empty list comes with a reason.
std::vector<std::string> FindDevices(const std::string& driver, std::string* reason) {
  void* library = dlopen(driver.c_str(), RTLD_NOW | RTLD_GLOBAL);
  if (!library) {
    *reason = "no driver: " + driver + " not found";
    return {};
  }
  const auto init = reinterpret_cast<InitFunction>(dlsym(library, "cuInit"));
  const auto count = reinterpret_cast<CountFunction>(dlsym(library, "cuDeviceGetCount"));
  const auto get = reinterpret_cast<GetFunction>(dlsym(library, "cuDeviceGet"));
  const auto name = reinterpret_cast<NameFunction>(dlsym(library, "cuDeviceGetName"));
  if (!init || !count || !get || !name) {
    *reason = "no driver: " + driver + " is not CUDA's";
    return {};
  }
  int num_devices = 0;
  int code = init(0);
  if (code == kDriverSuccess) code = count(&num_devices);
  if (code == kDriverNoDevice || (code == kDriverSuccess && num_devices == 0)) {
    *reason = "driver there, no device";
    return {};
  }
  if (code != kDriverSuccess) {
    *reason = "driver there, but it does not start: CUDA error " + std::to_string(code);
    return {};
  }
  std::vector<std::string> names;
  for (int i = 0; i < num_devices; ++i) {
    std::array<char, 256> text{};
    int device = 0;
    const bool named = get(&device, i) == kDriverSuccess &&
                       name(text.data(), text.size() - 1, device) == kDriverSuccess;
    names.push_back(named ? text.data() : "unnamed");
  }
  return names;
}

// Where the code of this file lies: libtightwire.so, or a test's program.
std::filesystem::path OwnFolder() {
  Dl_info info{};
  if (!dladdr(reinterpret_cast<void*>(&LoadDeviceModule), &info) || !info.dli_fname) return ".";
  std::error_code ignored;
  const auto path = std::filesystem::canonical(info.dli_fname, ignored);
  return ignored ? "." : path.parent_path();
}

// The table of the module at `path`; null comes with a reason.
const CudaModule* LoadModule(const std::string& path, std::string* reason) {
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored)) {
    *reason = "module not built: configure with nvcc, build tightwire_cuda (" + path + ")";
    return nullptr;
  }
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library) {
    *reason = "module does not load: " + LoaderError();
    return nullptr;
  }
  const auto entry = reinterpret_cast<CudaModuleEntry>(dlsym(library, kCudaModuleEntry));
  const CudaModule* module = entry ? entry() : nullptr;
  if (!module) {
    *reason = "module is none of tightwire's: " + path;
  } else if (module->abi != kCudaModuleAbi) {
    *reason = "module of another build: interface " + std::to_string(module->abi) + ", wanted " +
              std::to_string(kCudaModuleAbi) + " (" + path + ")";
    module = nullptr;
  } else if (std::string(module->version) != BuildVersion()) {
    *reason = "module of another build: " + std::string(module->version) + ", wanted " +
              BuildVersion() + " (" + path + ")";
    module = nullptr;
  }
  return module;
}

}  // namespace

DeviceModule LoadDeviceModule(const DeviceModuleOptions& options) {
  DeviceModule found;
  found.path =
      options.module.empty() ? (OwnFolder() / "libtightwire_cuda.so").string() : options.module;
  found.devices = FindDevices(options.driver, &found.reason);
  if (!found.devices.empty()) found.module = LoadModule(found.path, &found.reason);
  return found;
}

const DeviceModule& ThisMachinesDevices() {
  static const auto* found = new DeviceModule(LoadDeviceModule({}));
  return *found;
}

}  // namespace tw
