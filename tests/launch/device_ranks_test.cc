// Which GPU each of several ranks takes, on machines and under launchers of several kinds, and what
// is said when two would share one. Ranks are threads, and nothing runs on their devices.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <mutex>
#include <set>

#include "launch/choose_device.h"
#include "tests/comm/slow_queue.h"
#include "tests/comm/thread_group.h"

namespace tw {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::mutex mutex;
std::multiset<int> opened, closed;

class NumberedMemory : public DeviceMemory {
 public:
  explicit NumberedMemory(int number) : number_(number) {}
  ~NumberedMemory() override {
    const std::lock_guard<std::mutex> lock(mutex);
    closed.insert(number_);
  }
  uint8_t* Allocate(size_t) override { throw std::bad_alloc(); }
  void Free(uint8_t*) override {}

 private:
  const int number_;
};

StatusOr<OpenedDevice> OpenNumber(int number, std::function<void()> when_full) {
  const std::lock_guard<std::mutex> lock(mutex);
  opened.insert(number);
  OpenedDevice out;
  out.memory = std::make_unique<NumberedMemory>(number);
  out.training = std::make_unique<SlowQueue>();
  out.lane = std::make_unique<SlowQueue>();
  return out;
}
StatusOr<OpenedDevice> OpenAllButOne(int number, std::function<void()> when_full) {
  if (number == 1) return DataError("GPU 1 does not start");
  return OpenNumber(number, std::move(when_full));
}

std::multiset<int> wired;
// In the place of NCCL.
StatusOr<std::unique_ptr<Communicator>> MakeSplit(const NcclOptions& options,
                                                  Communicator& control) {
  {
    const std::lock_guard<std::mutex> lock(mutex);
    wired.insert(options.device);
  }
  return control.Split(0);
}

const CudaModule kModule{.nccl = "NCCL 1.2.3", .tensors = "meta", .open_device = OpenNumber};

// A rank's place as a launcher gives it.
class PlacedWorld : public World {
 public:
  PlacedWorld(Communicator& comm, int ranks_a_host)
      : World(2), comm_(comm), ranks_a_host_(ranks_a_host) {}
  ~PlacedWorld() override { CloseLane(); }
  Communicator& comm() override { return comm_; }
  int local_rank() const override { return comm_.rank() % ranks_a_host_; }
  int local_size() const override { return ranks_a_host_; }
  int first_here() const override { return comm_.rank() - local_rank(); }
  std::string host() const override { return "h" + std::to_string(comm_.rank() / ranks_a_host_); }
  void Close() override { CloseLane(); }

 private:
  Communicator& comm_;
  const int ranks_a_host_;
};

struct Outcome {
  Status status;
  std::string note, name;
  int number = -1;
};

using Seen = std::function<DeviceModule(int rank)>;

class DeviceRanks : public ::testing::Test {
 protected:
  void SetUp() override {
    opened.clear();
    closed.clear();
    wired.clear();
    loaded_.settings.comm.timeout_s = 60;
  }
  // Every rank chooses; `seen` are the devices that rank sees.
  std::vector<Outcome> Choose(int ranks, int ranks_a_host, const std::string& device,
                              const Seen& seen) {
    std::vector<Outcome> outcomes(static_cast<size_t>(ranks));
    loaded_.settings.train.device = device;
    RunRanks(ranks, [&](Communicator& comm) {
      PlacedWorld world(comm, ranks_a_host);
      Outcome& out = outcomes[static_cast<size_t>(comm.rank())];
      const DeviceModule devices = seen(comm.rank());
      out.status = OpenChosenDevice(loaded_, devices, world, &out.note);
      out.number = world.device_number();
      EXPECT_EQ(world.device().memory != nullptr, out.number >= 0);
      EXPECT_EQ(&world.gradient_comm() != &comm, out.number >= 0);
      const ChosenDevice chosen = DeviceOf(devices, world);
      out.name = chosen.name;
      EXPECT_EQ(chosen.tensors.is_cpu(), out.number < 0);
      world.Close();
      EXPECT_EQ(world.device().memory, nullptr);
    });
    EXPECT_EQ(opened, closed);
    return outcomes;
  }
  LoadedConfig loaded_;
};

std::vector<int> Numbers(const std::vector<Outcome>& outcomes) {
  std::vector<int> numbers;
  for (const Outcome& o : outcomes) {
    EXPECT_TRUE(o.status.ok()) << o.status;
    EXPECT_EQ(o.note, "");
    numbers.push_back(o.number);
  }
  return numbers;
}

DeviceModule Machine(const std::vector<std::string>& ids) {
  return {
      .devices = std::vector<std::string>(ids.size(), "Fake GPU"), .module = &kModule, .ids = ids};
}

TEST_F(DeviceRanks, RanksThatSeeAllTakeThatOfTheirNumber) {
  const Seen all = [](int) { return Machine({"a", "b", "c"}); };
  EXPECT_THAT(Numbers(Choose(3, 3, "cuda", all)), ElementsAre(0, 1, 2));
  EXPECT_EQ(opened, (std::multiset<int>{0, 1, 2}));
  EXPECT_THAT(Numbers(Choose(2, 2, "auto", all)), ElementsAre(0, 1));
}

TEST_F(DeviceRanks, RanksThatSeeOneEachTakeIt) {
  const Seen own = [](int rank) { return Machine({"id" + std::to_string(rank)}); };
  EXPECT_THAT(Numbers(Choose(3, 3, "auto", own)), ElementsAre(0, 0, 0));
  // Hosts that are emulated on one machine, each with a device of it.
  EXPECT_THAT(Numbers(Choose(2, 1, "cuda", own)), ElementsAre(0, 0));
}

TEST_F(DeviceRanks, WhatIsTooOldIsPassedOver) {
  const auto outcomes = Choose(2, 2, "cuda", [](int) {
    DeviceModule devices = Machine({"a", "b", "c", "d"});
    devices.devices = {"New", "Old", "Newer", "Newest"};
    devices.capabilities = {{8, 0}, {7, 5}, {9, 0}, {12, 1}};
    return devices;
  });
  EXPECT_THAT(Numbers(outcomes), ElementsAre(0, 2));
  EXPECT_EQ(outcomes[1].name, "Newer");
}

TEST_F(DeviceRanks, TheWireAndTheQueuesAreOfThatNumber) {
  CudaModule module = kModule;
  module.make_nccl = MakeSplit;
  loaded_.settings.comm.backend = "nccl";
  const auto outcomes = Choose(2, 2, "auto", [&](int) {
    DeviceModule devices = Machine({"a", "b"});
    devices.module = &module;
    return devices;
  });
  EXPECT_THAT(Numbers(outcomes), ElementsAre(0, 1));
  EXPECT_EQ(wired, (std::multiset<int>{0, 1}));
}

constexpr char kWhatToDo[] = ": start fewer ranks a host, or let each see a GPU of its own";

TEST_F(DeviceRanks, NoTwoRanksShareOne) {
  struct Case {
    int ranks, ranks_a_host;
    Seen seen;
    std::string said;
  };
  const Seen one = [](int) { return Machine({"a"}); };
  const Seen two_a_host = [](int rank) {
    const std::string host = std::to_string(rank / 3);
    return Machine({"a" + host, "b" + host});
  };
  // Numbers differ, and it is the same one all the same.
  const Seen by_other_numbers = [](int rank) {
    return rank == 0 ? Machine({"a", "b"}) : Machine({"b", "a"});
  };
  const Case cases[] = {
      {2, 2, one, "on h0 ranks 0, 1 share GPU 0"},
      {3, 1, one, "on h0 ranks 0, 1, 2 share GPU 0"},
      {6, 3, two_a_host, "on h0 ranks 0, 2 share GPU 0"},
      {2, 2, by_other_numbers, "on h0 ranks 0, 1 share GPU 0"},
      {4, 4,
       [](int) {
         return Machine({"a", "b"});
       },
       "on h0 ranks 0, 2 share GPU 0, ranks 1, 3 share GPU 1"},
      {3, 3, [](int rank) { return Machine({rank == 0 ? "a" : "b"}); },
       "on h0 ranks 1, 2 share GPU 0"},
      {12, 12,
       [](int) {
         return Machine({"a", "b", "c", "d", "e", "f"});
       },
       "on h0 ranks 0, 6 share GPU 0, ranks 1, 7 share GPU 1, ranks 2, 8 share GPU 2, ranks 3, 9 "
       "share GPU 3 and so on"},
  };
  for (const Case& c : cases) {
    for (const Outcome& o : Choose(c.ranks, c.ranks_a_host, "auto", c.seen)) {
      EXPECT_TRUE(o.status.ok());
      EXPECT_EQ(o.number, -1);
      EXPECT_THAT(o.note, HasSubstr("train.device = auto: tensors lie in the host's memory; "));
      EXPECT_THAT(o.note, HasSubstr(c.said + kWhatToDo));
    }
    for (const char* backend : {"auto", "mpi"}) {
      loaded_.settings.comm.backend = backend;
      for (const Outcome& o : Choose(c.ranks, c.ranks_a_host, "cuda", c.seen)) {
        EXPECT_EQ(ExitCode(o.status), 3);
        EXPECT_THAT(std::string(o.status.message()), HasSubstr("train.device = cuda: "));
        EXPECT_THAT(std::string(o.status.message()), HasSubstr(c.said + kWhatToDo + "; cpu works"));
        EXPECT_EQ(o.number, -1);
      }
    }
  }
  EXPECT_TRUE(opened.empty());
}

TEST_F(DeviceRanks, NcclInsistsToo) {
  loaded_.settings.comm.backend = "nccl";
  for (const Outcome& o : Choose(2, 2, "auto", [](int) { return Machine({"a"}); })) {
    EXPECT_EQ(ExitCode(o.status), 3);
    EXPECT_THAT(std::string(o.status.message()), HasSubstr("share GPU 0"));
    EXPECT_THAT(std::string(o.status.message()), HasSubstr("; mpi works"));
  }
}

TEST_F(DeviceRanks, WithoutIdsHostAndNumberTellThemApart) {
  const auto machine = [](size_t count) {
    return [count](int) {
      return DeviceModule{.devices = std::vector<std::string>(count, "Fake GPU"),
                          .module = &kModule};
    };
  };
  EXPECT_THAT(Numbers(Choose(4, 2, "cuda", machine(2))), ElementsAre(0, 1, 0, 1));
  for (const Outcome& o : Choose(4, 2, "auto", machine(1))) {
    EXPECT_EQ(o.number, -1);
    EXPECT_THAT(o.note, HasSubstr("on h0 ranks 0, 1 share GPU 0"));
  }
}

TEST_F(DeviceRanks, OneWithoutKeepsAllOnTheHost) {
  const Seen seen = [](int rank) {
    return rank == 1 ? DeviceModule{.devices = {"Fake GPU"}, .reason = "module not built"}
                     : Machine({"a", "b"});
  };
  const auto outcomes = Choose(2, 2, "auto", seen);
  const std::string note = "train.device = auto: tensors lie in the host's memory; ";
  EXPECT_EQ(outcomes[0].note, note + "rank 1: module not built");
  EXPECT_EQ(outcomes[1].note, note + "module not built");
  for (const Outcome& o : outcomes) EXPECT_EQ(o.number, -1);
  for (const Outcome& o : Choose(2, 2, "cuda", seen)) {
    EXPECT_EQ(ExitCode(o.status), 3);
    EXPECT_THAT(std::string(o.status.message()), HasSubstr("no GPU to use: "));
    EXPECT_THAT(std::string(o.status.message()), HasSubstr("module not built; cpu works"));
  }
  EXPECT_TRUE(opened.empty());
}

TEST_F(DeviceRanks, OneThatDoesNotStartKeepsAllOnTheHost) {
  CudaModule module = kModule;
  module.open_device = OpenAllButOne;
  const Seen seen = [&](int) {
    DeviceModule devices = Machine({"a", "b", "c"});
    devices.module = &module;
    return devices;
  };
  for (const Outcome& o : Choose(3, 3, "auto", seen)) {
    EXPECT_TRUE(o.status.ok());
    EXPECT_EQ(o.number, -1);
    EXPECT_EQ(
        o.note,
        "train.device = auto: tensors lie in the host's memory; rank 1: GPU 1 does not start");
  }
  EXPECT_EQ(closed, (std::multiset<int>{0, 2}));
  for (const Outcome& o : Choose(3, 3, "cuda", seen)) {
    EXPECT_EQ(ExitCode(o.status), 3);
    EXPECT_EQ(o.status.message(), "train.device = cuda: rank 1: GPU 1 does not start; cpu works");
  }
}

}  // namespace
}  // namespace tw
