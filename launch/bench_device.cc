#include "launch/bench_device.h"

#include <algorithm>
#include <vector>

#include "core/api/tensor_scope.h"
#include "core/base/clock.h"
#include "launch/choose_device.h"
#include "launch/torch_cuda.h"

namespace tw {

StatusOr<std::unique_ptr<BenchDevice>> BenchDevice::Open(const std::string& word,
                                                         const DeviceModule* devices,
                                                         bool tensors) {
  std::unique_ptr<BenchDevice> device(new BenchDevice());
  if (word == "cpu") return device;
  const DeviceModule& found = devices ? *devices : ThisMachinesDevices();
  const std::string setting = "device = " + word + ": ";
  if (!found.module) return DataError(setting + found.reason);
  if (tensors && std::string(found.module->tensors) == "cuda") {
    const Status torch = LoadTorchCuda();
    if (!torch.ok()) return DataError(setting + std::string(torch.message()));
  }
  const int number = found.usable().front();
  TW_ASSIGN_OR_RETURN(device->opened_, OpenBesideTensors(*found.module, number));
  device->name_ = found.devices[static_cast<size_t>(number)];
  device->tensors_ = TensorDevice(found.module->tensors, number);
  device->for_tensors_ = tensors;
  if (tensors) SetTensorQueue(device->queue());
  return device;
}

BenchDevice::~BenchDevice() {
  if (for_tensors_) SetTensorQueue(nullptr);
}

Status BenchDevice::Wait() const { return queue() ? queue()->Wait() : OkStatus(); }

StatusOr<double> BenchDevice::Time(int64_t times, const std::function<Status()>& work) const {
  TW_RETURN_IF_ERROR(Wait());
  const double start = NowMs();
  for (int64_t i = 0; i < times; ++i) TW_RETURN_IF_ERROR(work());
  TW_RETURN_IF_ERROR(Wait());
  return (NowMs() - start) / static_cast<double>(times);
}

void FillBellShaped(std::span<float> values, float scale, uint64_t seed) {
  uint64_t state = seed;
  std::vector<float> some(std::min<size_t>(values.size(), 1 << 20));
  for (size_t done = 0; done < values.size(); done += some.size()) {
    some.resize(std::min(some.size(), values.size() - done));
    for (float& x : some) {
      state = state * 6364136223846793005ull + 1442695040888963407ull;
      uint64_t mixed = state ^ (state >> 32);
      float sum = -2.0f;
      for (int i = 0; i < 4; ++i, mixed >>= 16) {
        sum += static_cast<float>(mixed & 0xFFFF) * 0x1p-16f;
      }
      x = scale * sum;
    }
    PutBytes(values.data() + done, some.data(), some.size() * sizeof(float));
  }
}

}  // namespace tw
