#pragma once
// One monotonic clock for every measured figure.

#include <chrono>

namespace tw {

inline double NowMs() {
  return std::chrono::duration<double, std::milli>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

// Adds the lifetime of the object to *sum_ms.
class ScopedTimer {
 public:
  explicit ScopedTimer(double* sum_ms) : sum_ms_(sum_ms), start_(NowMs()) {}
  ~ScopedTimer() { *sum_ms_ += NowMs() - start_; }
  ScopedTimer(const ScopedTimer&) = delete;
  ScopedTimer& operator=(const ScopedTimer&) = delete;

 private:
  double* sum_ms_;
  double start_;
};

}  // namespace tw
