// train.precision = "bf16_pure": what is bf16 and what is not, and what that costs in accuracy.

#include <ATen/autocast_mode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/api/task.h"
#include "core/engine/tensor_views.h"
#include "core/engine/update.h"
#include "core/nn/torch.h"
#include "tests/core/engine/engine_parts.h"

namespace tw {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

// What blocks took and returned, and under what.
struct Seen {
  at::ScalarType in, out;
  bool autocast;
};
std::vector<Seen>& SeenByBlocks() {
  static std::vector<Seen> seen;
  return seen;
}
class Watch : public ActivationPolicy {
 public:
  at::Tensor RunBlock(const TensorFn& body, const at::Tensor& x,
                      const std::vector<at::Tensor>&) const override {
    const at::Tensor y = body(x);
    SeenByBlocks().push_back(
        {x.scalar_type(), y.scalar_type(), at::autocast::is_autocast_enabled(at::kCPU)});
    return y;
  }
  int64_t KeptBytes(int64_t body_bytes, int64_t) const override { return body_bytes; }
};
TW_REGISTER(
    ActivationPolicy, test_watch, 0, NoConfig,
    [](const NoConfig&) -> StatusOr<std::unique_ptr<ActivationPolicy>> {
      return std::make_unique<Watch>();
    },
    "notes the types of blocks");

struct Way {
  std::string model = "gpt", precision = "bf16_pure";
  bool weights = true;
  MemoryConfig memory = {};
  bool tie = false;  // of llama
};

StatusOr<std::unique_ptr<Task>> TryMake(const Way& way, const std::string& kind = "lm") {
  TaskOptions options;
  options.model.Set("name", way.model);
  if (kind == "lm") {
    options.model.Set("layers", int64_t{2});
    options.model.Set("width", int64_t{32});
    options.model.Set("heads", int64_t{2});
  }
  if (way.model == "llama") options.model.Set("tie", way.tie);
  options.batch_size = 4;
  options.precision = way.precision;
  options.bf16_weights = way.weights;
  options.memory = way.memory;
  if (const auto* codec = Registry<ActivationCodec>::Get().Find(way.memory.activations)) {
    TW_ASSIGN_OR_RETURN(options.activations, codec->make(ConfigSection{}));
  }
  ConfigSection data;
  data.Set("path", std::string("synthetic"));
  if (kind == "lm") data.Set("context", int64_t{16});
  TW_ASSIGN_OR_RETURN(const auto made, Registry<TaskKind>::Get().Find(kind)->make(data));
  return made->Create(options);
}

std::unique_ptr<Task> Make(const Way& way) {
  auto task = TryMake(way);
  TW_CHECK_OK(task);
  return std::move(*task);
}

std::string ErrorOf(const Way& way, const std::string& kind = "lm") {
  const auto made = TryMake(way, kind);
  EXPECT_EQ(FaultOf(made.status()), Fault::kConfig);
  return std::string(made.status().message());
}

bool IsLinearWeight(const std::string& name, const at::Tensor& p) {
  return p.dim() == 2 && name.find("tok.") == std::string::npos &&
         name.find("pos.") == std::string::npos && name.find("embed_tokens") == std::string::npos;
}

// Ways to run the same model; the forms agree to rounding.
std::vector<Way> Ways() {
  std::vector<Way> out;
  for (const char* model : {"gpt", "llama"}) {
    out.push_back({model});
    for (const char* form : {"fused", "recompute"}) {
      out.push_back({.model = model, .memory = {.head_chunks = 3, .head_form = form}});
    }
    out.push_back({.model = model, .memory = {.mlp_chunks = 3}});
    out.push_back({.model = model, .memory = {.activations = "checkpoint", .mlp_chunks = 2}});
    out.push_back({.model = model, .memory = {.activations = "int8"}});
  }
  out.push_back({.model = "llama", .tie = true});
  out.push_back({.model = "llama", .memory = {.head_chunks = 3}, .tie = true});
  return out;
}

TEST(PureBf16, BlocksTakeAndReturnItWithoutAutocast) {
  for (Way way : Ways()) {
    if (way.memory.activations != "none") continue;
    way.memory.activations = "test_watch";
    SCOPED_TRACE(way.model);
    const auto task = Make(way);
    SeenByBlocks().clear();
    const at::Tensor loss = task->Loss(0, 0);
    EXPECT_EQ(loss.scalar_type(), at::kFloat);
    loss.backward();
    EXPECT_EQ(SeenByBlocks().size(), 2u);
    for (const Seen& seen : SeenByBlocks()) {
      EXPECT_EQ(seen.in, at::kBFloat16);
      EXPECT_EQ(seen.out, at::kBFloat16);
      EXPECT_FALSE(seen.autocast);
    }
    for (const auto& [name, p] : task->parameters()) {
      EXPECT_EQ(p.scalar_type(), IsLinearWeight(name, p) ? at::kBFloat16 : at::kFloat) << name;
      ASSERT_TRUE(p.grad().defined()) << name;
      EXPECT_EQ(p.grad().scalar_type(), p.scalar_type()) << name;
    }
  }
  SeenByBlocks().clear();
  Make({.precision = "bf16", .memory = {.activations = "test_watch"}})->Loss(0, 0);
  ASSERT_FALSE(SeenByBlocks().empty());  // it would see what it looks for
  EXPECT_TRUE(SeenByBlocks()[0].autocast);
  EXPECT_EQ(SeenByBlocks()[0].in, at::kFloat);
}

TEST(PureBf16, LossAndGradientsAreNearThoseOfFp32) {
  for (const Way& way : Ways()) {
    SCOPED_TRACE(way.model + " " + way.memory.activations + " " +
                 std::to_string(way.memory.mlp_chunks) + " " +
                 std::to_string(way.memory.head_chunks) + " " + way.memory.head_form);
    const auto exact = Make({way.model, "fp32", false, {}, way.tie}), pure = Make(way);
    const auto want = exact->parameters(), got = pure->parameters();
    ASSERT_EQ(got.size(), want.size());
    const at::Tensor loss = exact->Loss(2, 0), ours = pure->Loss(2, 0);
    EXPECT_NEAR(ours.item<double>(), loss.item<double>(), 2e-3 * loss.item<double>());
    loss.backward();
    ours.backward();
    for (size_t i = 0; i < want.size(); ++i) {
      ASSERT_EQ(got[i].first, want[i].first);
      const at::Tensor g = want[i].second.grad(), d = got[i].second.grad().to(at::kFloat) - g;
      EXPECT_LE(d.norm().item<double>(), 0.03 * g.norm().item<double>()) << want[i].first;
    }
  }
}

// AdamW through `masters`; the validation loss.
double LossAfter(const Way& way, Masters masters, int steps) {
  const auto task = Make(way);
  const auto parameters = task->parameters();
  const std::vector<TensorSpec> specs = SpecsOf(parameters);
  const auto optimizer = MakeVariant<Optimizer>("adamw");
  StateBag state;
  for (int step = 1; step <= steps; ++step) {
    task->Loss(static_cast<uint64_t>(step), 0).backward();
    std::vector<ParameterView> views;
    for (size_t i = 0; i < specs.size(); ++i) {
      views.push_back(
          {&specs[i], ViewOf(parameters[i].second), ViewOf(parameters[i].second.grad())});
    }
    UpdateContext context{3e-3, 1.0f, step, &state};
    context.masters = masters;
    TW_CHECK_OK(Update(*optimizer, views, context));
    for (const auto& [name, p] : parameters) at::Tensor(p).mutable_grad().reset();
  }
  const auto result = task->EvaluatePart(0, 4);
  TW_CHECK_OK(result);
  return result->loss;
}

TEST(PureBf16, TrainsAsFarAsAutocast) {
  constexpr int kSteps = 120;
  for (const char* model : {"gpt", "llama"}) {
    const double wide = LossAfter({model, "bf16", false}, Masters::kNone, kSteps);
    EXPECT_LT(wide, 3.2) << model;
    for (const Masters masters : {Masters::kFp32, Masters::kStochastic}) {
      const double pure = LossAfter({model}, masters, kSteps);
      EXPECT_NEAR(pure, wide, 0.02 * wide) << model << " " << static_cast<int>(masters);
    }
  }
}

TEST(PureBf16, EvaluatesAndIsEstimated) {
  for (const char* model : {"gpt", "llama"}) {
    const auto exact = Make({model, "fp32", false}), pure = Make({model});
    const double want = exact->EvaluatePart(0, 20)->loss;
    EXPECT_NEAR(pure->EvaluatePart(0, 20)->loss, want, 2e-3 * want);
    const auto wide = Make({model, "bf16", false})->EstimateActivations(),
               narrow = pure->EstimateActivations();
    ASSERT_TRUE(wide && narrow);
    EXPECT_LT(narrow->layers[1].bytes, wide->layers[1].bytes);  // of a block
  }
}

TEST(PureBf16, SaysWhatItNeeds) {
  EXPECT_THAT(ErrorOf({.weights = false}),
              AllOf(HasSubstr("bf16_pure"), HasSubstr("train.weights = \"bf16\"")));
  EXPECT_THAT(ErrorOf({.precision = "fp32"}), HasSubstr("bf16_pure"));
  EXPECT_THAT(ErrorOf({.precision = "pure"}), HasSubstr("bf16_pure"));
  for (const char* model : {"mlp", "cnn", "resnet", "linear"}) {
    EXPECT_THAT(ErrorOf({.model = model}, "image"),
                AllOf(HasSubstr("bf16_pure"), HasSubstr("gpt and llama")));
  }
  for (const char* precision : {"bf16", "bf16_pure"}) {
    EXPECT_THAT(ErrorOf({.precision = precision, .memory = {.activations = "compact"}}),
                AllOf(HasSubstr("compact"), HasSubstr("fp32"), HasSubstr("int8")));
  }
}

// Under autocast bf16 weights keep int8 inputs as well.
TEST(PureBf16, CodecsOfWholeGradientsGoWithBf16Weights) {
  const auto kept = Make({.precision = "bf16"}),
             packed = Make({.precision = "bf16", .memory = {.activations = "int8"}});
  const at::Tensor want = kept->Loss(0, 0), got = packed->Loss(0, 0);
  EXPECT_EQ(got.item<float>(), want.item<float>());
  want.backward();
  got.backward();
  const auto a = kept->parameters(), b = packed->parameters();
  for (size_t i = 0; i < a.size(); ++i) {
    const at::Tensor g = a[i].second.grad().to(at::kFloat);
    const at::Tensor d = b[i].second.grad().to(at::kFloat) - g;
    EXPECT_LE(d.norm().item<double>(), 0.03 * g.norm().item<double>()) << a[i].first;
  }
}

}  // namespace
}  // namespace tw
