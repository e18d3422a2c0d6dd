#pragma once
// The emulated device of tests (tests/cuda/test_device.h) with what only it has: memory that the
// host cannot touch (arena.h), the very .cu sources as kernels (cuda_on_cpu.h), counts and errors
// to order (runtime.h). Link tw_emulated_device and tw_emulated_kernels. Devices are numbers below
// kDevices, all in one memory.

#include "tests/cuda/emulation/arena.h"
#include "tests/cuda/emulation/cuda_on_cpu.h"
#include "tests/cuda/emulation/runtime.h"
#include "tests/cuda/test_device.h"

namespace tw {

using EmulatedDevice = TestDevice;

}  // namespace tw
