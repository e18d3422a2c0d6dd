// comm.backend = "nccl": what a machine must have for it, and what is said when it has not.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "comm/thread_communicator.h"
#include "launch/world.h"

namespace tw {
namespace {

using ::testing::HasSubstr;

std::string Message(const Status& status) { return std::string(status.message()); }

int devices_taken = 0;

// In the place of NCCL: a communicator of threads, of one rank.
StatusOr<std::unique_ptr<Communicator>> MakeOfThreads(const NcclOptions& options,
                                                      Communicator& control) {
  EXPECT_EQ(options.device, 0);
  EXPECT_EQ(options.same_order, false);
  EXPECT_EQ(control.size(), 1);
  ++devices_taken;
  return std::move(MakeThreadGroup(1, options.timeout_s)[0]);
}

StatusOr<std::unique_ptr<Communicator>> MakeNone(const NcclOptions&, Communicator&) {
  return PeerError("starting NCCL: no");
}

TEST(DeviceWorld, WithoutAGpuOneLineSaysWhyAndWhatWorks) {
  const DeviceModule none{.reason = "no driver: libcuda.so.1 not found"};
  const auto world = World::Open("nccl", 5, 2, none);
  EXPECT_EQ(Message(world.status()),
            "comm.backend = nccl: no GPU here: no driver: libcuda.so.1 not found; mpi works");
  EXPECT_EQ(ExitCode(world.status()), 3);
}

TEST(DeviceWorld, AModuleWithoutNcclSaysSo) {
  const CudaModule module = {.nccl = "built without NCCL"};
  const auto world = World::Open("nccl", 5, 2, {{"Fake GPU"}, &module});
  EXPECT_EQ(Message(world.status()),
            "comm.backend = nccl: the module was built without NCCL; mpi works");
  EXPECT_EQ(ExitCode(world.status()), 3);
}

TEST(DeviceWorld, WithAGpuThereIsACommunicatorForItBesideTheOther) {
  const CudaModule module = {.make_nccl = MakeOfThreads};
  const auto world = World::Open("nccl", 5, 2, {{"Fake GPU"}, &module});
  ASSERT_TRUE(world.ok()) << world.status();
  EXPECT_EQ(devices_taken, 1);
  EXPECT_NE((*world)->device_comm(), nullptr);
  EXPECT_NE((*world)->device_comm(), &(*world)->comm());
  (*world)->Close();
  EXPECT_EQ((*world)->device_comm(), nullptr);
}

TEST(DeviceWorld, OtherBackendsLookAtNoDevice) {
  const CudaModule module = {.make_nccl = MakeNone};
  const auto world = World::Open("thread", 5, 2, {{"Fake GPU"}, &module});
  ASSERT_TRUE(world.ok()) << world.status();
  EXPECT_EQ((*world)->device_comm(), nullptr);
}

}  // namespace
}  // namespace tw
