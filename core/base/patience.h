#pragma once
// Patience: how long a polling thread may sleep between two looks at things under way. It spins
// for a moment, stays awake while bytes move (with some transports every look moves some), and
// sleeps longer and longer when nothing does: a bare spin would burn a core that others compute on.
// One thread's.

namespace tw {

class Patience {
 public:
  // One look has been taken. Returns how long to sleep, in milliseconds; 0: yield and look again.
  double NextSleepMs(bool moved);

 private:
  double awake_until_ = -1;  // < 0: the first look is still to come
  double sleep_ms_ = 0;
};

}  // namespace tw
