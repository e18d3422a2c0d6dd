#include "core/engine/gradient_reducer.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/variable.h>

#include <atomic>
#include <barrier>

#include "core/engine/tensor_memory.h"
#include "tests/core/engine/reducer_rank.h"

namespace tw {
namespace {

class CountingHook : public torch::autograd::PostAccumulateGradHook {
 public:
  CountingHook(int* calls, std::thread::id* thread) : calls_(calls), thread_(thread) {}
  void operator()(const at::Tensor& parameter) override {
    ++*calls_;
    *thread_ = std::this_thread::get_id();
    EXPECT_TRUE(parameter.grad().defined());
  }

 private:
  int* calls_;
  std::thread::id* thread_;
};

// What the reducer relies on and LibTorch's header does not promise.
TEST(PostAccumulateHook, FiresOnceABackwardOnTheCallingThreadForTiedWeightsToo) {
  TiedModel model;
  std::map<std::string, int> calls;
  std::map<std::string, std::thread::id> threads;
  for (const auto& [name, parameter] : model.parameters()) {
    torch::autograd::impl::set_post_acc_grad_hooks(
        parameter, std::make_unique<CountingHook>(&calls[name], &threads[name]));
  }
  for (int backward = 1; backward <= 2; ++backward) {
    model.Loss(0, 0).backward();
    for (const char* name : {"tok", "w1", "b1", "w2"}) {
      EXPECT_EQ(calls[name], backward) << name;
      EXPECT_EQ(threads[name], std::this_thread::get_id()) << name;
    }
    EXPECT_EQ(calls["spare"], 0);
  }
}

const std::vector<ReducerSetup>& Setups() {
  static const auto* setups = new std::vector<ReducerSetup>{
      {"none", "none", {}},
      {"topk", "ef14", {{"ratio", 0.05}}},
      {"blockquant", "ef14", {{"bits", int64_t{4}}, {"block", int64_t{32}}}},
      {"powersgd", "ef14", {{"rank", int64_t{2}}}},
      {"randk", "ef21", {{"ratio", 0.1}}},
      {"sign", "econtrol", {}}};
  return *setups;
}

std::string NameOf(const ReducerSetup& s) { return s.compressor + "+" + s.feedback; }

TEST(GradientReducer, TheMeanOfDenseGradientsIsExact) {
  for (int n : {1, 2, 3}) {
    RunRanks(n, [&](Communicator& comm) {
      ReducerRank rank(comm, {});
      rank.reducer->ZeroGradients();
      at::Tensor loss = at::zeros({});
      for (const auto& [name, parameter] : rank.model.parameters()) {
        // Gradient 6 * (rank + 1) * k: sums and thirds of them are whole numbers.
        const at::Tensor k = at::arange(parameter.numel()).view(parameter.sizes());
        loss = loss + (parameter * k * (6.0 * (comm.rank() + 1))).sum();
      }
      rank.reducer->Arm(0);
      loss.backward();
      EXPECT_TRUE(rank.Finish().finite);
      const double mean = 6.0 * (n + 1) / 2;
      for (const auto& [name, parameter] : rank.model.parameters()) {
        const at::Tensor k = at::arange(parameter.numel()).view(parameter.sizes());
        EXPECT_TRUE(at::equal(parameter.grad(), (k * mean).to(at::kFloat)))
            << name << " at " << n << " ranks";
      }
    });
  }
}

// Bits of the gradients of every step and of the last parameters, the same on all ranks.
std::vector<uint64_t> Train(int n, const ReducerSetup& setup, int steps) {
  std::vector<std::vector<uint64_t>> bits(static_cast<size_t>(n));
  RunRanks(n, [&](Communicator& comm) {
    ReducerRank rank(comm, setup);
    auto& mine = bits[static_cast<size_t>(comm.rank())];
    for (int step = 0; step < steps; ++step) {
      EXPECT_TRUE(rank.Reduce(static_cast<uint64_t>(step)).finite);
      mine.push_back(rank.GradientBits());
      rank.Descend();
    }
    mine.push_back(rank.ParametersBits());
  });
  for (const auto& other : bits) EXPECT_EQ(bits[0], other) << NameOf(setup);
  return bits[0];
}

TEST(GradientReducer, BucketsAndOverlapDoNotChangeABit) {
  for (int n : {1, 2, 3}) {
    for (ReducerSetup setup : Setups()) {
      const auto expected = Train(n, setup, 4);
      for (const int64_t cap : {int64_t{1}, int64_t{4000}, int64_t{1} << 20}) {
        for (const bool overlap : {true, false}) {
          setup.bucket_cap_bytes = cap;
          setup.overlap = overlap;
          EXPECT_EQ(Train(n, setup, 4), expected)
              << NameOf(setup) << " at " << n << " ranks, cap " << cap << ", overlap " << overlap;
        }
      }
    }
  }
}

GradientReducer::NamedTensors OddParameters() {
  const auto make = [](std::vector<int64_t> shape, at::ScalarType type) {
    return at::zeros(shape, at::dtype(type)).requires_grad_();
  };
  return {{"bf16", make({40, 10}, at::kBFloat16)}, {"none", make({0}, at::kFloat)},
          {"fp64", make({20, 15}, at::kDouble)},   {"one", make({1}, at::kFloat)},
          {"fp16", make({17}, at::kHalf)},         {"fp32", make({9, 11}, at::kFloat)}};
}

TEST(GradientReducer, EveryTypeAndSizeGoesThrough) {
  for (ReducerSetup setup : Setups()) {
    setup.min_numel = 0;
    for (int n : {1, 3}) {
      std::map<std::pair<int64_t, bool>, std::vector<uint64_t>> bits;
      for (const int64_t cap : {int64_t{1}, int64_t{1} << 20}) {
        for (const bool overlap : {true, false}) {
          setup.bucket_cap_bytes = cap;
          setup.overlap = overlap;
          auto& of_ranks = bits[{cap, overlap}];
          of_ranks.resize(static_cast<size_t>(n));
          RunRanks(n, [&](Communicator& comm) {
            ReducerRank rank(comm, setup, OddParameters());
            for (uint64_t step = 0; step < 3; ++step) {
              rank.reducer->ZeroGradients();
              at::Tensor loss = at::zeros({}, at::kDouble);
              for (const auto& [name, p] : rank.parameters) {
                // Gradients 3 * (rank + 1) * k with k in -4 .. 4: exact in every type.
                const at::Tensor k = at::arange(p.numel()).view(p.sizes()).remainder(9) - 4;
                loss = loss + (p.to(at::kDouble) * k * (3.0 * (comm.rank() + 1))).sum();
              }
              rank.reducer->Arm(step);
              loss.backward();
              EXPECT_TRUE(rank.Finish().finite);
              if (setup.compressor != "none") continue;
              for (const auto& [name, p] : rank.parameters) {
                const at::Tensor k = at::arange(p.numel()).view(p.sizes()).remainder(9) - 4;
                EXPECT_TRUE(at::equal(p.grad().to(at::kDouble), k * 1.5 * (n + 1))) << name;
              }
            }
            of_ranks[static_cast<size_t>(comm.rank())] = rank.GradientBits();
          });
        }
      }
      for (const auto& [key, of_ranks] : bits) {
        for (const uint64_t b : of_ranks) {
          EXPECT_EQ(b, bits.begin()->second[0])
              << NameOf(setup) << " at " << n << " ranks, cap " << key.first;
        }
      }
    }
  }
}

// The first message of the ef21 family: H = mean of the h to fp32 precision, whatever the
// gradient's type. In half precision a dense mean would be rounded once, and H would keep that.
TEST(GradientReducer, TheEstimateIsTheMeanOfTheRanksEstimatesInHalfPrecisionToo) {
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16, at::kHalf}) {
    std::vector<at::Tensor> own(2), mean(2);
    RunRanks(2, [&](Communicator& comm) {
      const at::Tensor w = Numbers({32, 16}, 1, 1.0).to(type).requires_grad_();
      ReducerRank rank(comm, {"topk", "ef21", {{"ratio", 0.25}}}, {{"w", w}});
      rank.reducer->ZeroGradients();
      const at::Tensor g = Numbers({32, 16}, 2 + static_cast<uint64_t>(comm.rank()), 1.0).to(type);
      at::Tensor loss = (w * g).sum();
      rank.reducer->Arm(0);
      loss.backward();
      EXPECT_TRUE(rank.Finish().finite);
      const auto slot = [&](const char* name) {
        const StateSlot* found = rank.bag.Find(std::string("feedback/w/") + name);
        TW_CHECK(found != nullptr);
        EXPECT_EQ(found->view.dtype, DType::kF32);
        return at::from_blob(found->view.data, {32, 16}).clone();
      };
      own[static_cast<size_t>(comm.rank())] = slot("h");
      mean[static_cast<size_t>(comm.rank())] = slot("H");
    });
    EXPECT_TRUE(at::equal(mean[0], mean[1]));
    EXPECT_GT(mean[0].abs().max().item<double>(), 0.1);
    EXPECT_LT((mean[0] - (own[0] + own[1]) / 2).abs().max().item<double>(), 1e-6) << type;
  }
}

TEST(GradientReducer, BucketsFollowTheCapInReverseOrder) {
  RunRanks(1, [&](Communicator& comm) {
    EXPECT_EQ(ReducerRank(comm, {}).reducer->num_buckets(), 5);
    ReducerSetup one;
    one.bucket_cap_bytes = 1 << 20;
    EXPECT_EQ(ReducerRank(comm, one).reducer->num_buckets(), 1);
    ReducerRank rank(comm, one);
    // The last parameter lies first in the bucket, 64-byte aligned.
    const auto views = rank.reducer->views();
    const auto* w2 = static_cast<const uint8_t*>(views[4].grad.data);
    const auto* spare = static_cast<const uint8_t*>(views[3].grad.data);
    EXPECT_EQ(spare - w2, views[4].grad.bytes());
  });
}

TEST(GradientReducer, AParameterWithoutAGradientCountsAsZeroAndIsNamedOnce) {
  for (const bool overlap : {true, false}) {
    ReducerSetup setup;
    setup.overlap = overlap;
    RunRanks(2, [&](Communicator& comm) {
      ReducerRank rank(comm, setup);
      rank.Reduce(0);
      EXPECT_EQ(rank.reducer->TakeNewlyUnused(), std::vector<std::string>{"spare"});
      EXPECT_EQ(rank.model.spare.grad().abs().max().item<float>(), 0.0f);
      rank.Reduce(1);
      EXPECT_TRUE(rank.reducer->TakeNewlyUnused().empty());
      // Used on one rank only: the other's zero is in the mean.
      rank.reducer->ZeroGradients();
      at::Tensor loss = rank.model.Loss(comm.rank(), 2);
      if (comm.rank() == 1) loss = loss + rank.model.spare.sum() * 4;
      rank.reducer->Arm(2);
      loss.backward();
      rank.Finish();
      EXPECT_TRUE(at::equal(rank.model.spare.grad(), at::full({12, 12}, 2.0f)));
    });
  }
}

TEST(GradientReducer, AccumulationExchangesTheSumOnce) {
  RunRanks(2, [](Communicator& comm) {
    ReducerRank whole(comm, {});
    whole.reducer->ZeroGradients();
    whole.reducer->Arm(0);
    (whole.model.Loss(comm.rank(), 0) + whole.model.Loss(comm.rank(), 1)).backward();
    const int64_t once = whole.Finish().wire_bytes;

    ReducerRank parts(comm, {});
    parts.reducer->ZeroGradients();
    const int64_t before = comm.bytes_sent();
    parts.model.Loss(comm.rank(), 0).backward();
    EXPECT_EQ(comm.bytes_sent(), before);
    parts.reducer->Arm(0);
    parts.model.Loss(comm.rank(), 1).backward();
    EXPECT_EQ(parts.Finish().wire_bytes, once);
    for (size_t i = 0; i < 5; ++i) {
      const at::Tensor a = whole.model.parameters()[i].second.grad();
      const at::Tensor b = parts.model.parameters()[i].second.grad();
      EXPECT_TRUE(at::allclose(a, b, 1e-5, 1e-7)) << i;
    }
  });
}

// Steps 0, 1, [a step 2 that is infinite on rank 1], 2, 3.
std::vector<uint64_t> TrainAround(const ReducerSetup& setup, bool with_bad_step, bool last_bucket,
                                  uint64_t bad_at) {
  std::vector<std::vector<uint64_t>> bits(2);
  RunRanks(2, [&](Communicator& comm) {
    ReducerRank rank(comm, setup);
    auto& mine = bits[static_cast<size_t>(comm.rank())];
    for (uint64_t step = 0; step < 4; ++step) {
      if (with_bad_step && step == bad_at) {
        const auto before = rank.State();
        const at::Tensor bad = last_bucket ? rank.model.tok : rank.model.w2;
        EXPECT_FALSE(rank.Reduce(step, comm.rank() == 1 ? bad : at::Tensor()).finite);
        EXPECT_EQ(rank.State(), before) << NameOf(setup);
      }
      EXPECT_TRUE(rank.Reduce(step).finite);
      rank.Descend();
      mine.push_back(rank.GradientBits());
      EXPECT_EQ(rank.State().empty(), setup.compressor == "none");
    }
  });
  EXPECT_EQ(bits[0], bits[1]);
  return bits[0];
}

TEST(GradientReducer, AnInfiniteGradientOnOneRankLeavesNoTraceOnAny) {
  for (ReducerSetup setup : Setups()) {
    for (const bool overlap : {true, false}) {
      setup.overlap = overlap;
      const auto expected = TrainAround(setup, false, false, 0);
      for (const bool last_bucket : {true, false}) {
        for (const uint64_t bad_at : {uint64_t{0}, uint64_t{2}}) {
          EXPECT_EQ(TrainAround(setup, true, last_bucket, bad_at), expected)
              << NameOf(setup) << ", overlap " << overlap << ", last bucket " << last_bucket
              << ", bad step " << bad_at;
        }
      }
    }
  }
}

TEST(GradientReducer, AGradientTheUserReplacedIsTakenOver) {
  RunRanks(2, [](Communicator& comm) {
    ReducerRank plain(comm, {}), replaced(comm, {});
    plain.Reduce(0);
    const void* home = replaced.model.w1.grad().data_ptr();
    replaced.reducer->ZeroGradients();
    replaced.model.w1.mutable_grad() = at::Tensor();  // as zero_grad(set_to_none) does
    replaced.model.tok.mutable_grad() = at::zeros({24, 16});
    replaced.reducer->Arm(0);
    replaced.model.Loss(comm.rank(), 0).backward();
    replaced.Finish();
    EXPECT_EQ(replaced.model.w1.grad().data_ptr(), home);
    EXPECT_EQ(replaced.GradientBits(), plain.GradientBits());
    EXPECT_TRUE(at::equal(replaced.model.tok.grad(), plain.model.tok.grad()));
  });
}

TEST(GradientReducer, ParametersForgetAReducerThatIsGone) {
  RunRanks(1, [](Communicator& comm) {
    TiedModel survivor;
    {
      ReducerRank rank(comm, {});
      survivor = rank.model;
    }
    survivor.Loss(0, 0).backward();  // a hook left behind would touch freed memory
    EXPECT_TRUE(survivor.w1.grad().defined());
  });
}

TEST(GradientReducer, NothingIsAllocatedAndNothingMovesAfterTheFirstSteps) {
  InstallTensorMemoryCounter();
  for (ReducerSetup setup : Setups()) {
    setup.overlap = false;  // the whole exchange is inside Finish
    std::barrier meet(2);
    RunRanks(2, [&](Communicator& comm) {
      ReducerRank rank(comm, setup);
      std::vector<const void*> homes;
      int64_t bytes = 0;
      for (uint64_t step = 0; step < 6; ++step) {
        rank.reducer->ZeroGradients();
        at::Tensor loss = rank.model.Loss(comm.rank(), step);
        rank.reducer->Arm(step);
        loss.backward();
        meet.arrive_and_wait();
        const int64_t before = LiveTensorBytes();
        if (comm.rank() == 0) ResetPeakTensorBytes();
        meet.arrive_and_wait();
        rank.Finish();
        meet.arrive_and_wait();
        if (step >= 2) {
          EXPECT_EQ(PeakTensorBytes(), before) << NameOf(setup);
          EXPECT_EQ(LiveTensorBytes(), before) << NameOf(setup);
          EXPECT_EQ(rank.bag.bytes(), bytes) << NameOf(setup);
        }
        bytes = rank.bag.bytes();
        for (size_t i = 0; i < 5; ++i) {
          const void* at = rank.model.parameters()[i].second.grad().data_ptr();
          if (step == 0) homes.push_back(at);
          EXPECT_EQ(at, homes[i]);
          EXPECT_EQ(rank.reducer->views()[i].grad.data, at);
        }
        meet.arrive_and_wait();
        rank.Descend();
      }
    });
  }
}

TEST(GradientReducer, OneDenseRankSendsNothing) {
  RunRanks(1, [](Communicator& comm) {
    ReducerRank rank(comm, {});
    const ReduceOutcome outcome = rank.Reduce(0);
    EXPECT_EQ(outcome.wire_bytes, 0);
    EXPECT_TRUE(rank.State().empty());
    EXPECT_FALSE(rank.Reduce(1, rank.model.b1).finite);
  });
}

}  // namespace
}  // namespace tw
