#include <gtest/gtest.h>
#include "tests/cuda/emulation/emulated_device.h"
#include "core/kernels/elementwise.h"
namespace tw {
TEST(Queue, Smoke) {
  EmulatedDevice device;
  auto queue = device.NewQueue();
  DeviceBuffer<float> x(device, std::vector<float>(5000, 1.5f));
  { DeviceScope scope(queue.get()); kernels::Scale(x.span(), 2); }
  EXPECT_EQ(x.Values(), std::vector<float>(5000, 3.0f));
  EXPECT_TRUE(queue->Wait().ok());
}
}
