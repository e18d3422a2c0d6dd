#pragma once
// list kernels: which kernel runs where, and why not elsewhere.

#include <iosfwd>

#include "core/base/status.h"
#include "launch/device_module.h"

namespace tw {

// Two rows of what runs kernels ("cpu", "cuda"), then one a kernel with where it runs.
void ListKernels(const DeviceModule& devices, bool json, std::ostream& out);

}  // namespace tw
