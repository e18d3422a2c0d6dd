#include "core/base/patience.h"

#include <algorithm>

#include "core/base/clock.h"

namespace tw {
namespace {

constexpr double kSpinMs = 0.03;
// No sleep until nothing has moved for this long. (Without single-copy shared memory a sleep
// between two looks costs a factor of ten.)
constexpr double kFlowMs = 0.2;
constexpr double kShortestSleepMs = 0.05;
constexpr double kLongestSleepMs = 0.5;

}  // namespace

double Patience::NextSleepMs(bool moved) {
  const double now = NowMs();
  if (awake_until_ < 0) awake_until_ = now + kSpinMs;
  if (moved) {
    awake_until_ = now + kFlowMs;
    sleep_ms_ = 0;
  }
  if (now < awake_until_) return 0;
  sleep_ms_ = std::clamp(sleep_ms_ * 1.5, kShortestSleepMs, kLongestSleepMs);
  return sleep_ms_;
}

}  // namespace tw
