#include "core/base/spans.h"

#include <algorithm>

namespace tw {

const char* SpanName(SpanKind kind) {
  static constexpr std::array names = {"step",  "forward", "backward", "wait",  "optimizer",
                                       "check", "encode",  "decode",   "agree", "wire"};
  return names[static_cast<size_t>(kind)];
}

SpanRow RowOf(SpanKind kind) {
  if (kind == SpanKind::kWire) return SpanRow::kWire;
  return kind < SpanKind::kCheck ? SpanRow::kMain : SpanRow::kLane;
}

SpanLog::SpanLog(int64_t first, int64_t last, size_t capacity,
                 std::function<Status(const SpanLog&)> on_last)
    : first_(first), last_(last), on_last_(std::move(on_last)), spans_(capacity) {
  TW_CHECK_LE(first, last);
}

void SpanLog::BeginStep(int64_t step) {
  std::lock_guard<std::mutex> lock(mutex_);
  step_ = step;
  on_.store(first_ <= step && step <= last_, std::memory_order_relaxed);
}

Status SpanLog::EndStep(double begin_ms, double end_ms) {
  Add(SpanKind::kStep, -1, begin_ms, end_ms);
  {
    std::lock_guard<std::mutex> lock(mutex_);
    on_.store(false, std::memory_order_relaxed);
  }
  if (step_ != last_ || !on_last_) return OkStatus();
  return on_last_(*this);
}

std::span<const Span> SpanLog::spans() const {
  return {spans_.data(), std::min(count_, spans_.size())};
}

int64_t SpanLog::dropped() const { return static_cast<int64_t>(count_ - spans().size()); }

}  // namespace tw
