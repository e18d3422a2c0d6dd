// Exchanges on device memory, over MPI-like wires and pinned memory: every compressor, encoded and
// decoded by the kernels for GPUs, ends with the host's bits on any number of ranks.

#include <gtest/gtest.h>

#include <cmath>

#include "comm/staged_communicator.h"
#include "tests/comm/exchange_runner.h"
#include "tests/comm/thread_group.h"
#include "tests/cuda/test_device.h"

namespace tw {
namespace {

using Means = std::vector<std::vector<float>>;

std::unique_ptr<Compressor> MakeDefault(const std::string& name) {
  auto made = Registry<Compressor>::Get().Find(name)->make(ConfigSection{.name = "compressor"});
  TW_CHECK_OK(made);
  return std::move(*made);
}

// Sizes up to 1024, at which a device adds up a tensor in the host's order (reduce_device.h).
std::vector<TensorSpec> SpecsFor(const Compressor& codec) {
  std::vector<std::vector<int64_t>> shapes = {{33, 17}, {8, 100}};
  if (!codec.traits().matrix_only) {
    for (const int64_t numel : {1, 0, 3, 129, 1000, 2}) shapes.push_back({numel});
  }
  std::vector<TensorSpec> specs;
  for (auto& shape : shapes) specs.push_back(TestSpec(static_cast<uint32_t>(specs.size()), shape));
  return specs;
}

struct Case {
  std::string compressor, exchange;
  int ranks = 1;
  bool hop_feedback = false;
};

// By rank; on a device where one is given.
std::vector<Means> MeansOf(const Case& setup, const Compressor& codec,
                           const std::vector<TensorSpec>& specs, TestDevice* device) {
  std::vector<Means> out(static_cast<size_t>(setup.ranks));
  RunRanks(setup.ranks, [&](Communicator& wire) {
    const auto queue = device ? device->NewQueue() : nullptr;
    const DeviceScope scope(queue.get());
    const auto staged = device ? MakeStagedCommunicator(wire, *queue) : nullptr;
    ExchangeRunner runner(device ? *staged : wire, device ? &device->memory() : nullptr);
    runner.hop_feedback = setup.hop_feedback;
    for (int step = 0; step < 2; ++step) {  // states of the first go into the second
      auto means = runner.Run(specs, codec, FindExchange(setup.exchange));
      ASSERT_TRUE(means.ok()) << means.status();
      out[static_cast<size_t>(wire.rank())] = std::move(*means);
    }
    if (queue) {
      EXPECT_TRUE(queue->Wait().ok());
    }
  });
  return out;
}

std::vector<Case> AllCases() {
  std::vector<Case> cases;
  for (const std::string& name : Registry<Compressor>::Get().names()) {
    const auto codec = MakeDefault(name);
    for (const std::string& exchange : Registry<Exchange>::Get().names()) {
      const Merge merge = FindExchange(exchange)->merge();
      const auto& merges = codec->traits().merges;
      if (std::find(merges.begin(), merges.end(), merge) == merges.end()) continue;
      if (exchange == "sparse" || exchange == "library") continue;  // not on a device; not threads'
      for (int n = 1; n <= 4; ++n) {
        cases.push_back({name, exchange, n});
        if (merge == Merge::kReencode && n > 1) cases.push_back({name, exchange, n, true});
      }
    }
  }
  return cases;
}

class DeviceExchanges : public ::testing::TestWithParam<Case> {};

TEST_P(DeviceExchanges, GiveTheHostsBits) {
  const auto codec = MakeDefault(GetParam().compressor);
  const auto specs = SpecsFor(*codec);
  const auto host = MeansOf(GetParam(), *codec, specs, nullptr);
  TestDevice device;
  const auto on_device = MeansOf(GetParam(), *codec, specs, &device);
  // Products of matrices have sums in another order on a device (lowrank_device.h), and no other
  // bits for that on one rank than on another.
  const float near = codec->traits().matrix_only ? 1e-5f : 0;
  for (size_t r = 0; r < host.size(); ++r) {
    ASSERT_EQ(on_device[r], on_device[0]);
    ASSERT_EQ(on_device[r].size(), specs.size());
    for (size_t s = 0; s < specs.size(); ++s) {
      ASSERT_EQ(on_device[r][s].size(), host[r][s].size());
      for (size_t i = 0; i < host[r][s].size(); ++i) {
        ASSERT_LE(std::abs(on_device[r][s][i] - host[r][s][i]), near)
            << "rank " << r << ", " << specs[s].name << " at " << i;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, DeviceExchanges, ::testing::ValuesIn(AllCases()),
                         [](const ::testing::TestParamInfo<Case>& info) {
                           const Case& c = info.param;
                           return c.compressor + "_" + c.exchange + "_" + std::to_string(c.ranks) +
                                  (c.hop_feedback ? "_hop" : "");
                         });

}  // namespace
}  // namespace tw
