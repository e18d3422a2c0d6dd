#pragma once
// One monotonic clock for every measured figure.

#include <chrono>

#include "core/base/spans.h"

namespace tw {

inline double NowMs() {
  return std::chrono::duration<double, std::milli>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

// Milliseconds added up interval by interval; a timeline, where there is one, gets each of them.
struct TimedSum {
  double ms = 0;
  SpanTarget spans;
  operator double() const { return ms; }
  TimedSum& operator+=(double more) {
    ms += more;
    return *this;
  }
};

// Adds the lifetime of the object to a sum, to a timeline, or to both.
class ScopedTimer {
 public:
  explicit ScopedTimer(double* sum_ms, const SpanTarget& spans = {})
      : sum_ms_(sum_ms), spans_(spans), start_(NowMs()) {}
  explicit ScopedTimer(const SpanTarget& spans) : ScopedTimer(nullptr, spans) {}
  explicit ScopedTimer(TimedSum* sum) : ScopedTimer(&sum->ms, sum->spans) {}
  ~ScopedTimer() {
    const double end = NowMs();
    if (sum_ms_) *sum_ms_ += end - start_;
    spans_.Add(start_, end);
  }
  ScopedTimer(const ScopedTimer&) = delete;
  ScopedTimer& operator=(const ScopedTimer&) = delete;

 private:
  double* sum_ms_;
  SpanTarget spans_;
  double start_;
};

}  // namespace tw
