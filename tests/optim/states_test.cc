// Optimizer states in few bits: sizes to the byte, identities between optimizers, and what every
// pair of optimizer and codec must do.

#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <map>

#include "core/api/optimizer.h"
#include "core/base/rng.h"
#include "core/engine/checkpoint.h"
#include "tests/comm/thread_group.h"
#include "tests/core/data/temp_folder.h"

namespace tw {
namespace {

using Floats = std::vector<float>;

template <class Interface>
std::unique_ptr<Interface> Make(const std::string& name) {
  auto made = Registry<Interface>::Get().Find(name)->make(ConfigSection{});
  TW_CHECK_OK(made);
  return std::move(made).value();
}

Floats Numbers(int64_t n, uint32_t id) {
  const RngStream rng = RngStream::Of(5, RngPurpose::kTest, 0, id, 0);
  Floats out(static_cast<size_t>(n));
  for (size_t i = 0; i < out.size(); ++i) out[i] = 2 * rng.Uniform(i) - 1;
  return out;
}

// One fp32 parameter and the optimizer that moves it.
struct Training {
  std::unique_ptr<Optimizer> optimizer;
  std::unique_ptr<StateCodec> codec;
  StateTreatment treatment;
  TensorSpec spec{.id = 0, .name = "w.weight"};
  Floats p;
  std::unique_ptr<StateBag> state = std::make_unique<StateBag>();
  int64_t update = 0;

  Training(const std::string& name, const std::string& codec_name, std::vector<int64_t> shape,
           ParameterRole role = {{BlockKind::kRow}})
      : optimizer(Make<Optimizer>(name)), codec(Make<StateCodec>(codec_name)) {
    treatment = {codec.get(), std::move(role)};
    spec.shape = std::move(shape);
    p = Numbers(spec.numel(), 1);
  }
  void Step(Floats g, float grad_scale = 1) {
    const ParameterView view{&spec, ViewOf(p), ViewOf(g)};
    TW_CHECK_OK(optimizer->Step({&view, 1}, {.lr = 1e-2,
                                             .grad_scale = grad_scale,
                                             .update = ++update,
                                             .state = state.get(),
                                             .treatments = {&treatment, 1}}));
  }
  void Steps(int count) {
    for (int i = 0; i < count; ++i) {
      Step(Numbers(spec.numel(), static_cast<uint32_t>(100 + update)));
    }
  }
  int64_t StateBytes() const { return optimizer->StateBytes(spec, treatment); }
};

std::map<std::string, std::vector<uint8_t>> BytesOf(const StateBag& bag) {
  std::map<std::string, std::vector<uint8_t>> out;
  bag.ForEach([&](const std::string& name, const StateSlot& slot) {
    const ByteSpan raw = slot.view.raw();
    out[name] = {raw.begin(), raw.end()};
  });
  return out;
}

void ForEveryPair(const std::function<void(const std::string&, const std::string&)>& body) {
  for (const std::string& optimizer : Registry<Optimizer>::Get().names()) {
    for (const std::string& codec : Registry<StateCodec>::Get().names()) {
      SCOPED_TRACE(optimizer + " on " + codec);
      body(optimizer, codec);
    }
  }
}

TEST(States, TakeWhatTheFormulasSayToTheByte) {
  const std::map<std::pair<std::string, std::string>, int64_t> want = {
      {{"adamw", "fp32"}, 8 << 24},
      {{"adamw", "bf16"}, 4 << 24},
      {{"adamw", "int8"}, 2 * ((1 << 24) + 4 * (1 << 16))},
      {{"adamw", "int4"}, 2 * ((1 << 23) + 4 * (1 << 17))},
      {{"adamw", "int4_rank1"}, (1 << 23) + 4 * (1 << 17) + (1 << 23) + 4 * 8192},
      {{"adamw", "int4_factor"}, (1 << 23) + 4 * (1 << 17) + 4 * 8192},
      {{"adam_mini", "fp32"}, (4 << 24) + 4 * 4096},
      {{"adam_mini", "int4"}, (1 << 23) + 4 * (1 << 17) + 4 * 4096},
      {{"sgdm", "int4"}, (1 << 23) + 4 * (1 << 17)}};
  for (const auto& [pair, bytes] : want) {
    const auto codec = Make<StateCodec>(pair.second);
    const TensorSpec spec{.name = "w", .shape = {4096, 4096}};
    EXPECT_EQ(Make<Optimizer>(pair.first)->StateBytes(spec, {codec.get(), {{BlockKind::kRow}}}),
              bytes)
        << pair.first << " on " << pair.second;
  }
  EXPECT_NEAR(static_cast<double>(want.at({"adamw", "int4_factor"})) / (1 << 24), 0.5332, 5e-5);
  EXPECT_NEAR(static_cast<double>(want.at({"adam_mini", "int4"})) / (1 << 24), 0.5322, 5e-5);
}

TEST(States, WhatIsKeptIsWhatWasPromisedAndSmallTensorsKeepFp32) {
  const std::vector<std::vector<int64_t>> shapes = {
      {0}, {1}, {127}, {4096}, {64, 64}, {4097}, {73, 71}, {1, 5001}, {5001, 1}, {3, 5, 7, 61}};
  ForEveryPair([&](const std::string& name, const std::string& codec) {
    for (const auto& shape : shapes) {
      Training t(name, codec, shape);
      t.Steps(2);
      EXPECT_EQ(t.state->bytes("optimizer/"), t.StateBytes()) << t.spec.numel();
      if (t.spec.numel() > 4096) continue;
      t.state->ForEach([&](const std::string& slot, const StateSlot& s) {
        EXPECT_EQ(s.view.dtype, DType::kF32) << slot;
      });
      Training plain(name, "fp32", shape);
      plain.Steps(2);
      EXPECT_EQ(t.p, plain.p);
    }
  });
}

// Steps from zeroed moments move a parameter as fp32 does: what rests matters from the next on.
TEST(States, StayCloseToFp32) {
  ForEveryPair([&](const std::string& name, const std::string& codec) {
    Training coded(name, codec, {73, 71}), plain(name, "fp32", {73, 71});
    const Floats start = plain.p;
    coded.Steps(10);
    plain.Steps(10);
    double error = 0, moved = 0;
    for (size_t i = 0; i < start.size(); ++i) {
      error += std::pow(static_cast<double>(coded.p[i]) - plain.p[i], 2);
      moved += std::pow(static_cast<double>(plain.p[i]) - start[i], 2);
    }
    // The factored mean of squares of noise is its mean: the furthest from by element.
    const std::map<std::string, double> bounds = {
        {"fp32", 0}, {"bf16", 0.02}, {"int8", 0.1}, {"int4_factor", 0.7}};
    const double bound = bounds.count(codec) ? bounds.at(codec) : 0.5;
    EXPECT_LE(std::sqrt(error / moved), bound);
  });
}

TEST(States, SavedAndRestoredGoOnBitForBit) {
  ForEveryPair([&](const std::string& name, const std::string& codec) {
    Training whole(name, codec, {73, 71}), first(name, codec, {73, 71});
    whole.Steps(5);
    first.Steps(3);
    auto loaded = std::make_unique<StateBag>();
    first.state->ForEach([&](const std::string& slot, const StateSlot& s) {
      const TensorView view = loaded->Restore(slot, s.shape, s.view.dtype, s.reshard);
      std::memcpy(view.data, s.view.data, static_cast<size_t>(s.view.bytes()));
    });
    first.state = std::move(loaded);
    first.Steps(2);
    EXPECT_TRUE(first.state->mismatch().ok());
    EXPECT_EQ(first.p, whole.p);
    EXPECT_EQ(BytesOf(*first.state), BytesOf(*whole.state));
  });
}

// Through checkpoints: saved by 2 ranks, read and saved by 1, read by 4.
TEST(States, AreTakenOverAtOtherNumbersOfRanks) {
  TempFolder folder;
  ForEveryPair([&](const std::string& name, const std::string& codec) {
    Training source(name, codec, {73, 71});
    source.Steps(3);
    const auto want = BytesOf(*source.state);
    const std::string run_dir = folder.Path(name + "-" + codec);
    const auto spec_of = [](StateBag* state, int64_t step) {
      CheckpointSpec spec;
      spec.model = {{"w", at::zeros({2})}};
      spec.state = state;
      spec.step = step;
      return spec;
    };
    RunRanks(2, [&](Communicator& comm) {
      TW_CHECK_OK(SaveCheckpoint(run_dir, spec_of(source.state.get(), 1), comm, 1));
    });
    for (const int ranks : {1, 4}) {
      RunRanks(ranks, [&](Communicator& comm) {
        StateBag loaded;
        TW_CHECK_OK(LoadNewestCheckpoint(run_dir, spec_of(&loaded, 0), comm));
        EXPECT_EQ(BytesOf(loaded), want) << ranks << " ranks";
        TW_CHECK_OK(SaveCheckpoint(run_dir, spec_of(&loaded, 1 + ranks), comm, 1));
      });
    }
  });
}

TEST(States, ZeroGradientsKeepThemValid) {
  ForEveryPair([&](const std::string& name, const std::string& codec) {
    Training t(name, codec, {73, 71});
    for (int i = 0; i < 3; ++i) t.Step(Floats(t.p.size(), 0));
    t.Steps(2);
    for (int i = 0; i < 3; ++i) t.Step(Floats(t.p.size(), 0));
    for (const float x : t.p) ASSERT_TRUE(std::isfinite(x));
  });
}

TEST(States, HalfPrecisionParametersGoThroughTheSameCodecs) {
  ForEveryPair([&](const std::string& name, const std::string& codec) {
    Training t(name, codec, {73, 71});
    t.spec.dtype = DType::kBF16;
    std::vector<uint16_t> p(t.p.size(), 0x3F80), g(t.p.size(), 0x3D00);
    const ParameterView view{&t.spec,
                             {p.data(), DType::kBF16, t.spec.numel()},
                             {g.data(), DType::kBF16, t.spec.numel()}};
    TW_CHECK_OK(t.optimizer->Step(
        {&view, 1},
        {.lr = 0.25, .update = 1, .state = t.state.get(), .treatments = {&t.treatment, 1}}));
    EXPECT_EQ(t.state->bytes("optimizer/"), t.StateBytes());
    EXPECT_LT(p[0], 0x3F80);
    EXPECT_EQ(p, std::vector<uint16_t>(p.size(), p[0]));
  });
}

TEST(AdamMini, WithBlocksOfOneIsAdamWBitForBit) {
  for (const char* codec : {"fp32", "int4"}) {
    Training element("adam_mini", codec, {73, 71}, {{BlockKind::kElement}});
    Training rows_of_one("adam_mini", codec, {5183, 1}), adamw("adamw", codec, {5183, 1});
    element.Steps(4);
    rows_of_one.Steps(4);
    adamw.Steps(4);
    EXPECT_EQ(element.p, adamw.p);
    EXPECT_EQ(rows_of_one.p, adamw.p);
  }
}

// A block whose squares are equal has their mean.
TEST(AdamMini, WithEqualSquaresInABlockIsAdamWBitForBit) {
  Training mini("adam_mini", "fp32", {63, 16}), adamw("adamw", "fp32", {63, 16});
  for (uint32_t step = 0; step < 4; ++step) {
    const Floats rows = Numbers(63, 50 + step);
    Floats g(63 * 16);
    for (size_t i = 0; i < g.size(); ++i) g[i] = (i * 5 + step) % 3 ? rows[i / 16] : -rows[i / 16];
    mini.Step(g, 0.3f);
    adamw.Step(g, 0.3f);
  }
  EXPECT_EQ(mini.p, adamw.p);
}

TEST(AdamMini, AConstantGradientMovesByTheLearningRate) {
  Training t("adam_mini", "fp32", {8, 16});
  Floats before = t.p;
  t.Step(Floats(128, 0.5f));
  for (size_t i = 0; i < t.p.size(); ++i) {
    EXPECT_NEAR(t.p[i], before[i] * (1 - 1e-2f * 0.01f) - 1e-2f * 0.5f / (0.5f + 1e-8f), 3e-7);
  }
  const StateSlot* v = t.state->Find("optimizer/w.weight/v");
  ASSERT_NE(v, nullptr);
  EXPECT_EQ(v->shape, std::vector<int64_t>{8});
  for (const float x : v->view.f32()) EXPECT_NEAR(x, 0.25 * (1 - 0.999), 1e-9);
}

TEST(AdamMini, PermutingABlockPermutesItsUpdate) {
  Training a("adam_mini", "fp32", {4, 256}), b("adam_mini", "fp32", {4, 256});
  const auto reversed = [](const Floats& x) {
    Floats out = x;
    for (size_t row = 0; row < 4; ++row) {
      std::reverse(out.begin() + static_cast<std::ptrdiff_t>(256 * row),
                   out.begin() + static_cast<std::ptrdiff_t>(256 * (row + 1)));
    }
    return out;
  };
  b.p = reversed(a.p);
  for (uint32_t i = 0; i < 3; ++i) {
    // Powers of two: sums of their squares are exact in any order.
    Floats g(1024);
    for (size_t k = 0; k < g.size(); ++k) {
      g[k] = std::ldexp(k % 3 ? 1.0f : -1.0f, -static_cast<int>((k * 7 + i) % 5));
    }
    a.Step(g);
    b.Step(reversed(g));
  }
  EXPECT_EQ(reversed(b.p), a.p);
}

TEST(ParameterRoles, CutParametersIntoTheirBlocks) {
  const auto blocks = [](const ParameterRole& role, std::vector<int64_t> shape) {
    return NumBlocks(BlocksOf(role, {.name = "x", .shape = std::move(shape)}));
  };
  EXPECT_EQ(blocks({{BlockKind::kHead, 4}}, {128, 128}), 4);
  EXPECT_EQ(blocks({{BlockKind::kRow}}, {512, 128}), 512);
  EXPECT_EQ(blocks({{BlockKind::kWhole}}, {128}), 1);
  EXPECT_EQ(blocks({{BlockKind::kElement}}, {128}), 128);
  EXPECT_EQ(blocks({{BlockKind::kHead, 4}, {BlockKind::kHead, 4}, {BlockKind::kRow}}, {384, 128}),
            4 + 4 + 128);
  EXPECT_EQ(blocks({{BlockKind::kHead, 5}}, {128, 128}), 128);  // does not divide: rows
  EXPECT_EQ(blocks({{BlockKind::kRow}}, {0, 3}), 0);
}

// What the models declare. heads 8 by default; a GPT of width 256 in three parts.
TEST(ParameterRoles, OfOurModels) {
  const auto gpt = Make<ParameterRoles>("gpt");
  const auto role = [&](const char* name, std::vector<int64_t> shape) {
    return RoleText(gpt->RoleOf({.name = name, .shape = std::move(shape)}));
  };
  EXPECT_EQ(role("blocks.0.qkv.weight", {768, 256}), "head x8 | head x8 | row");
  EXPECT_EQ(role("blocks.0.qkv.bias", {768}), "element");
  EXPECT_EQ(role("blocks.0.ln1.weight", {256}), "whole");
  EXPECT_EQ(role("pos.weight", {128, 256}), "whole");
  EXPECT_EQ(role("tok.weight", {256, 256}), "row");
  const auto llama = Make<ParameterRoles>("llama");
  EXPECT_EQ(RoleText(llama->RoleOf(
                         {.name = "model.layers.0.self_attn.q_proj.weight", .shape = {256, 256}}))
                .substr(0, 6),
            "head x");
}

}  // namespace
}  // namespace tw
