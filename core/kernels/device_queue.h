#pragma once
// The kernels of this folder on a GPU, through the CUDA runtime. Built into the CUDA module
// (launch/cuda) and into tests, never into the program itself.
//
// Within a Together calls are noted as segments of tables (core/kernels/device.h), a table for each
// place of the rows, kernel and set of arguments that all its segments share; when the outermost
// Together ends all tables go to the device in one copy, and each is one launch. Outside of it a
// call is a table of one segment. After the first steps of a run nothing is allocated.
//
// A queue makes its device the current one of the threads that use it. Errors of the runtime are
// kept: Wait tells the first one, and from then on the queue does nothing.

#include <functional>
#include <memory>

#include "core/base/device.h"
#include "core/base/status.h"
#include "core/kernels/device_kernels.h"

namespace tw::kernels {

// DataError when there is no such device. `when_full`, if any, is called where nothing is left,
// before another try: others may hold memory of the device that they do not use. Thread safe, as
// all of it.
StatusOr<std::unique_ptr<DeviceMemory>> MakeDeviceMemory(int device,
                                                         std::function<void()> when_full = {});

enum class QueueStream {
  kDefault,  // the legacy default stream, on which LibTorch works: in one order with it
  kOwn,      // one that waits for no other, but for After
};
struct DeviceQueueOptions {
  int device = 0;
  QueueStream stream = QueueStream::kOwn;
  DeviceMemory* memory = nullptr;  // of that device; outlives the queue
};
StatusOr<std::unique_ptr<DeviceKernels>> MakeDeviceQueue(const DeviceQueueOptions& options);

}  // namespace tw::kernels
