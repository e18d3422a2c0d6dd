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
// And since CUDA 9.2 an id; the younger one tells the parts of a divided GPU apart.
using IdFunction = int (*)(uint8_t*, int);
constexpr const char* kIdFunctions[] = {"cuDeviceGetUuid_v2", "cuDeviceGetUuid"};
using AttributeFunction = int (*)(int*, int, int);
constexpr int kCapabilityMajor = 75, kCapabilityMinor = 76;

constexpr int kLeastMajor = 8;  // of the capabilities that kernels are compiled for

// What the loader last complained of, in one line; without the name of the file it starts with.
std::string LoaderError() {
  const char* text = dlerror();
  return text ? text : "unknown";
}

// "00112233-4455-6677-8899-aabbccddeeff".
std::string IdText(const std::array<uint8_t, 16>& id) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (size_t i = 0; i < id.size(); ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) text += '-';
    text += kDigits[id[i] >> 4];
    text += kDigits[id[i] & 15];
  }
  return text;
}

// Id and capability of each device, of all or of none.
void Describe(void* library, const std::vector<int>& handles, DeviceModule* found) {
  IdFunction id = nullptr;
  for (const char* name : kIdFunctions) {
    if (!id) id = reinterpret_cast<IdFunction>(dlsym(library, name));
  }
  const auto attribute =
      reinterpret_cast<AttributeFunction>(dlsym(library, "cuDeviceGetAttribute"));
  bool ids = id != nullptr, capabilities = attribute != nullptr;
  for (const int device : handles) {
    std::array<uint8_t, 16> bytes{};
    ids = ids && id(bytes.data(), device) == kDriverSuccess;
    found->ids.push_back(IdText(bytes));
    DeviceCapability is;
    capabilities = capabilities &&
                   attribute(&is.major, kCapabilityMajor, device) == kDriverSuccess &&
                   attribute(&is.minor, kCapabilityMinor, device) == kDriverSuccess;
    found->capabilities.push_back(is);
  }
  if (!ids) found->ids.clear();
  if (!capabilities) found->capabilities.clear();
}

// Why none of the devices is usable; empty: there are none, or one is.
std::string TooOld(const DeviceModule& found) {
  if (found.devices.empty() || !found.usable().empty()) return "";
  std::string is;
  for (size_t i = 0; i < found.devices.size(); ++i) {
    is += (i ? ", GPU " : "GPU ") + std::to_string(i) + " (" + found.devices[i] + ") has " +
          ToString(found.capabilities[i]);
  }
  return "compute capability " + ToString(DeviceCapability{kLeastMajor, 0}) + " is needed: " + is;
}

// The devices; none come with a reason.
void FindDevices(const std::string& driver, DeviceModule* found) {
  std::string* const reason = &found->reason;
  void* library = dlopen(driver.c_str(), RTLD_NOW | RTLD_GLOBAL);
  if (!library) {
    *reason = "no driver: " + driver + " not found";
    return;
  }
  const auto init = reinterpret_cast<InitFunction>(dlsym(library, "cuInit"));
  const auto count = reinterpret_cast<CountFunction>(dlsym(library, "cuDeviceGetCount"));
  const auto get = reinterpret_cast<GetFunction>(dlsym(library, "cuDeviceGet"));
  const auto name = reinterpret_cast<NameFunction>(dlsym(library, "cuDeviceGetName"));
  if (!init || !count || !get || !name) {
    *reason = "no driver: " + driver + " is not CUDA's";
    return;
  }
  int num_devices = 0;
  int code = init(0);
  if (code == kDriverSuccess) code = count(&num_devices);
  if (code == kDriverNoDevice || (code == kDriverSuccess && num_devices == 0)) {
    *reason = "driver there, no device";
    return;
  }
  if (code != kDriverSuccess) {
    *reason = "driver there, but it does not start: CUDA error " + std::to_string(code);
    return;
  }
  std::vector<int> handles;
  for (int i = 0; i < num_devices; ++i) {
    std::array<char, 256> text{};
    int device = 0;
    const bool named = get(&device, i) == kDriverSuccess &&
                       name(text.data(), text.size() - 1, device) == kDriverSuccess;
    found->devices.push_back(named ? text.data() : "unnamed");
    handles.push_back(device);
  }
  Describe(library, handles, found);
  *reason = TooOld(*found);
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

std::string ToString(const DeviceCapability& capability) {
  return std::to_string(capability.major) + "." + std::to_string(capability.minor);
}

bool DeviceModule::usable(size_t number) const {
  return capabilities.empty() || capabilities[number].major >= kLeastMajor;
}

std::vector<int> DeviceModule::usable() const {
  std::vector<int> numbers;
  for (size_t i = 0; i < devices.size(); ++i) {
    if (usable(i)) numbers.push_back(static_cast<int>(i));
  }
  return numbers;
}

DeviceModule LoadDeviceModule(const DeviceModuleOptions& options) {
  DeviceModule found;
  found.path =
      options.module.empty() ? (OwnFolder() / "libtightwire_cuda.so").string() : options.module;
  FindDevices(options.driver, &found);
  if (!found.usable().empty()) found.module = LoadModule(found.path, &found.reason);
  return found;
}

const DeviceModule& ThisMachinesDevices() {
  static const auto* found = new DeviceModule(LoadDeviceModule({}));
  return *found;
}

}  // namespace tw
