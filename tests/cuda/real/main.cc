// Tests of kernels on a GPU: exit code 77, which ctest shows as skipped, where there is none.

#include <gtest/gtest.h>

#include <iostream>

#include "tests/cuda/device_memory.h"

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  std::string why;
  if (!tw::KernelMemory::Open(&why)) {
    std::cout << why << std::endl;
    return 77;
  }
  return RUN_ALL_TESTS();
}
