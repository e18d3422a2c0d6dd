#pragma once
// The kernels of this folder on a device: what their public functions hand over to when this thread
// is in a DeviceScope (core/base/device.h). Same names, same arguments, same results, but for what
// is said here; spans and pointers are addresses of the device, and calls return before anything is
// done. Implemented by core/kernels/device_queue.cc on top of the *_device.h kernels.
//
// Bodies are not inspected on a device: what arrives there was sent by the same build under a plan
// that the ranks agreed on, and its lengths are known to the host. Nothing is ever written outside
// of the spans given, whatever a body holds.

#include <cstdint>
#include <memory>
#include <span>

#include "core/base/device.h"
#include "core/base/tensor_view.h"
#include "core/kernels/message_view.h"
#include "core/kernels/topk.h"

namespace tw::kernels {

struct QuantizeSpec;
struct QuantizeStream;
struct LowRankShape;
struct CodedMoment;
struct NarrowParameter;
enum class Code4 : uint8_t;
enum class Code8 : uint8_t;
enum class SignMeans : int;
template <class T>
struct AdamWCoefficients;
template <class T>
struct SgdmCoefficients;

// What a queue was told between BeginCapture and EndCapture (a CUDA graph). Ends before the queue.
class DeviceGraph {
 public:
  virtual ~DeviceGraph() = default;  // waits
  // Puts all of it on the queue, as one launch, on the numbers that memory holds then.
  virtual void Launch() = 0;
};

class DeviceKernels : public DeviceQueue {
 public:
  virtual void* stream() = 0;  // the cudaStream_t it works on

  // ---- graphs ----
  // What is put here until EndCapture is kept, not done: kernels, copies and fillings, with the
  // numbers that the calls have now. Nothing may wait, be marked, be clipped or touch pinned memory
  // meanwhile. Not for the default stream.
  virtual Status BeginCapture() = 0;
  // An error where something did wait; then the queue goes on without what was put.
  virtual StatusOr<std::unique_ptr<DeviceGraph>> EndCapture() = 0;

  // ---- numbers for the host ----
  // Notes when an element is NaN or infinite; fp32, fp16, bf16.
  virtual void CheckFinite(TensorView x) = 0;
  // Whether all that was checked since the last call was finite. Waits.
  virtual bool TakeAllFinite() = 0;
  // out[i] = SumOfSquares of tensor i, fp32, fp16, bf16: in the order of reduce_device.h. Waits.
  virtual void SumsOfSquares(std::span<const TensorView> x, std::span<double> out) = 0;
  // *norm, a number of the device, = the norm of all of them as one vector: the same sums, added in
  // their order.
  virtual void Norm(std::span<const TensorView> x, double* norm) = 0;
  // x <- x + (limit / norm - 1) x where its norm is above the limit: the factor is rounded to fp32,
  // the sum to x's type.
  virtual void ClipToNorm(TensorView x, double limit) = 0;
  // From now on the steps of optimizers multiply their gradients by limit / *norm too, rounded to
  // fp32, where *norm is above the limit when they start. Limit 0: no longer.
  virtual void ClipSteps(double limit, const double* norm) = 0;

  // ---- elementwise.h ----
  virtual void AddFromBytes(std::span<float> a, float s, const uint8_t* b) = 0;
  virtual void MoveOut(std::span<float> buffer, const float* addend, float s, uint8_t* to) = 0;
  virtual void AddInPlace(std::span<float> a, float s, std::span<const float> b) = 0;
  virtual void Scale(std::span<float> a, float s) = 0;
  virtual void AddFromBf16(std::span<float> a, float s, std::span<const uint16_t> b) = 0;
  virtual void AddFromHalf(std::span<float> a, float s, std::span<const uint16_t> b) = 0;
  virtual void ConvertToBf16(std::span<const float> from, std::span<uint16_t> to) = 0;
  virtual void ConvertFromBf16(std::span<const uint16_t> from, std::span<float> to) = 0;
  virtual void ConvertToHalf(std::span<const float> from, std::span<uint16_t> to) = 0;
  virtual void ConvertFromHalf(std::span<const uint16_t> from, std::span<float> to) = 0;
  virtual void CastResidualBf16(std::span<float> buffer, const float* addend, float s, float pre,
                                float post, std::span<uint16_t> to) = 0;
  virtual void CastResidualHalf(std::span<float> buffer, const float* addend, float s, float pre,
                                float post, std::span<uint16_t> to) = 0;
  virtual void AddBytes(std::span<uint8_t> a, std::span<const uint8_t> b) = 0;  // wraps around
  virtual void TakeLarger(std::span<float> a, std::span<const float> b) = 0;    // a = max(a, b)
  virtual void ZeroWhere(std::span<float> a, std::span<const float> b) = 0;  // a = 0 where b != 0

  // `to` of 16 bits: to[i] = rounded(to[i] + s * from[i]) in fp32, as AddScaled in
  // core/api/convert.h.
  virtual void AddToNarrow(TensorView to, float s, TensorView from) = 0;

  // ---- feedback.h ----
  virtual void Advance(std::span<float> estimate, std::span<float> mean) = 0;
  virtual void DampedAdvance(std::span<float> estimate, std::span<float> mean, float alpha) = 0;
  virtual void ErrorMessage(std::span<float> g, std::span<const float> h, std::span<const float> e,
                            float eta) = 0;
  virtual void ErrorMemory(std::span<float> e, std::span<const float> r, float keep) = 0;
  virtual void MomentumMessage(std::span<float> v, std::span<float> g, std::span<const float> h,
                               float keep, float b) = 0;
  virtual void MomentumErrorMessage(std::span<float> v, std::span<float> g,
                                    std::span<const float> h, std::span<const float> e, float keep,
                                    float b, float eta) = 0;

  // ---- topk.h, index_pack.h ----
  // `scratch` has room for k. The list lies at its front; its elements are on the device.
  virtual std::span<const IndexedValue> TakeTopK(const MessageView& message, size_t k,
                                                 std::span<IndexedValue> scratch) = 0;
  virtual size_t TakeAbove(const MessageView& message, float threshold,
                           std::span<IndexedValue> scratch) = 0;  // waits; room less kTakeSlack
  virtual void PackEntries(std::span<const IndexedValue> list, int bits, uint8_t* packed,
                           uint8_t* values) = 0;
  virtual void PackEntriesOnGrids(std::span<const IndexedValue> list, std::span<float> buffer,
                                  int index_bits, uint8_t* packed, int value_bits, size_t group,
                                  uint8_t* values) = 0;
  virtual void AddAtIndices(std::span<float> out, float scale, ByteSpan packed, int bits,
                            size_t count, const uint8_t* values) = 0;
  virtual void AddAtIndicesFromGrids(std::span<float> out, float scale, ByteSpan packed,
                                     int index_bits, size_t count, int value_bits, size_t group,
                                     const uint8_t* values) = 0;

  // ---- quantize.h, natural.h, signs.h ----
  virtual void Quantize(const MessageView& message, const QuantizeSpec& spec, QuantizeStream stream,
                        uint8_t* body) = 0;
  virtual void DequantizeAdd(const uint8_t* body, const QuantizeSpec& spec, float scale,
                             std::span<float> out) = 0;
  virtual void NaturalEncode(const MessageView& message, uint64_t key, uint64_t first_index,
                             uint8_t* body) = 0;
  virtual void NaturalDecodeAdd(const uint8_t* body, float scale, std::span<float> out) = 0;
  virtual void EncodeSigns(const MessageView& message, SignMeans means, uint8_t* mean_bytes,
                           uint8_t* bits) = 0;
  virtual void DecodeSignsAdd(std::span<float> out, float scale, SignMeans means,
                              const uint8_t* mean_bytes, const uint8_t* bits) = 0;

  // ---- subset.h ----
  virtual void MarkSubset(uint64_t key, size_t numel, size_t k, std::span<uint64_t> bitmap) = 0;
  virtual void TakeMarked(const MessageView& message, std::span<const uint64_t> bitmap,
                          float decoded_factor, uint8_t* to) = 0;
  virtual void AddMarked(std::span<float> out, std::span<const uint64_t> bitmap, float s,
                         const uint8_t* from) = 0;

  // ---- lowrank.h ----
  virtual void MaterializeTimesQ(const MessageView& message, const LowRankShape& shape,
                                 const float* qt, float* p) = 0;
  virtual void TransposeTimesM(const float* m, const LowRankShape& shape, const float* p,
                               float* qt) = 0;
  virtual void OuterResidual(float* m, const LowRankShape& shape, const float* p,
                             const float* qt) = 0;
  virtual void OuterAdd(float* out, const LowRankShape& shape, const float* p, const float* qt,
                        float scale) = 0;
  virtual void Orthonormalize(std::span<float> p, int64_t rows, int64_t rank,
                              std::span<double> scratch) = 0;
  virtual void UnitRows(const float* from, int64_t rows, int64_t cols, uint64_t key, float* to) = 0;
  virtual void DrawUniform(std::span<float> x, uint64_t key, uint64_t first) = 0;
  virtual void TransposeScaled(const float* from, int64_t rows, int64_t cols, float factor,
                               float* to) = 0;

  // ---- shared_scale.h ----
  virtual void LargestOfBlocks(std::span<const float> x, int64_t block,
                               std::span<float> scales) = 0;
  virtual void RoundToCodes(std::span<const float> x, int64_t block, std::span<const float> scales,
                            int levels, uint64_t key, uint64_t first_index,
                            std::span<int8_t> codes) = 0;
  virtual void ValuesOfCodes(std::span<const int8_t> codes, int64_t block,
                             std::span<const float> scales, int levels, std::span<float> x) = 0;
  virtual void RotateBlocks(std::span<float> x, int64_t block, uint64_t key,
                            uint64_t first_index) = 0;
  virtual void RotateBlocksBack(std::span<float> x, int64_t block, uint64_t key,
                                uint64_t first_index) = 0;

  // ---- optimizer.h, state_steps.h, state_codes.h ----
  virtual void AdamWStep(std::span<float> p, std::span<const float> g, std::span<float> m,
                         std::span<float> v, const AdamWCoefficients<float>& c) = 0;
  virtual void SecondMomentStep(std::span<const float> g, std::span<float> v,
                                const AdamWCoefficients<float>& c) = 0;
  virtual void AdamMiniBlocks(std::span<float> p, std::span<const float> g, std::span<float> m,
                              std::span<float> v, int64_t block,
                              const AdamWCoefficients<float>& c) = 0;
  virtual void SgdStep(std::span<float> p, std::span<const float> g,
                       const SgdmCoefficients<float>& c) = 0;
  virtual void SgdmStep(std::span<float> p, std::span<const float> g, std::span<float> m,
                        const SgdmCoefficients<float>& c) = 0;
  virtual void AdamWStep4(std::span<float> p, std::span<const float> g, const CodedMoment& m,
                          const CodedMoment& v, const AdamWCoefficients<float>& c) = 0;
  virtual void AdamWStep8(std::span<float> p, std::span<const float> g, const CodedMoment& m,
                          const CodedMoment& v, const AdamWCoefficients<float>& c) = 0;
  virtual void SgdmStep4(std::span<float> p, std::span<const float> g, const CodedMoment& m,
                         const SgdmCoefficients<float>& c) = 0;
  // Matrices [p.size() / cols, cols]; v_maxima and scratch [rows + cols], rows first.
  virtual void AdamWStepRank1(std::span<float> p, std::span<const float> g, int64_t cols,
                              const CodedMoment& m, std::span<uint8_t> v_codes,
                              std::span<float> v_maxima, std::span<float> scratch,
                              const AdamWCoefficients<float>& c) = 0;
  // The same matrices with v as an outer product of means; v_means [rows + cols]. Sums are in the
  // order of state_factor_device.h.
  virtual void AdamWStepFactor(std::span<float> p, std::span<const float> g, int64_t cols,
                               const CodedMoment& m, std::span<float> v_means,
                               const AdamWCoefficients<float>& c) = 0;
  // Steps of bf16 parameters (narrow_parameter.h) in one pass, with the bits of: gradient and,
  // where there is no master, value to fp32; the step above; back by ConvertToBf16 or RoundToBf16.
  virtual void AdamWStepNarrow(const NarrowParameter& x, std::span<float> m, std::span<float> v,
                               const AdamWCoefficients<float>& c) = 0;
  virtual void AdamWStep4Narrow(const NarrowParameter& x, const CodedMoment& m,
                                const CodedMoment& v, const AdamWCoefficients<float>& c) = 0;
  virtual void AdamWStep8Narrow(const NarrowParameter& x, const CodedMoment& m,
                                const CodedMoment& v, const AdamWCoefficients<float>& c) = 0;
  virtual void SgdStepNarrow(const NarrowParameter& x, const SgdmCoefficients<float>& c) = 0;
  virtual void SgdmStepNarrow(const NarrowParameter& x, std::span<float> m,
                              const SgdmCoefficients<float>& c) = 0;
  virtual void SgdmStep4Narrow(const NarrowParameter& x, const CodedMoment& m,
                               const SgdmCoefficients<float>& c) = 0;
  virtual void EncodeBlocks4(Code4 code, std::span<const float> x, std::span<uint8_t> packed,
                             std::span<float> scales) = 0;
  virtual void DecodeBlocks4(Code4 code, std::span<const uint8_t> packed,
                             std::span<const float> scales, std::span<float> out) = 0;
  virtual void EncodeBlocks8(Code8 code, std::span<const float> x, std::span<uint8_t> codes,
                             std::span<float> scales) = 0;
  virtual void DecodeBlocks8(Code8 code, std::span<const uint8_t> codes,
                             std::span<const float> scales, std::span<float> out) = 0;
  virtual void RoundToBf16(std::span<const float> x, uint64_t key, uint64_t first,
                           std::span<uint16_t> out) = 0;
  virtual void WidenBf16(std::span<const uint16_t> x, std::span<float> out) = 0;

  // ---- softmax.h: scores [rows, cols], rows `stride` apart, labels int64; see softmax_device.h
  // ----
  virtual void CrossEntropyRows(float* scores, const int64_t* labels, int64_t rows, int64_t cols,
                                int64_t stride, float scale, double* losses) = 0;
  virtual void BeginScores(int64_t rows, void* sums, double* label_scores) = 0;
  virtual void AddScores(const float* scores, const int64_t* labels, int64_t rows, int64_t cols,
                         int64_t stride, int64_t first_class, void* sums, double* label_scores) = 0;
  virtual void FinishScores(const int64_t* labels, int64_t rows, const void* sums,
                            const double* label_scores, double* lse, double* losses) = 0;
  virtual void SoftmaxGradientRows(float* scores, const int64_t* labels, int64_t rows, int64_t cols,
                                   int64_t stride, int64_t first_class, const double* lse,
                                   float scale) = 0;

  // ---- normal.h, int8_block.h, expand.h ----
  virtual void FillNormal(uint64_t key, uint64_t first_block, int64_t num_blocks, float scale,
                          float* out, int64_t stride) = 0;
  virtual void QuantizeInt8(const float* x, int64_t rows, int64_t cols, int8_t* codes,
                            float* scales) = 0;
  virtual void DequantizeInt8(const int8_t* codes, const float* scales, int64_t rows, int64_t cols,
                              float* out) = 0;
  // value [rows, cols], update [rows, rank]; the projection in strips, see expand_device.h.
  virtual void Expand(float* value, int64_t rows, int64_t cols, const float* update, int64_t rank,
                      const float* projection, float keep, float scale) = 0;
};

// Of this thread; null: the host.
inline DeviceKernels* OnDevice() { return static_cast<DeviceKernels*>(CurrentQueue()); }

}  // namespace tw::kernels
