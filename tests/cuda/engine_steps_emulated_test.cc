// What only the emulated device counts of a reducer's steps: waits and allocations.
#include "tests/cuda/emulation/emulated_device.h"
#include "tests/cuda/placed_rank.h"

namespace tw {
namespace {

// The one who waits asks whether all gradients are finite.
TEST(DeviceReducerSteps, WaitOnceForTheDeviceAndAllocateNothing) {
  for (const char* codec : {"none", "topk", "blockquant", "powersgd"}) {
    TestDevice device;
    RunRanks(1, [&](Communicator& wire) {
      const bool dense = codec == std::string("none");
      const PlacedRank placed(wire, {.compressor = codec, .feedback = dense ? "none" : "ef14"},
                              &device);
      for (uint64_t step = 0; step < 4; ++step) {
        const emulation::RuntimeCounts before = emulation::CountsOfRuntime();
        EXPECT_TRUE(placed.rank->Reduce(step).finite);
        const emulation::RuntimeCounts after = emulation::CountsOfRuntime();
        if (step < 2) continue;
        EXPECT_EQ(after.waits - before.waits, 1) << codec << ", step " << step;
        EXPECT_EQ(after.allocations, before.allocations) << codec << ", step " << step;
      }
    });
  }
}

}  // namespace
}  // namespace tw
