#include "tests/cuda/test_device.h"

#include "tests/cuda/emulation/emulated_device.h"

namespace tw {

HostMayLook::HostMayLook() {
  emulation::FinishAllStreams();
  open_ = std::make_shared<emulation::ArenaOpen>();
}

TestDevice::TestDevice(int number)
    : number_(number % emulation::kDevices),
      to_streams_(std::make_shared<emulation::LaunchesToStreams>()) {
  auto memory = kernels::MakeDeviceMemory(number_);
  TW_CHECK_OK(memory);
  memory_ = std::move(*memory);
}

size_t TestDevice::LargeNumel() { return 5 * 4096 + 37; }

SeenByBoth::SeenByBoth(const void* memory, size_t bytes)
    : seen_(std::make_shared<emulation::SeenByBoth>(memory, bytes)) {}

Counted LaunchesSoFar() { return Counted(emulation::LaunchCount()); }

}  // namespace tw
