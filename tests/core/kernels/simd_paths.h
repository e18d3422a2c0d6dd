#pragma once
// Runs a check on every instruction set of this machine that the build has code for.

#include <gtest/gtest.h>

#include <string>

#include "core/kernels/simd_target.h"

namespace tw {

template <class Check>
void OnEverySimdTarget(Check&& check) {
  for (const std::string& name : kernels::SimdTargets()) {
    SCOPED_TRACE(name);
    ASSERT_TRUE(kernels::LimitSimdTarget(name));
    ASSERT_EQ(kernels::SimdTarget(), name);
    check();
  }
  kernels::LimitSimdTarget("");
}

}  // namespace tw
