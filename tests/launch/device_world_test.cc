// train.device and comm.backend: what a machine must have for them, and what is said when it has
// not. The device is the emulated one's stand-in here: nothing runs on it.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

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
StatusOr<OpenedDevice> OpenNothing(int device, std::function<void()>) {
  EXPECT_EQ(device, 0);
  ++opened;
  OpenedDevice out;
  out.memory = std::make_unique<NoMemory>();
  out.lane_stream = &opened;
  return out;
}
StatusOr<OpenedDevice> OpenBroken(int, std::function<void()>) {
  return DataError("GPU 0 does not start");
}

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
    loaded_.settings.train.device = device;
    loaded_.settings.comm.backend = backend;
    loaded_.settings.comm.timeout_s = 5;
    return OpenChosenDevice(loaded_, devices, *world_, &note_);
  }
  void TearDown() override {
    if (world_) world_->Close();
  }
  LoadedConfig loaded_;
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
  const std::string topk = "compressor.name=topk";
  const std::pair<std::vector<std::string>, std::string> cases[] = {
      {{"strategy.name=diloco"}, "strategy.name = \"diloco\" moves tensors on the host"},
      {{"planner.name=lgreco", "compressor.name=powersgd"},
       "planner.name = \"lgreco\" measures on the host"},
      {{topk, "compressor.entropy=zstd"}, "compressor.name = \"topk\": zstd works on the host"},
      {{topk, "compressor.merge=sparse"}, "compressor.merge = \"sparse\" adds lists on the host"}};
  opened = 0;
  for (const auto& [words, why] : cases) {
    auto loaded = LoadedConfig::Load("", words);
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    loaded_ = *loaded;
    EXPECT_TRUE(Choose("auto", "auto", {{"Fake GPU"}, &module}).ok());
    EXPECT_EQ(world_->device().memory, nullptr);
    EXPECT_EQ(note_, "train.device = auto: tensors lie in the host's memory; " + why);
    EXPECT_TRUE(Choose("auto", "auto", kNoGpu).ok());
  }
  EXPECT_EQ(opened, 0);
  loaded_ = *LoadedConfig::Load("", {topk});
  EXPECT_TRUE(Choose("auto", "auto", {{"Fake GPU"}, &module}).ok());
  EXPECT_EQ(opened, 1);
}

TEST_F(ChooseDevice, ARuleMayBeForHosts) {
  const CudaModule module = Module();
  const std::string path = ::testing::TempDir() + "/rule_for_hosts.toml";
  std::ofstream(path) << "[compressor]\nname = \"topk\"\n[[compressor.rule]]\nmatch = \"*\"\n"
                         "name = \"topk\"\nentropy = \"zstd\"\n";
  auto loaded = LoadedConfig::Load(path, {});
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  loaded_ = *loaded;
  EXPECT_TRUE(Choose("auto", "auto", {{"Fake GPU"}, &module}).ok());
  EXPECT_EQ(world_->device().memory, nullptr);
  EXPECT_THAT(note_, HasSubstr("zstd works on the host"));
}

TEST_F(ChooseDevice, WhatWorksInsteadDependsOnTheWire) {
  const Status why = ConfigError("this has no step there");
  Settings s;
  s.train.device = "cuda";
  EXPECT_TRUE(InsistsOnDevice(s));
  EXPECT_EQ(Message(RefusedOnDevice(s, why)), "this has no step there; train.device = cpu works");
  EXPECT_EQ(ExitCode(RefusedOnDevice(s, why)), 2);
  s.comm.backend = "nccl";
  EXPECT_EQ(Message(RefusedOnDevice(s, why)),
            "this has no step there; train.device = cpu with comm.backend = mpi works");
  s.train.device = "auto";
  EXPECT_TRUE(InsistsOnDevice(s));
  EXPECT_EQ(Message(RefusedOnDevice(s, why)), "this has no step there; comm.backend = mpi works");
  s.comm.backend = "mpi";
  EXPECT_FALSE(InsistsOnDevice(s));
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

StatusOr<OpenedDevice> OpenNoted(int, std::function<void()>) {
  OpenedDevice out;
  out.memory = std::make_unique<NotedMemory>(&memory_there);
  out.training = std::make_unique<NotedQueue>();
  out.lane = std::make_unique<NotedQueue>();
  return out;
}

TEST_F(ChooseDevice, MemoryGoesAfterTheQueuesThatFreeTheirs) {
  CudaModule module = Module();
  module.open_device = OpenNoted;
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
  EXPECT_THAT(
      Message(Choose("cuda", "nccl", {{"Fake GPU"}, &module})),
      HasSubstr("train.device = cuda: the module was built without NCCL, which comm.backend "
                "= nccl needs; cpu works"));
  module.open_device = OpenBroken;
  EXPECT_EQ(Message(Choose("cuda", "auto", {{"Fake GPU"}, &module})),
            "train.device = cuda: GPU 0 does not start; cpu works");
  EXPECT_EQ(world_->device().memory, nullptr);
}

TEST_F(ChooseDevice, AutoTakesTheHostWhereTheDeviceDoesNotStart) {
  CudaModule module = Module();
  module.open_device = OpenBroken;
  EXPECT_TRUE(Choose("auto", "auto", {{"Fake GPU"}, &module}).ok());
  EXPECT_EQ(world_->device().memory, nullptr);
  EXPECT_EQ(world_->device_number(), -1);
  EXPECT_EQ(&world_->gradient_comm(), &world_->comm());
  EXPECT_EQ(note_, "train.device = auto: tensors lie in the host's memory; GPU 0 does not start");
  module.open_device = [](int, std::function<void()>) -> StatusOr<OpenedDevice> {
    return BugError("ours");
  };
  EXPECT_EQ(ExitCode(Choose("auto", "auto", {{"Fake GPU"}, &module})), 70);
}

TEST_F(ChooseDevice, AClosedDeviceLeavesTheLaneAtWork) {
  CudaModule module = Module();
  module.open_device = OpenNoted;
  ASSERT_TRUE(Choose("auto", "auto", {{"Fake GPU"}, &module}).ok());
  const auto queue_of_lane = [&] {
    DeviceQueue* queue = nullptr;
    TW_CHECK_OK(world_->lane().Run([&] {
      queue = CurrentQueue();
      return OkStatus();
    }));
    return queue;
  };
  EXPECT_EQ(queue_of_lane(), world_->device().lane);
  EXPECT_NE(queue_of_lane(), nullptr);
  world_->CloseDevice();
  EXPECT_FALSE(memory_there);
  EXPECT_EQ(queue_of_lane(), nullptr);
  EXPECT_EQ(world_->device().training, nullptr);
  EXPECT_EQ(world_->device_number(), -1);
  EXPECT_EQ(&world_->gradient_comm(), &world_->comm());
  world_->CloseDevice();
}

}  // namespace
}  // namespace tw
