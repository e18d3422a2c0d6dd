// train.device and comm.backend: what a machine must have for them, and what is said when it has
// not. The device is the emulated one's stand-in here: nothing runs on it.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "comm/thread_communicator.h"
#include "launch/choose_device.h"
#include "tests/comm/slow_queue.h"

namespace tw {
namespace {

using ::testing::HasSubstr;

std::string Message(const Status& status) { return std::string(status.message()); }

class NoMemory : public DeviceMemory {
 public:
  uint8_t* Allocate(size_t) override { throw std::bad_alloc(); }
  void Free(uint8_t*) override {}
};

int opened = 0;
StatusOr<OpenedDevice> OpenNothing(int device) {
  EXPECT_EQ(device, 0);
  ++opened;
  OpenedDevice out;
  out.memory = std::make_unique<NoMemory>();
  out.lane_stream = &opened;
  return out;
}
StatusOr<OpenedDevice> OpenBroken(int) { return DataError("GPU 0 does not start"); }

int communicators = 0;
// In the place of NCCL: a communicator of threads, of one rank.
StatusOr<std::unique_ptr<Communicator>> MakeOfThreads(const NcclOptions& options,
                                                      Communicator& control) {
  EXPECT_EQ(options.device, 0);
  EXPECT_EQ(options.same_order, false);
  EXPECT_EQ(options.producer, &opened);
  EXPECT_EQ(control.size(), 1);
  ++communicators;
  return std::move(MakeThreadGroup(1, options.timeout_s)[0]);
}
StatusOr<std::unique_ptr<Communicator>> MakeNone(const NcclOptions&, Communicator&) {
  return PeerError("starting NCCL: no");
}

// LibTorch's word is not CUDA's: its library is not asked for.
CudaModule Module() {
  return {
      .nccl = "NCCL 1.2.3", .tensors = "meta", .open_device = OpenNothing, .make_nccl = MakeNone};
}
const DeviceModule kNoGpu{.reason = "no driver: libcuda.so.1 not found"};

class ChooseDevice : public ::testing::Test {
 protected:
  Status Choose(const std::string& device, const std::string& backend,
                const DeviceModule& devices) {
    auto world = World::Open(backend, 5);
    TW_CHECK_OK(world);
    world_ = std::move(*world);
    settings_.train.device = device;
    settings_.comm.backend = backend;
    settings_.comm.timeout_s = 5;
    return OpenChosenDevice(settings_, devices, *world_, &note_);
  }
  void TearDown() override {
    if (world_) world_->Close();
  }
  Settings settings_;
  std::unique_ptr<World> world_;
  std::string note_;
};

TEST_F(ChooseDevice, AutoWithoutAGpuIsTheHostWithoutAWord) {
  EXPECT_TRUE(Choose("auto", "auto", kNoGpu).ok());
  EXPECT_EQ(world_->device().memory, nullptr);
  EXPECT_EQ(&world_->gradient_comm(), &world_->comm());
  EXPECT_EQ(DeviceOf(kNoGpu, *world_).name, "");
  EXPECT_EQ(note_, "");
}

TEST_F(ChooseDevice, AutoSaysWhyAGpuIsNotUsed) {
  const DeviceModule no_module{.devices = {"Fake GPU"}, .reason = "module not built"};
  EXPECT_TRUE(Choose("auto", "auto", no_module).ok());
  EXPECT_EQ(world_->device().memory, nullptr);
  EXPECT_EQ(note_, "train.device = auto: tensors lie in the host's memory; module not built");
}

TEST_F(ChooseDevice, AutoLeavesToTheHostWhatOnlyItCan) {
  const CudaModule module = Module();
  settings_.strategy = "diloco";
  EXPECT_TRUE(Choose("auto", "auto", {{"Fake GPU"}, &module}).ok());
  EXPECT_EQ(world_->device().memory, nullptr);
  EXPECT_EQ(
      note_,
      "train.device = auto: tensors lie in the host's memory; strategy.name = \"diloco\" moves "
      "tensors on the host");
}

TEST_F(ChooseDevice, WhoInsistsIsToldInOneLine) {
  const Status cuda = Choose("cuda", "auto", kNoGpu);
  EXPECT_EQ(Message(cuda),
            "train.device = cuda: no GPU to use: no driver: libcuda.so.1 not found; cpu works");
  EXPECT_EQ(ExitCode(cuda), 3);
  const Status nccl = Choose("auto", "nccl", kNoGpu);
  EXPECT_EQ(Message(nccl),
            "comm.backend = nccl: no GPU to use: no driver: libcuda.so.1 not found; mpi works");
  EXPECT_EQ(ExitCode(Choose("cpu", "nccl", kNoGpu)), 2);
}

TEST_F(ChooseDevice, OneRankOnAGpuNeedsNoNccl) {
  const CudaModule module = Module();
  opened = 0;
  ASSERT_TRUE(Choose("auto", "auto", {{"Fake GPU"}, &module}).ok());
  EXPECT_EQ(opened, 1);
  EXPECT_NE(world_->device().memory, nullptr);
  EXPECT_EQ(world_->device_number(), 0);
  EXPECT_NE(&world_->gradient_comm(), &world_->comm());
  EXPECT_EQ(&world_->gradient_comm().control(), &world_->comm());
  EXPECT_EQ(DeviceOf({{"Fake GPU"}, &module}, *world_).name, "Fake GPU");
}

TEST_F(ChooseDevice, NcclGetsTheLanesStream) {
  CudaModule module = Module();
  module.make_nccl = MakeOfThreads;
  communicators = 0;
  ASSERT_TRUE(Choose("cuda", "nccl", {{"Fake GPU"}, &module}).ok());
  EXPECT_EQ(communicators, 1);
  world_->Close();
  EXPECT_EQ(world_->device().memory, nullptr);
  world_.reset();
}

// Says whether it is there still.
class NotedMemory : public NoMemory {
 public:
  explicit NotedMemory(bool* there) : there_(there) { *there_ = true; }
  ~NotedMemory() override { *there_ = false; }

 private:
  bool* const there_;
};
bool memory_there = false;
int queues_gone = 0;
class NotedQueue : public SlowQueue {
 public:
  ~NotedQueue() override {
    EXPECT_TRUE(memory_there);  // it frees what it has of it
    ++queues_gone;
  }
};

TEST_F(ChooseDevice, MemoryGoesAfterTheQueuesThatFreeTheirs) {
  CudaModule module = Module();
  module.open_device = [](int) -> StatusOr<OpenedDevice> {
    OpenedDevice out;
    out.memory = std::make_unique<NotedMemory>(&memory_there);
    out.training = std::make_unique<NotedQueue>();
    out.lane = std::make_unique<NotedQueue>();
    return out;
  };
  ASSERT_TRUE(Choose("cuda", "auto", {{"Fake GPU"}, &module}).ok());
  EXPECT_TRUE(memory_there);
  world_->Close();
  EXPECT_EQ(queues_gone, 2);
  EXPECT_FALSE(memory_there);
}

TEST_F(ChooseDevice, WhatDoesNotStartIsOneLine) {
  CudaModule module = Module();
  EXPECT_EQ(Message(Choose("cuda", "nccl", {{"Fake GPU"}, &module})), "starting NCCL: no");
  module.make_nccl = nullptr;
  module.nccl = "built without NCCL";
  EXPECT_THAT(Message(Choose("cuda", "nccl", {{"Fake GPU"}, &module})),
              HasSubstr("comm.backend = nccl: the module was built without NCCL; mpi works"));
  module.open_device = OpenBroken;
  EXPECT_EQ(Message(Choose("cuda", "auto", {{"Fake GPU"}, &module})), "GPU 0 does not start");
  EXPECT_EQ(world_->device().memory, nullptr);
}

}  // namespace
}  // namespace tw
