#pragma once
// SpanLog: when each part of a step ran and for which bucket, for the timeline of a few steps. All
// memory is taken when the log is made; a span costs a lock and a store, and outside of the steps
// asked for, or without a log, one test of a pointer and a flag. A span belongs to the step in
// which it ended.
//
// Thread safety: Add from any thread. BeginStep and EndStep from one; readers come after the last
// EndStep, or from on_last.

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>
#include <span>
#include <vector>

#include "core/base/status.h"

namespace tw {

// What a span was. The first row belongs to the main thread, the second to the lane thread, and the
// last is a bucket that waits for bytes while the lane does other work.
enum class SpanKind : uint8_t {
  kStep,
  kForward,
  kBackward,
  kWait,
  kOptimizer,
  kCheck,
  kEncode,
  kDecode,
  kAgree,
  kWire,
};
enum class SpanRow : uint8_t { kMain, kLane, kWire };
const char* SpanName(SpanKind kind);
SpanRow RowOf(SpanKind kind);

struct Span {
  SpanKind kind = SpanKind::kStep;
  int32_t bucket = -1;              // -1: of none
  int64_t step = 0;                 // 1-based, as in the metrics
  double begin_ms = 0, end_ms = 0;  // NowMs()
};

class SpanLog {
 public:
  // Steps first .. last, 1-based. `on_last` (may be empty) is called once, after the last of them.
  SpanLog(int64_t first, int64_t last, size_t capacity,
          std::function<Status(const SpanLog&)> on_last);

  void BeginStep(int64_t step);
  Status EndStep(double begin_ms, double end_ms);

  void Add(SpanKind kind, int32_t bucket, double begin_ms, double end_ms) {
    if (!on_.load(std::memory_order_relaxed)) return;
    std::lock_guard<std::mutex> lock(mutex_);
    if (!on_.load(std::memory_order_relaxed)) return;
    if (count_ < spans_.size()) spans_[count_] = {kind, bucket, step_, begin_ms, end_ms};
    ++count_;
  }

  // In the order in which they ended.
  std::span<const Span> spans() const;
  // How many found no room.
  int64_t dropped() const;
  int64_t first() const { return first_; }
  int64_t last() const { return last_; }

 private:
  const int64_t first_, last_;
  std::function<Status(const SpanLog&)> on_last_;
  std::vector<Span> spans_;
  std::mutex mutex_;  // of what follows
  size_t count_ = 0;
  std::atomic<bool> on_ = false;
  int64_t step_ = 0;
};

// Where the intervals of a timer go besides into its sum.
struct SpanTarget {
  SpanLog* log = nullptr;  // null: nowhere
  SpanKind kind = SpanKind::kStep;
  int32_t bucket = -1;
  void Add(double begin_ms, double end_ms) const {
    if (log) log->Add(kind, bucket, begin_ms, end_ms);
  }
};

}  // namespace tw
