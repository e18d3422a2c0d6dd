// adam_mini: AdamW with one second moment a block of parameters that belong together (Zhang et al.,
// "Adam-mini", arXiv 2406.16793).
//   per block b:   v_b <- beta2*v_b + (1-beta2) * mean over b of g^2
//   m <- beta1*m + (1-beta1)*g                                               by element
//   p <- (1 - lr*weight_decay) * p - lr/(1-beta1^t) * m / (sqrt(v_b)/sqrt(1-beta2^t) + eps)
// Blocks come from the model's roles (core/api/parameter_roles.h): the rows of a head for queries
// and keys, a row for other matrices, the whole of a norm. With roles by element (biases) a
// parameter is adamw's.
// State: m, shaped as the parameter, resting as optimizer.state says (so int4 is a 4-bit first
// moment); v fp32 [blocks], in units of the gradient's square. fp64 for fp64 parameters. The mean
// is a sum in fp64 over pieces of 1024 elements (kernels::SumOfSquares), so its bits depend on no
// thread count. Left out: leaving names out of weight decay.

#include <algorithm>
#include <cmath>

#include "core/api/convert.h"
#include "core/kernels/device_kernels.h"
#include "core/kernels/reduce.h"
#include "optim/adamw_step.h"
#include "optim/state/fp32.h"
#include "optim/tiles.h"

namespace tw {
namespace {

bool ByElement(const std::vector<BlockRun>& runs) {
  return std::all_of(runs.begin(), runs.end(), [](const BlockRun& run) { return run.block == 1; });
}

// f(block, first element, elements) for each block of a parameter.
template <class F>
void EachBlock(const std::vector<BlockRun>& runs, F&& f) {
  int64_t block = 0, first = 0;
  for (const BlockRun& run : runs) {
    for (int64_t i = 0; i < run.count; ++i, ++block, first += run.block) f(block, first, run.block);
  }
}

// A tile of fp32 moments m, the denominators of its blocks beside it.
class AdamMiniRule : public TileRule {
 public:
  AdamMiniRule(const std::vector<BlockRun>& runs, std::span<const float> denominators,
               const kernels::AdamWCoefficients<float>& c)
      : runs_(runs), denominators_(denominators), c_(c) {}

  void Update(const Tile& tile) const override {
    const int64_t end = tile.first + static_cast<int64_t>(tile.p.size());
    int64_t run_first = 0, block = 0;
    for (const BlockRun& run : runs_) {
      const int64_t run_end = run_first + run.block * run.count;
      int64_t at = std::max(tile.first, run_first);
      while (at < std::min(end, run_end)) {
        const int64_t index = (at - run_first) / run.block;
        const int64_t stop = std::min(end, run_first + (index + 1) * run.block);
        const size_t from = static_cast<size_t>(at - tile.first);
        const size_t size = static_cast<size_t>(stop - at);
        kernels::AdamMiniStep(tile.p.subspan(from, size), tile.g.subspan(from, size),
                              tile.moments[0].subspan(from, size),
                              denominators_[static_cast<size_t>(block + index)], c_);
        at = stop;
      }
      run_first = run_end;
      block += run.count;
    }
  }

 private:
  const std::vector<BlockRun>& runs_;
  std::span<const float> denominators_;
  kernels::AdamWCoefficients<float> c_;
};

class AdamMini : public Optimizer {
 public:
  explicit AdamMini(AdamWConfig config) : config_(std::move(config)) {}

  Status Step(std::span<const ParameterView> parameters,
              const UpdateContext& context) const override {
    Together together;
    for (const ParameterView& parameter : parameters) {
      together.Next();
      CheckParameter(parameter);
      const std::vector<BlockRun> runs =
          RunsOf(*parameter.spec, TreatmentOf(context, *parameter.spec));
      if (ByElement(runs)) {
        StepAdamW(parameter, config_, context);
      } else if (parameter.value.dtype == DType::kF64) {
        StepWide(parameter, runs, context);
      } else {
        StepBlocks(parameter, runs, context);
      }
    }
    return OkStatus();
  }

  bool StepNarrow(const TensorSpec& spec, const kernels::NarrowParameter& parameter,
                  const UpdateContext& context) const override {
    return ByElement(RunsOf(spec, TreatmentOf(context, spec))) &&
           StepAdamWNarrow(spec, parameter, config_, context);
  }
  Status CheckOnDevice(const TensorSpec& spec, const StateTreatment& treatment) const override {
    return ByElement(RunsOf(spec, treatment)) ? CheckAdamWOnDevice(spec, treatment) : OkStatus();
  }
  int64_t StateBytes(const TensorSpec& spec, const StateTreatment& treatment) const override {
    const std::vector<BlockRun> runs = RunsOf(spec, treatment);
    if (ByElement(runs)) return AdamWStateBytes(spec, treatment);
    if (spec.dtype == DType::kF64) return 8 * (spec.numel() + NumBlocks(runs));
    return MomentBytes(CodecOf(treatment, spec), MomentKind::kSigned, spec) + 4 * NumBlocks(runs);
  }
  bool uses_roles() const override { return true; }

 private:
  static std::vector<BlockRun> RunsOf(const TensorSpec& spec, const StateTreatment& treatment) {
    return BlocksOf(treatment.role.empty() ? RoleByName(spec) : treatment.role, spec);
  }

  void StepBlocks(const ParameterView& parameter, const std::vector<BlockRun>& runs,
                  const UpdateContext& context) const {
    const TensorSpec& spec = *parameter.spec;
    const auto c = AdamWCoefficientsOf<float>(config_, context);
    const UpdateScratch scratch(context);
    const CodedState m[] = {OpenMoment(CodecOf(TreatmentOf(context, spec), spec),
                                       MomentKind::kSigned, "m", 0, spec, context, *scratch)};
    const size_t blocks = static_cast<size_t>(NumBlocks(runs));
    const std::span<float> v =
        MomentScope(context, spec).Slot("v", {NumBlocks(runs)}, DType::kF32, context.moments).f32();
    if (auto* device = kernels::OnDevice()) {
      return StepOnDevice(*device, parameter, runs, m[0], v, c, *scratch);
    }
    const std::span<float> denominators = (*scratch).Get<float>(kStepDenominators, blocks);
    float room[kStateTile], scaled[kStateTile];
    EachBlock(runs, [&](int64_t block, int64_t first, int64_t size) {
      double sum = 0;
      for (int64_t at = first; at < first + size; at += kStateTile) {
        const size_t n = static_cast<size_t>(std::min(kStateTile, first + size - at));
        const std::span<const float> g = ReadTile(parameter.grad, at, n, room);
        for (size_t i = 0; i < n; ++i) scaled[i] = g[i] * c.grad_scale;
        sum += kernels::SumOfSquares({scaled, n});
      }
      float& vb = v[static_cast<size_t>(block)];
      vb = c.beta2 * vb + c.rest2 * static_cast<float>(sum / static_cast<double>(size));
      denominators[static_cast<size_t>(block)] = std::sqrt(vb) * c.inverse_root_bias + c.eps;
    });
    StepInTiles(parameter, m, AdamMiniRule(runs, denominators, c), *scratch);
  }

  // A call for each run of blocks of one size.
  static void StepOnDevice(kernels::DeviceKernels& device, const ParameterView& parameter,
                           const std::vector<BlockRun>& runs, const CodedState& m,
                           std::span<float> v, const kernels::AdamWCoefficients<float>& c,
                           Workspace& scratch) {
    const std::span<float> p = WideCopy(parameter.value, scratch, kStepParameter);
    const std::span<const float> g = WideCopy(parameter.grad, scratch, kStepGradient);
    const bool plain = m.codec == &Fp32States();
    const std::span<float> moment =
        plain ? m.state.slots[0].f32() : scratch.Get<float>(kStepMoment0, p.size());
    if (!plain) m.codec->Decode(m.state, 0, moment);
    size_t first = 0, block = 0;
    for (const BlockRun& run : runs) {
      const size_t count = static_cast<size_t>(run.count);
      const size_t size = count * static_cast<size_t>(run.block);
      device.AdamMiniBlocks(p.subspan(first, size), g.subspan(first, size),
                            moment.subspan(first, size), v.subspan(block, count), run.block, c);
      first += size;
      block += count;
    }
    if (!plain) m.codec->Encode(m.state, 0, moment);
    if (parameter.value.dtype != DType::kF32) ConvertFromFp32(p, parameter.value);
  }

  void StepWide(const ParameterView& parameter, const std::vector<BlockRun>& runs,
                const UpdateContext& context) const {
    const TensorSpec& spec = *parameter.spec;
    const auto c = AdamWCoefficientsOf<double>(config_, context);
    const StateScope scope = MomentScope(context, spec);
    auto* m = Elements<double>(scope.Slot("m", spec.shape, DType::kF64, context.moments));
    auto* v = Elements<double>(scope.Slot("v", {NumBlocks(runs)}, DType::kF64, context.moments));
    auto *p = Elements<double>(parameter.value), *g = Elements<double>(parameter.grad);
    EachBlock(runs, [&](int64_t block, int64_t first, int64_t size) {
      double sum = 0;
      for (int64_t i = first; i < first + size; ++i) {
        sum += (g[i] * c.grad_scale) * (g[i] * c.grad_scale);
      }
      v[block] = c.beta2 * v[block] + c.rest2 * (sum / static_cast<double>(size));
      const double denominator = std::sqrt(v[block]) * c.inverse_root_bias + c.eps;
      for (int64_t i = first; i < first + size; ++i) {
        kernels::AdamMiniElement(p[i], g[i], m[i], denominator, c);
      }
    });
  }

  AdamWConfig config_;
};

StatusOr<std::unique_ptr<Optimizer>> Create(const AdamWConfig& config) {
  return std::make_unique<AdamMini>(config);
}

TW_REGISTER(Optimizer, adam_mini, 0, AdamWConfig, Create,
            "AdamW with one second moment a head, row or tensor");

}  // namespace
}  // namespace tw
