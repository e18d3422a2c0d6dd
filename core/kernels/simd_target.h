#pragma once
// Which instruction set the vectorised kernels run on. The best one is taken unless limited, which
// ranks do when their processors differ, and tests do to run every path.

#include <string>
#include <vector>

namespace tw::kernels {

// "AVX3", "AVX2", ...: what kernels run on now.
std::string SimdTarget();
// What this processor and build offer, best first.
std::vector<std::string> SimdTargets();
// Allows nothing better than `name`; an empty name lifts the limit. False, with no change, when
// `name` is not among SimdTargets(). Not to be called while kernels run.
bool LimitSimdTarget(const std::string& name);

}  // namespace tw::kernels
