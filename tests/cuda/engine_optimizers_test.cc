// Every optimizer with every state codec on a device: parameters and states are those of the host,
// bit for bit, and pairs that have no step there say so before. Where v is an outer product of
// means these are sums in another order (core/kernels/state_factor_device.h), so they and the
// parameters that move by them are the host's to rounding.

#include <gtest/gtest.h>

#include "core/api/convert.h"
#include "core/base/rng.h"
#include "core/engine/step_norms.h"
#include "core/engine/update.h"
#include "tests/core/engine/engine_parts.h"
#include "tests/cuda/test_device.h"

namespace tw {
namespace {

constexpr int kUpdates = 3;
constexpr double kClip = 60;  // below the norms here
constexpr double kLr = 1e-2, kMost = 10 * kLr * kUpdates;

struct Case {
  std::string optimizer, codec;
  DType dtype = DType::kF32;
  Masters masters = Masters::kNone;
};

// Parameters of one run, in the host's memory or the device's.
class Training {
 public:
  Training(const Case& c, TestDevice* device)
      : optimizer_(MakeVariant<Optimizer>(c.optimizer)),
        codec_(MakeVariant<StateCodec>(c.codec)),
        masters_(c.masters),
        queue_(device ? device->NewQueue() : nullptr),
        memory_(device ? &device->memory() : nullptr),
        step_norms_({memory_, queue_.get(), queue_.get()}),
        state_(memory_),
        scratch_(memory_) {
    // Odd sizes, matrices, and some that are too small for a codec of states.
    const std::vector<std::vector<int64_t>> shapes = {{70, 81}, {5001}, {33}, {1, 1}, {64, 128}};
    for (const auto& shape : shapes) {
      TensorSpec spec{static_cast<uint32_t>(specs_.size()), "", shape, c.dtype};
      spec.name = "w" + std::to_string(spec.id) + ".weight";
      specs_.push_back(spec);
      treatments_.push_back({codec_.get(), RoleByName(spec)});
    }
    const DeviceScope scope(queue_.get());
    for (const TensorSpec& spec : specs_) {
      ParameterView view{&spec, Place(spec), Place(spec), nullptr};
      Fill(view.value, 1 + spec.id);
      views_.push_back(view);
    }
  }

  Status CheckOnDevice() const {
    for (const TensorSpec& spec : specs_) {
      TensorSpec stepped = spec;
      if (masters_ != Masters::kNone) stepped.dtype = DType::kF32;
      TW_RETURN_IF_ERROR(optimizer_->CheckOnDevice(stepped, treatments_[spec.id]));
    }
    return OkStatus();
  }

  void Step(int update) {
    const DeviceScope scope(queue_.get());
    for (const ParameterView& view : views_) {
      Fill(view.grad, 100 + static_cast<uint64_t>(10 * update) + view.spec->id);
    }
    step_norms_.MeasureGradients(views_);
    {
      const StepNorms::Clipping clipping(step_norms_, kClip);
      TW_CHECK_OK(Update(*optimizer_, views_,
                         {.lr = kLr,
                          .grad_scale = clipping.scale(),
                          .update = update,
                          .state = &state_,
                          .treatments = treatments_,
                          .scratch = &scratch_,
                          .masters = masters_}));
    }
    const StatusOr<double> norm = step_norms_.ReadGradients();
    TW_CHECK_OK(norm);
    norms.push_back(*norm);
    EXPECT_GT(norms.back(), kClip);
    EXPECT_EQ(*step_norms_.ReadGradients(), 0);
    if (queue_) TW_CHECK_OK(queue_->Wait());
  }

  std::map<std::string, std::vector<uint8_t>> Left() const {
    std::map<std::string, std::vector<uint8_t>> out;
    const auto add = [&](const std::string& name, const TensorView& view) {
      std::vector<uint8_t>& bytes = out[name];
      bytes.resize(static_cast<size_t>(view.bytes()));
      const DeviceScope scope(queue_.get());
      GetBytes(bytes.data(), view.data, bytes.size());
    };
    state_.ForEach([&](const std::string& name, const StateSlot& slot) {
      EXPECT_EQ(slot.on_device, memory_ != nullptr) << name;
      add(name, slot.view);
    });
    for (const ParameterView& view : views_) add(view.spec->name, view.value);
    return out;
  }

  std::vector<double> norms;

 private:
  TensorView Place(const TensorSpec& spec) {
    const size_t bytes = static_cast<size_t>(spec.numel() * DTypeBytes(spec.dtype));
    if (memory_) {
      blocks_.emplace_back(memory_, bytes);
      return {blocks_.back().data(), spec.dtype, spec.numel()};
    }
    host_.push_back(std::make_unique<AlignedBuffer>());
    return {host_.back()->Reserve(bytes), spec.dtype, spec.numel()};
  }
  static void Fill(TensorView view, uint64_t stream) {
    const RngStream rng = RngStream::Of(3, RngPurpose::kTest, stream, 0, 0);
    std::vector<float> wide(static_cast<size_t>(view.numel));
    for (size_t i = 0; i < wide.size(); ++i) {
      wide[i] = i % 97 == 5 ? 0.0f : static_cast<float>(rng.Uniform(i) * 2 - 1);
    }
    std::vector<uint8_t> bytes(static_cast<size_t>(view.bytes()));
    {
      const DeviceScope host(nullptr);
      ConvertFromFp32(wide, {bytes.data(), view.dtype, view.numel});
    }
    PutBytes(view.data, bytes.data(), bytes.size());
  }

  const std::unique_ptr<Optimizer> optimizer_;
  const std::unique_ptr<StateCodec> codec_;
  const Masters masters_;
  const std::unique_ptr<kernels::DeviceKernels> queue_;
  DeviceMemory* const memory_;
  std::vector<TensorSpec> specs_;
  std::vector<StateTreatment> treatments_;
  std::vector<DeviceBlock> blocks_;
  std::vector<std::unique_ptr<AlignedBuffer>> host_;
  std::vector<ParameterView> views_;
  StepNorms step_norms_;
  StateBag state_;
  Workspace scratch_;
};

using Bytes = std::map<std::string, std::vector<uint8_t>>;

// fp32 or bf16 numbers.
std::vector<float> Numbers(const std::vector<uint8_t>& bytes, DType dtype) {
  std::vector<float> out(bytes.size() / static_cast<size_t>(DTypeBytes(dtype)));
  ConvertToFp32({const_cast<uint8_t*>(bytes.data()), dtype, static_cast<int64_t>(out.size())}, out);
  return out;
}
bool IsFitted(const Bytes& left, const std::string& moments) {
  return left.count(moments + "/v.means") > 0;
}
// A mean may be the next number in fp32, and then v is up to three such steps away; what an element
// moves by, in all updates at most `moved`, is as far from the host's, and rounded on its own. A
// number in bf16 may be the next one.
void ExpectNear(const std::vector<uint8_t>& want, const std::vector<uint8_t>& got, DType dtype,
                double moved, const std::string& name) {
  const double near = kUpdates * 4 * 1.2e-7, step = dtype == DType::kBF16 ? 1.0 / 128 : near;
  const std::vector<float> a = Numbers(want, dtype), b = Numbers(got, dtype);
  ASSERT_EQ(a.size(), b.size()) << name;
  for (size_t i = 0; i < a.size(); ++i) {
    ASSERT_NEAR(b[i], a[i], step * std::abs(a[i]) + near * moved) << name << " " << i;
  }
}

class DeviceOptimizers : public ::testing::TestWithParam<Case> {};

TEST_P(DeviceOptimizers, LeaveWhatTheHostLeaves) {
  TestDevice device;
  Training host(GetParam(), nullptr), on_device(GetParam(), &device);
  const Status works = on_device.CheckOnDevice();
  const Case& c = GetParam();
  const bool in_fp32 = c.dtype == DType::kF32 || c.masters != Masters::kNone;
  EXPECT_TRUE(works.ok() || !in_fp32 || c.optimizer != "adamw");
  if (!works.ok()) {  // and says so
    EXPECT_NE(std::string(works.message()).find("has no step on a device"), std::string::npos);
    return;
  }
  for (int update = 1; update <= kUpdates; ++update) {
    host.Step(update);
    on_device.Step(update);
    EXPECT_NEAR(on_device.norms.back(), host.norms.back(), 1e-12 * host.norms.back());
  }
  const auto want = host.Left(), got = on_device.Left();
  ASSERT_EQ(got.size(), want.size());
  for (const auto& [name, bytes] : want) {
    ASSERT_TRUE(got.count(name)) << name;
    if (name.ends_with("/v.means")) {
      ExpectNear(bytes, got.at(name), DType::kF32, 0, name);
    } else if (name.ends_with("/master") && IsFitted(want, name.substr(0, name.rfind('/')))) {
      ExpectNear(bytes, got.at(name), DType::kF32, kMost, name);
    } else if (IsFitted(want, "optimizer/" + name)) {
      ExpectNear(bytes, got.at(name), c.dtype, kMost, name);
    } else {
      EXPECT_EQ(got.at(name), bytes) << name;
    }
  }
}

std::vector<Case> Cases() {
  std::vector<Case> out;
  for (const std::string& optimizer : Registry<Optimizer>::Get().names()) {
    for (const std::string& codec : Registry<StateCodec>::Get().names()) {
      out.push_back({optimizer, codec});
      out.push_back({optimizer, codec, DType::kBF16});
      out.push_back({optimizer, codec, DType::kBF16, Masters::kFp32});
      out.push_back({optimizer, codec, DType::kBF16, Masters::kStochastic});
    }
  }
  return out;
}

std::string NameOf(const ::testing::TestParamInfo<Case>& info) {
  const Case& c = info.param;
  std::string name = c.optimizer + "_" + c.codec + "_" + DTypeName(c.dtype);
  if (c.masters == Masters::kFp32) name += "_masters";
  if (c.masters == Masters::kStochastic) name += "_stochastic";
  return name;
}

INSTANTIATE_TEST_SUITE_P(All, DeviceOptimizers, ::testing::ValuesIn(Cases()), NameOf);

}  // namespace
}  // namespace tw
