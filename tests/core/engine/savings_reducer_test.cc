// Tiles, pieces of the head and checkpointed blocks behind the reducer: each parameter's gradient
// arrives whole and once, so that buckets start once and hold the mean.

#include <gtest/gtest.h>

#include "core/nn/model/gpt.h"
#include "core/nn/model/llama.h"
#include "core/nn/torch.h"
#include "tests/core/engine/reducer_rank.h"

namespace tw {
namespace {

std::shared_ptr<LanguageModel> Make(bool gpt, const MemoryConfig& memory) {
  const ModelInput input{.vocab = 120, .context = 21};
  auto model = gpt ? CreateGpt({.layers = 2, .width = 16, .heads = 2}, input, 3, memory)
                   : CreateLlama({.layers = 2, .width = 16, .heads = 2}, input, 3, memory);
  TW_CHECK_OK(model);
  return *model;
}

GradientReducer::NamedTensors ParametersOf(const LanguageModel& model) {
  GradientReducer::NamedTensors out;
  for (const auto& item : model.named_parameters()) out.emplace_back(item.key(), item.value());
  return out;
}

at::Tensor LossOf(LanguageModel& model, int rank, int micro) {
  const at::Tensor ids =
      ((Numbers({2, 22}, static_cast<uint64_t>(40 + 8 * rank + micro), 1.0) + 1) * 60)
          .to(torch::kLong)
          .clamp(0, 119);
  return model.Loss(ids.narrow(1, 0, 21), ids.narrow(1, 1, 21));
}

TEST(SavingsBehindTheReducer, TwoRanksAndTwoMicroBatchesGetThePlainMean) {
  at::set_num_threads(1);
  for (const bool gpt : {true, false}) {
    const auto plain = Make(gpt, {});
    for (int i = 0; i < 4; ++i) (LossOf(*plain, i / 2, i % 2) / 4).backward();
    for (const char* form : {"fused", "recompute"}) {
      const MemoryConfig memory{
          .activations = "checkpoint", .mlp_chunks = 3, .head_chunks = 4, .head_form = form};
      uint64_t bits[2] = {};
      RunRanks(2, [&](Communicator& comm) {
        const auto model = Make(gpt, memory);
        ReducerRank rank(comm, {}, ParametersOf(*model));
        for (int step = 0; step < 2; ++step) {
          rank.reducer->ZeroGradients();
          for (int micro = 0; micro < 2; ++micro) {
            const at::Tensor loss = LossOf(*model, comm.rank(), micro) / 2;
            if (micro == 1) rank.reducer->Arm(static_cast<uint64_t>(step));
            loss.backward();
          }
          EXPECT_TRUE(rank.Finish().finite);
          EXPECT_TRUE(rank.reducer->TakeNewlyUnused().empty());
          const auto expected = plain->named_parameters();
          for (const auto& [name, parameter] : rank.parameters) {
            const at::Tensor& mean = expected[name].grad();
            EXPECT_TRUE(torch::allclose(parameter.grad(), mean, 1e-5,
                                        1e-5 * mean.abs().max().item<double>()))
                << name;
          }
        }
        bits[comm.rank()] = rank.GradientBits();
      });
      EXPECT_EQ(bits[0], bits[1]);
    }
  }
}

}  // namespace
}  // namespace tw
