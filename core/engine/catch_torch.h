#pragma once
// The one place where LibTorch's exceptions become a status. Thread safe.

#include <exception>
#include <new>
#include <string>

#include "core/base/status.h"

namespace tw {

// Memory that is not there is the config's fault, all else is a bug.
inline Status TorchError(const std::exception& e) {
  std::string what = e.what();
  what = what.substr(0, what.find('\n'));
  size_t memory = what.find("can't allocate memory");
  if (memory == std::string::npos) memory = what.find("CUDA out of memory");
  if (memory != std::string::npos || dynamic_cast<const std::bad_alloc*>(&e)) {
    return ConfigError("out of memory (" + what.substr(memory == std::string::npos ? 0 : memory) +
                       "); a smaller model, batch or context needs less");
  }
  return BugError("LibTorch: " + what);
}

// What f() returns, a Status or StatusOr; the error where it throws.
template <class F>
auto CatchTorch(F&& f) -> decltype(f()) {
  try {
    return f();
  } catch (const std::exception& e) {
    return TorchError(e);
  }
}

}  // namespace tw
