// Optimizers, their states in few bits, and kernels of models.
#include "core/kernels/device_queue_cuda.h"
#include "core/kernels/expand_device.h"
#include "core/kernels/int8_block_device.h"
#include "core/kernels/narrow_parameter.h"
#include "core/kernels/normal_device.h"
#include "core/kernels/optimizer_device.h"
#include "core/kernels/softmax_device.h"
#include "core/kernels/state_codes_device.h"
#include "core/kernels/state_factor_device.h"
#include "core/kernels/state_steps_device.h"

namespace tw::kernels {
namespace {

using device::AdamMiniSegment;
using device::CodedStepSegment;
using device::CodesSegment;
using device::FactorStepSegment;
using device::NarrowCodedStepSegment;
using device::Rank1StepSegment;
using device::StepSegment;

struct AdamMiniOp : StepKernel<device::AdamMiniStep> {
  static int64_t Place(std::span<AdamMiniSegment> segments, const AdamWCoefficients<float>&) {
    return device::PlaceAdamMini(segments);
  }
};

struct FactorOp : OpBase<FactorStepSegment, AdamWCoefficients<float>> {
  static constexpr bool kDeviceParameters = true;
  static int64_t Place(std::span<FactorStepSegment> segments, const Parameters&) {
    return device::PlaceFactor(segments);
  }
  static size_t Scratch(std::span<const FactorStepSegment> segments, int64_t, const Parameters&) {
    return static_cast<size_t>(device::FactorScratchBytes(segments));
  }
  static void UseScratch(std::span<FactorStepSegment> segments, uint8_t* scratch) {
    device::UseFactorScratch(segments, scratch);
  }
  static void Launch(const LaunchOf<FactorStepSegment, Parameters>& of) {
    device::AdamWStepFactor(of.table, device::FactorSumTiles(of.segments), of.device_parameters,
                            of.stream);
  }
};

// void kKernel(code, Table, Stream)
template <auto kKernel, class Code>
struct CodesOp : OpBase<CodesSegment, Code> {
  static void Launch(const LaunchOf<CodesSegment, Code>& of) {
    kKernel(of.parameters, of.table, of.stream);
  }
};

CodedStepSegment CodedStep(std::span<float> p, std::span<const float> g, const CodedMoment& m,
                           const CodedMoment& v) {
  return {p.data(),
          g.data(),
          m.codes.data(),
          m.scales.data(),
          v.codes.data(),
          v.scales.data(),
          static_cast<int64_t>(p.size())};
}
NarrowCodedStepSegment CodedStep(const NarrowParameter& x, const CodedMoment& m,
                                 const CodedMoment& v) {
  return {x, m.codes.data(), m.scales.data(), v.codes.data(), v.scales.data()};
}
CodesSegment Codes(std::span<const float> x, std::span<const uint8_t> codes,
                   std::span<const float> scales) {
  return {const_cast<float*>(x.data()), const_cast<uint8_t*>(codes.data()),
          const_cast<float*>(scales.data()), static_cast<int64_t>(x.size())};
}

struct CrossEntropyCall {
  device::ScoreRows rows;
  float scale;
  double* losses;
  void operator()(device::Stream stream) const {
    device::CrossEntropyInPlace(rows, scale, losses, stream);
  }
};
struct BeginScoresCall {
  int64_t rows;
  LogSumExp* sums;
  double* label_scores;
  void operator()(device::Stream stream) const {
    device::BeginScores(rows, sums, label_scores, stream);
  }
};
struct AddScoresCall {
  device::ScoreRows rows;
  LogSumExp* sums;
  double* label_scores;
  void operator()(device::Stream stream) const {
    device::AddScores(rows, sums, label_scores, stream);
  }
};
struct FinishScoresCall {
  device::ScoreRows rows;
  const LogSumExp* sums;
  const double* label_scores;
  double *lse, *losses;
  void operator()(device::Stream stream) const {
    device::FinishScores(rows, sums, label_scores, lse, losses, stream);
  }
};
struct SoftmaxGradientCall {
  device::ScoreRows rows;
  const double* lse;
  float scale;
  void operator()(device::Stream stream) const {
    device::SoftmaxGradient(rows, lse, scale, stream);
  }
};
struct QuantizeInt8Call {
  const float* x;
  int64_t rows, cols;
  int8_t* codes;
  float* scales;
  void operator()(device::Stream stream) const {
    device::QuantizeInt8(x, rows, cols, codes, scales, stream);
  }
};
struct DequantizeInt8Call {
  const int8_t* codes;
  const float* scales;
  int64_t rows, cols;
  float* out;
  void operator()(device::Stream stream) const {
    device::DequantizeInt8(codes, scales, rows, cols, out, stream);
  }
};

}  // namespace

// ---- optimizer.h ----

void CudaQueue::AdamWStep(std::span<float> p, std::span<const float> g, std::span<float> m,
                          std::span<float> v, const AdamWCoefficients<float>& c) {
  Put<StepKernel<device::AdamWStep>>(
      {p.data(), g.data(), m.data(), v.data(), static_cast<int64_t>(p.size())}, c);
}
void CudaQueue::SecondMomentStep(std::span<const float> g, std::span<float> v,
                                 const AdamWCoefficients<float>& c) {
  Put<StepKernel<device::SecondMomentStep>>(
      {nullptr, g.data(), nullptr, v.data(), static_cast<int64_t>(v.size())}, c);
}
void CudaQueue::AdamMiniBlocks(std::span<float> p, std::span<const float> g, std::span<float> m,
                               std::span<float> v, int64_t block,
                               const AdamWCoefficients<float>& c) {
  Put<AdamMiniOp>({p.data(), g.data(), m.data(), v.data(), block, static_cast<int64_t>(p.size())},
                  c);
}
void CudaQueue::SgdStep(std::span<float> p, std::span<const float> g,
                        const SgdmCoefficients<float>& c) {
  Put<StepKernel<device::SgdStep>>(
      {p.data(), g.data(), nullptr, nullptr, static_cast<int64_t>(p.size())}, c);
}
void CudaQueue::SgdmStep(std::span<float> p, std::span<const float> g, std::span<float> m,
                         const SgdmCoefficients<float>& c) {
  Put<StepKernel<device::SgdmStep>>(
      {p.data(), g.data(), m.data(), nullptr, static_cast<int64_t>(p.size())}, c);
}

// ---- state_steps.h, state_codes.h ----

void CudaQueue::AdamWStep4(std::span<float> p, std::span<const float> g, const CodedMoment& m,
                           const CodedMoment& v, const AdamWCoefficients<float>& c) {
  Put<StepKernel<device::AdamWStep4>>(CodedStep(p, g, m, v), c);
}
void CudaQueue::AdamWStep8(std::span<float> p, std::span<const float> g, const CodedMoment& m,
                           const CodedMoment& v, const AdamWCoefficients<float>& c) {
  Put<StepKernel<device::AdamWStep8>>(CodedStep(p, g, m, v), c);
}
void CudaQueue::SgdmStep4(std::span<float> p, std::span<const float> g, const CodedMoment& m,
                          const SgdmCoefficients<float>& c) {
  Put<StepKernel<device::SgdmStep4>>(CodedStep(p, g, m, {}), c);
}
void CudaQueue::AdamWStepRank1(std::span<float> p, std::span<const float> g, int64_t cols,
                               const CodedMoment& m, std::span<uint8_t> v_codes,
                               std::span<float> v_maxima, std::span<float> scratch,
                               const AdamWCoefficients<float>& c) {
  TW_CHECK_GE(scratch.size(), v_maxima.size());
  Put<StepKernel<device::AdamWStepRank1>>(
      {p.data(), g.data(), m.codes.data(), m.scales.data(), v_codes.data(), v_maxima.data(),
       scratch.data(), cols, static_cast<int64_t>(p.size())},
      c);
}
void CudaQueue::AdamWStepFactor(std::span<float> p, std::span<const float> g, int64_t cols,
                                const CodedMoment& m, std::span<float> v_means,
                                const AdamWCoefficients<float>& c) {
  FactorStepSegment segment{p.data(), g.data(), m.codes.data(), m.scales.data(), v_means.data()};
  segment.cols = cols;
  segment.numel = static_cast<int64_t>(p.size());
  Put<FactorOp>(segment, c);
}
void CudaQueue::AdamWStepNarrow(const NarrowParameter& x, std::span<float> m, std::span<float> v,
                                const AdamWCoefficients<float>& c) {
  Put<StepKernel<device::AdamWStepNarrow>>({x, m.data(), v.data()}, c);
}
void CudaQueue::AdamWStep4Narrow(const NarrowParameter& x, const CodedMoment& m,
                                 const CodedMoment& v, const AdamWCoefficients<float>& c) {
  Put<StepKernel<device::AdamWStep4Narrow>>(CodedStep(x, m, v), c);
}
void CudaQueue::AdamWStep8Narrow(const NarrowParameter& x, const CodedMoment& m,
                                 const CodedMoment& v, const AdamWCoefficients<float>& c) {
  Put<StepKernel<device::AdamWStep8Narrow>>(CodedStep(x, m, v), c);
}
void CudaQueue::SgdStepNarrow(const NarrowParameter& x, const SgdmCoefficients<float>& c) {
  Put<StepKernel<device::SgdStepNarrow>>({x}, c);
}
void CudaQueue::SgdmStepNarrow(const NarrowParameter& x, std::span<float> m,
                               const SgdmCoefficients<float>& c) {
  Put<StepKernel<device::SgdmStepNarrow>>({x, m.data()}, c);
}
void CudaQueue::SgdmStep4Narrow(const NarrowParameter& x, const CodedMoment& m,
                                const SgdmCoefficients<float>& c) {
  Put<StepKernel<device::SgdmStep4Narrow>>(CodedStep(x, m, {}), c);
}
void CudaQueue::EncodeBlocks4(Code4 code, std::span<const float> x, std::span<uint8_t> packed,
                              std::span<float> scales) {
  Put<CodesOp<device::EncodeBlocks4, Code4>>(Codes(x, packed, scales), code);
}
void CudaQueue::DecodeBlocks4(Code4 code, std::span<const uint8_t> packed,
                              std::span<const float> scales, std::span<float> out) {
  Put<CodesOp<device::DecodeBlocks4, Code4>>(Codes(out, packed, scales), code);
}
void CudaQueue::EncodeBlocks8(Code8 code, std::span<const float> x, std::span<uint8_t> codes,
                              std::span<float> scales) {
  Put<CodesOp<device::EncodeBlocks8, Code8>>(Codes(x, codes, scales), code);
}
void CudaQueue::DecodeBlocks8(Code8 code, std::span<const uint8_t> codes,
                              std::span<const float> scales, std::span<float> out) {
  Put<CodesOp<device::DecodeBlocks8, Code8>>(Codes(out, codes, scales), code);
}
void CudaQueue::RoundToBf16(std::span<const float> x, uint64_t key, uint64_t first,
                            std::span<uint16_t> out) {
  Put<Kernel<device::RoundToBf16>>(
      {const_cast<float*>(x.data()), out.data(), key, first, static_cast<int64_t>(x.size())});
}
void CudaQueue::WidenBf16(std::span<const uint16_t> x, std::span<float> out) {
  Put<Kernel<device::WidenBf16>>(
      {out.data(), const_cast<uint16_t*>(x.data()), 0, 0, static_cast<int64_t>(out.size())});
}

// ---- softmax.h ----

void CudaQueue::CrossEntropyRows(float* scores, const int64_t* labels, int64_t rows, int64_t cols,
                                 int64_t stride, float scale, double* losses) {
  Put<EachCall<CrossEntropyCall>>({{scores, labels, rows, cols, stride, 0}, scale, losses});
}
void CudaQueue::BeginScores(int64_t rows, void* sums, double* label_scores) {
  Put<EachCall<BeginScoresCall>>({rows, static_cast<LogSumExp*>(sums), label_scores});
}
void CudaQueue::AddScores(const float* scores, const int64_t* labels, int64_t rows, int64_t cols,
                          int64_t stride, int64_t first_class, void* sums, double* label_scores) {
  Put<EachCall<AddScoresCall>>(
      {{const_cast<float*>(scores), labels, rows, cols, stride, first_class},
       static_cast<LogSumExp*>(sums),
       label_scores});
}
void CudaQueue::FinishScores(const int64_t* labels, int64_t rows, const void* sums,
                             const double* label_scores, double* lse, double* losses) {
  Put<EachCall<FinishScoresCall>>({{nullptr, labels, rows, 0, 0, 0},
                                   static_cast<const LogSumExp*>(sums),
                                   label_scores,
                                   lse,
                                   losses});
}
void CudaQueue::SoftmaxGradientRows(float* scores, const int64_t* labels, int64_t rows,
                                    int64_t cols, int64_t stride, int64_t first_class,
                                    const double* lse, float scale) {
  Put<EachCall<SoftmaxGradientCall>>(
      {{scores, labels, rows, cols, stride, first_class}, lse, scale});
}

// ---- normal.h, int8_block.h, expand.h ----

void CudaQueue::FillNormal(uint64_t key, uint64_t first_block, int64_t num_blocks, float scale,
                           float* out, int64_t stride) {
  Put<Kernel<device::FillNormal>>(
      {out, key, first_block, stride, scale, num_blocks * kNormalBlock});
}
void CudaQueue::QuantizeInt8(const float* x, int64_t rows, int64_t cols, int8_t* codes,
                             float* scales) {
  Put<EachCall<QuantizeInt8Call>>({x, rows, cols, codes, scales});
}
void CudaQueue::DequantizeInt8(const int8_t* codes, const float* scales, int64_t rows, int64_t cols,
                               float* out) {
  Put<EachCall<DequantizeInt8Call>>({codes, scales, rows, cols, out});
}
void CudaQueue::Expand(float* value, int64_t rows, int64_t cols, const float* update, int64_t rank,
                       const float* projection, float keep, float scale) {
  Put<Kernel<device::Expand>>({value, update, projection, keep, scale, rank, cols, rows * cols});
}

}  // namespace tw::kernels
