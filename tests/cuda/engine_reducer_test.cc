// The whole way of a gradient on a device (hooks, buckets, lane, feedback, codecs, exchange,
// states) gives what it gives on the host: parameters, states and replicas, bit for bit. Tensors
// are LibTorch's on the CPU, which the device can read here; states, bodies and scratch are the
// device's.

#include <gtest/gtest.h>

#include "tests/cuda/placed_rank.h"

namespace tw {
namespace {

constexpr uint64_t kSteps = 3;

// What a rank has after kSteps steps.
struct Left {
  uint64_t parameters = 0;
  std::vector<float> values;  // of all of them
  std::map<std::string, std::vector<uint8_t>> state;
  std::vector<bool> finite;
};

struct Case {
  ReducerSetup setup;
  int ranks = 1;
  int poisoned = -1;     // step in which the last rank's gradient is infinite
  bool rounded = false;  // products of low rank are the host's up to the order of their sums
  std::string name;
};
void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }

std::vector<Left> RunCase(const Case& c, TestDevice* device) {
  std::vector<Left> out(static_cast<size_t>(c.ranks));
  RunRanks(c.ranks, [&](Communicator& wire) {
    Left& left = out[static_cast<size_t>(wire.rank())];
    const PlacedRank placed(wire, c.setup, device);
    ReducerRank& rank = *placed.rank;
    for (uint64_t step = 0; step < kSteps; ++step) {
      const bool poison = static_cast<int>(step) == c.poisoned && wire.rank() + 1 == c.ranks;
      const auto outcome = rank.Reduce(step, poison ? rank.model.w1 : at::Tensor());
      left.finite.push_back(outcome.finite);
      if (outcome.finite) rank.Descend();
    }
    left.parameters = rank.ParametersBits();
    for (const ParameterView& view : rank.reducer->views()) {
      const std::span<const float> p = view.value.f32();
      left.values.insert(left.values.end(), p.begin(), p.end());
    }
    left.state = rank.State();
  });
  return out;
}

class DeviceReducer : public ::testing::TestWithParam<Case> {};

TEST_P(DeviceReducer, LeavesWhatTheHostLeaves) {
  const Case& c = GetParam();
  const std::vector<Left> host = RunCase(c, nullptr);
  TestDevice device;
  const std::vector<Left> on_device = RunCase(c, &device);
  for (size_t r = 0; r < host.size(); ++r) {
    EXPECT_EQ(on_device[r].finite, host[r].finite);
    EXPECT_EQ(on_device[r].parameters, on_device[0].parameters) << "replicas, rank " << r;
    ASSERT_EQ(on_device[r].values.size(), host[r].values.size());
    if (c.rounded) {
      for (size_t i = 0; i < host[r].values.size(); ++i) {
        ASSERT_NEAR(on_device[r].values[i], host[r].values[i], 1e-4) << i;
      }
      continue;
    }
    EXPECT_EQ(on_device[r].parameters, host[r].parameters) << "rank " << r;
    ASSERT_EQ(on_device[r].state.size(), host[r].state.size());
    for (const auto& [name, bytes] : host[r].state) {
      ASSERT_TRUE(on_device[r].state.count(name)) << name;
      EXPECT_EQ(on_device[r].state.at(name), bytes) << name << ", rank " << r;
    }
  }
}

std::vector<Case> Cases() {
  std::vector<Case> out;
  const auto add = [&](const std::string& codec, const std::string& feedback, int ranks,
                       Keys keys = {}) {
    Case c{{codec, feedback, std::move(keys), 1, true, 100}, ranks};
    c.name = codec + "_" + feedback + "_" + std::to_string(ranks);
    c.rounded = codec == "powersgd" || codec == "unbiased_lowrank";
    out.push_back(std::move(c));
    return &out.back();
  };
  // Every feedback, around a sparsifier or, where it must be unbiased, a quantizer.
  for (const std::string& feedback : Registry<FeedbackPolicy>::Get().names()) {
    const bool unbiased =
        MakeVariant<FeedbackPolicy>(feedback)->traits().needs_unbiased || feedback == "none";
    add(unbiased ? "natural" : "topk", feedback, 3, unbiased ? Keys{} : Keys{{"ratio", 0.1}});
  }
  add("topk", "ef14", 1, {{"ratio", 0.05}});
  add("topk", "ef14", 4, {{"ratio", 0.05}, {"value_bits", int64_t{8}}})->name += "_8bits";
  add("chunked_topk", "ef14", 2);
  add("sign", "ef14", 2);
  add("onebit", "ef14", 3);
  add("blockquant", "ef14", 2);
  add("qsgd", "none", 2);
  add("randk", "ef14", 2);
  add("powersgd", "ef14", 2, {{"rank", int64_t{2}}});
  add("unbiased_lowrank", "none", 2);
  add("intsum", "none", 2);
  add("threshold", "ef14", 2);
  add("bf16", "ef14", 3);
  add("none", "none", 1);
  add("none", "none", 4);
  Case* c = add("topk", "ef14", 2, {{"ratio", 0.1}});
  c->setup.overlap = false;
  c->name += "_agreed_first";
  c = add("topk", "ef14", 2, {{"ratio", 0.1}});
  c->setup.bucket_cap_bytes = 1 << 20;
  c->name += "_one_bucket";
  c = add("topk", "ef21", 2, {{"ratio", 0.1}});
  c->poisoned = 1;
  c->name += "_rolled_back";
  c = add("powersgd", "ef14", 2);
  c->poisoned = 1;
  c->setup.overlap = false;
  c->name += "_skipped";
  return out;
}

INSTANTIATE_TEST_SUITE_P(All, DeviceReducer, ::testing::ValuesIn(Cases()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace tw
