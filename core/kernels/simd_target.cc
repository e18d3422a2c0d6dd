#include "core/kernels/simd_target.h"

#include "hwy/highway.h"

namespace tw::kernels {
namespace {

// Best first: Highway gives better targets lower bits.
std::vector<int64_t> AllTargets() {
  static const std::vector<int64_t> targets = hwy::SupportedAndGeneratedTargets();
  return targets;
}

}  // namespace

std::string SimdTarget() { return hwy::TargetName(hwy::SupportedAndGeneratedTargets().front()); }

std::vector<std::string> SimdTargets() {
  std::vector<std::string> names;
  for (const int64_t target : AllTargets()) names.push_back(hwy::TargetName(target));
  return names;
}

bool LimitSimdTarget(const std::string& name) {
  const std::vector<int64_t> all = AllTargets();
  int64_t allowed = 0;
  for (const int64_t target : all) {
    if (allowed || name == hwy::TargetName(target)) allowed |= target;
  }
  if (!name.empty() && !allowed) return false;
  hwy::SetSupportedTargetsForTest(name.empty() ? 0 : allowed);
  return true;
}

}  // namespace tw::kernels
