#pragma once
// The queue that MakeDeviceQueue makes. Its parts: device_queue.cc rows, launches, moves and marks;
// device_queue_numbers.cc, _codecs.cc and _steps.cc the kernels, each of which only notes a
// segment.

#include <cuda_runtime_api.h>

#include <memory>
#include <mutex>
#include <vector>

#include "core/kernels/clip_device.h"
#include "core/kernels/device_batch.h"
#include "core/kernels/device_graph.h"
#include "core/kernels/device_kernels.h"
#include "core/kernels/device_queue.h"
#include "core/kernels/device_staging.h"
#include "core/kernels/memory_device.h"

namespace tw::kernels {

// Events that are used again; marks hold on to it, on whatever thread they end.
class EventPool {
 public:
  EventPool() = default;
  ~EventPool();
  EventPool(const EventPool&) = delete;
  EventPool& operator=(const EventPool&) = delete;
  cudaEvent_t Take(CudaErrors& errors);
  void Give(cudaEvent_t event);

 private:
  std::mutex mutex_;
  std::vector<cudaEvent_t> idle_;
};

// The default stream, or one of its own.
class QueueCudaStream {
 public:
  explicit QueueCudaStream(cudaStream_t stream) : stream_(stream) {}
  ~QueueCudaStream() {
    if (stream_) cudaStreamDestroy(stream_);
  }
  QueueCudaStream(const QueueCudaStream&) = delete;
  QueueCudaStream& operator=(const QueueCudaStream&) = delete;
  operator cudaStream_t() const { return stream_; }

 private:
  const cudaStream_t stream_;
};

class CudaQueue final : public DeviceKernels {
 public:
  CudaQueue(const DeviceQueueOptions& options, cudaStream_t stream);
  ~CudaQueue() override;
  CudaQueue(const CudaQueue&) = delete;
  CudaQueue& operator=(const CudaQueue&) = delete;

  // ---- DeviceQueue ----
  DeviceMemory& memory() override { return memory_; }
  void Copy(void* to, const void* from, size_t bytes) override;
  void Zero(void* to, size_t bytes) override;
  void CopyIn(void* to, const void* host, size_t bytes) override;
  void CopyOut(void* host, const void* from, size_t bytes) override;
  void StartCopyOut(void* pinned, const void* from, size_t bytes) override;
  void StartCopyIn(void* to, const void* pinned, size_t bytes) override;
  uint8_t* AllocatePinned(size_t bytes) override;
  void FreePinned(uint8_t* memory) override;
  std::unique_ptr<DeviceMark> Mark() override;
  void After(const DeviceMark& mark) override;
  Status Wait() override;
  Status WaitFor(const DeviceMark& mark) override;
  void* stream() override { return static_cast<cudaStream_t>(stream_); }
  Status BeginCapture() override;
  StatusOr<std::unique_ptr<DeviceGraph>> EndCapture() override;
  void LaunchGraph(cudaGraphExec_t graph);
  void BeginTogether() override;
  void Next() override;
  void EndTogether() override;

  // ---- DeviceKernels ----
  void CheckFinite(TensorView x) override;
  bool TakeAllFinite() override;
  void SumsOfSquares(std::span<const TensorView> x, std::span<double> out) override;
  void Norm(std::span<const TensorView> x, double* norm) override;
  void ClipToNorm(TensorView x, double limit) override;
  void ClipSteps(double limit, const double* norm) override;
  void AddFromBytes(std::span<float> a, float s, const uint8_t* b) override;
  void MoveOut(std::span<float> buffer, const float* addend, float s, uint8_t* to) override;
  void AddInPlace(std::span<float> a, float s, std::span<const float> b) override;
  void Scale(std::span<float> a, float s) override;
  void AddFromBf16(std::span<float> a, float s, std::span<const uint16_t> b) override;
  void AddFromHalf(std::span<float> a, float s, std::span<const uint16_t> b) override;
  void AddToNarrow(TensorView to, float s, TensorView from) override;
  void ConvertToBf16(std::span<const float> from, std::span<uint16_t> to) override;
  void ConvertFromBf16(std::span<const uint16_t> from, std::span<float> to) override;
  void ConvertToHalf(std::span<const float> from, std::span<uint16_t> to) override;
  void ConvertFromHalf(std::span<const uint16_t> from, std::span<float> to) override;
  void CastResidualBf16(std::span<float> buffer, const float* addend, float s, float pre,
                        float post, std::span<uint16_t> to) override;
  void CastResidualHalf(std::span<float> buffer, const float* addend, float s, float pre,
                        float post, std::span<uint16_t> to) override;
  void AddBytes(std::span<uint8_t> a, std::span<const uint8_t> b) override;
  void TakeLarger(std::span<float> a, std::span<const float> b) override;
  void ZeroWhere(std::span<float> a, std::span<const float> b) override;
  void Advance(std::span<float> estimate, std::span<float> mean) override;
  void DampedAdvance(std::span<float> estimate, std::span<float> mean, float alpha) override;
  void ErrorMessage(std::span<float> g, std::span<const float> h, std::span<const float> e,
                    float eta) override;
  void ErrorMemory(std::span<float> e, std::span<const float> r, float keep) override;
  void MomentumMessage(std::span<float> v, std::span<float> g, std::span<const float> h, float keep,
                       float b) override;
  void MomentumErrorMessage(std::span<float> v, std::span<float> g, std::span<const float> h,
                            std::span<const float> e, float keep, float b, float eta) override;
  std::span<const IndexedValue> TakeTopK(const MessageView& message, size_t k,
                                         std::span<IndexedValue> scratch) override;
  size_t TakeAbove(const MessageView& message, float threshold,
                   std::span<IndexedValue> scratch) override;
  void PackEntries(std::span<const IndexedValue> list, int bits, uint8_t* packed,
                   uint8_t* values) override;
  void PackEntriesOnGrids(std::span<const IndexedValue> list, std::span<float> buffer,
                          int index_bits, uint8_t* packed, int value_bits, size_t group,
                          uint8_t* values) override;
  void AddAtIndices(std::span<float> out, float scale, ByteSpan packed, int bits, size_t count,
                    const uint8_t* values) override;
  void AddAtIndicesFromGrids(std::span<float> out, float scale, ByteSpan packed, int index_bits,
                             size_t count, int value_bits, size_t group,
                             const uint8_t* values) override;
  void Quantize(const MessageView& message, const QuantizeSpec& spec, QuantizeStream stream,
                uint8_t* body) override;
  void DequantizeAdd(const uint8_t* body, const QuantizeSpec& spec, float scale,
                     std::span<float> out) override;
  void NaturalEncode(const MessageView& message, uint64_t key, uint64_t first_index,
                     uint8_t* body) override;
  void NaturalDecodeAdd(const uint8_t* body, float scale, std::span<float> out) override;
  void EncodeSigns(const MessageView& message, SignMeans means, uint8_t* mean_bytes,
                   uint8_t* bits) override;
  void DecodeSignsAdd(std::span<float> out, float scale, SignMeans means, const uint8_t* mean_bytes,
                      const uint8_t* bits) override;
  void MarkSubset(uint64_t key, size_t numel, size_t k, std::span<uint64_t> bitmap) override;
  void TakeMarked(const MessageView& message, std::span<const uint64_t> bitmap,
                  float decoded_factor, uint8_t* to) override;
  void AddMarked(std::span<float> out, std::span<const uint64_t> bitmap, float s,
                 const uint8_t* from) override;
  void MaterializeTimesQ(const MessageView& message, const LowRankShape& shape, const float* qt,
                         float* p) override;
  void TransposeTimesM(const float* m, const LowRankShape& shape, const float* p,
                       float* qt) override;
  void OuterResidual(float* m, const LowRankShape& shape, const float* p, const float* qt) override;
  void OuterAdd(float* out, const LowRankShape& shape, const float* p, const float* qt,
                float scale) override;
  void Orthonormalize(std::span<float> p, int64_t rows, int64_t rank,
                      std::span<double> scratch) override;
  void UnitRows(const float* from, int64_t rows, int64_t cols, uint64_t key, float* to) override;
  void DrawUniform(std::span<float> x, uint64_t key, uint64_t first) override;
  void TransposeScaled(const float* from, int64_t rows, int64_t cols, float factor,
                       float* to) override;
  void LargestOfBlocks(std::span<const float> x, int64_t block, std::span<float> scales) override;
  void RoundToCodes(std::span<const float> x, int64_t block, std::span<const float> scales,
                    int levels, uint64_t key, uint64_t first_index,
                    std::span<int8_t> codes) override;
  void ValuesOfCodes(std::span<const int8_t> codes, int64_t block, std::span<const float> scales,
                     int levels, std::span<float> x) override;
  void RotateBlocks(std::span<float> x, int64_t block, uint64_t key, uint64_t first_index) override;
  void RotateBlocksBack(std::span<float> x, int64_t block, uint64_t key,
                        uint64_t first_index) override;
  void AdamWStep(std::span<float> p, std::span<const float> g, std::span<float> m,
                 std::span<float> v, const AdamWCoefficients<float>& c) override;
  void SecondMomentStep(std::span<const float> g, std::span<float> v,
                        const AdamWCoefficients<float>& c) override;
  void AdamMiniBlocks(std::span<float> p, std::span<const float> g, std::span<float> m,
                      std::span<float> v, int64_t block,
                      const AdamWCoefficients<float>& c) override;
  void SgdStep(std::span<float> p, std::span<const float> g,
               const SgdmCoefficients<float>& c) override;
  void SgdmStep(std::span<float> p, std::span<const float> g, std::span<float> m,
                const SgdmCoefficients<float>& c) override;
  void AdamWStep4(std::span<float> p, std::span<const float> g, const CodedMoment& m,
                  const CodedMoment& v, const AdamWCoefficients<float>& c) override;
  void AdamWStep8(std::span<float> p, std::span<const float> g, const CodedMoment& m,
                  const CodedMoment& v, const AdamWCoefficients<float>& c) override;
  void SgdmStep4(std::span<float> p, std::span<const float> g, const CodedMoment& m,
                 const SgdmCoefficients<float>& c) override;
  void AdamWStepRank1(std::span<float> p, std::span<const float> g, int64_t cols,
                      const CodedMoment& m, std::span<uint8_t> v_codes, std::span<float> v_maxima,
                      std::span<float> scratch, const AdamWCoefficients<float>& c) override;
  void AdamWStepFactor(std::span<float> p, std::span<const float> g, int64_t cols,
                       const CodedMoment& m, std::span<float> v_means,
                       const AdamWCoefficients<float>& c) override;
  void AdamWStepNarrow(const NarrowParameter& x, std::span<float> m, std::span<float> v,
                       const AdamWCoefficients<float>& c) override;
  void AdamWStep4Narrow(const NarrowParameter& x, const CodedMoment& m, const CodedMoment& v,
                        const AdamWCoefficients<float>& c) override;
  void AdamWStep8Narrow(const NarrowParameter& x, const CodedMoment& m, const CodedMoment& v,
                        const AdamWCoefficients<float>& c) override;
  void SgdStepNarrow(const NarrowParameter& x, const SgdmCoefficients<float>& c) override;
  void SgdmStepNarrow(const NarrowParameter& x, std::span<float> m,
                      const SgdmCoefficients<float>& c) override;
  void SgdmStep4Narrow(const NarrowParameter& x, const CodedMoment& m,
                       const SgdmCoefficients<float>& c) override;
  void EncodeBlocks4(Code4 code, std::span<const float> x, std::span<uint8_t> packed,
                     std::span<float> scales) override;
  void DecodeBlocks4(Code4 code, std::span<const uint8_t> packed, std::span<const float> scales,
                     std::span<float> out) override;
  void EncodeBlocks8(Code8 code, std::span<const float> x, std::span<uint8_t> codes,
                     std::span<float> scales) override;
  void DecodeBlocks8(Code8 code, std::span<const uint8_t> codes, std::span<const float> scales,
                     std::span<float> out) override;
  void RoundToBf16(std::span<const float> x, uint64_t key, uint64_t first,
                   std::span<uint16_t> out) override;
  void WidenBf16(std::span<const uint16_t> x, std::span<float> out) override;
  void CrossEntropyRows(float* scores, const int64_t* labels, int64_t rows, int64_t cols,
                        int64_t stride, float scale, double* losses) override;
  void BeginScores(int64_t rows, void* sums, double* label_scores) override;
  void AddScores(const float* scores, const int64_t* labels, int64_t rows, int64_t cols,
                 int64_t stride, int64_t first_class, void* sums, double* label_scores) override;
  void FinishScores(const int64_t* labels, int64_t rows, const void* sums,
                    const double* label_scores, double* lse, double* losses) override;
  void SoftmaxGradientRows(float* scores, const int64_t* labels, int64_t rows, int64_t cols,
                           int64_t stride, int64_t first_class, const double* lse,
                           float scale) override;
  void FillNormal(uint64_t key, uint64_t first_block, int64_t num_blocks, float scale, float* out,
                  int64_t stride) override;
  void QuantizeInt8(const float* x, int64_t rows, int64_t cols, int8_t* codes,
                    float* scales) override;
  void DequantizeInt8(const int8_t* codes, const float* scales, int64_t rows, int64_t cols,
                      float* out) override;
  void Expand(float* value, int64_t rows, int64_t cols, const float* update, int64_t rank,
              const float* projection, float keep, float scale) override;

 private:
  // Notes a call at the next place of the row; outside of rows it is launched at once.
  template <class Op>
  void Put(const typename Op::Segment& segment, const typename Op::Parameters& parameters = {});
  // Launches all that was noted.
  void Flush();
  void LaunchSquares(std::span<const TensorView> x);  // sums to the start of the scratch
  void LaunchNoted();
  // Of this thread. Nothing is to be done when false.
  bool UseDevice();
  void SendThroughRing(uint8_t* to, const uint8_t* host, size_t bytes);
  // Memory for what the device gets from the host, and scratch: the queue's own or, in a capture,
  // the graph's. SendPiece copies a piece to its place on the device, or leaves that to EndCapture.
  StagingRing::Piece TakePiece(size_t bytes);
  bool SendPiece(const StagingRing::Piece& piece, size_t bytes);
  uint8_t* Scratch(size_t bytes);
  // Whether this is a capture, which then fails for it.
  bool Refuses(const char* what);
  // Throws away what was noted.
  void ForgetNoted();
  std::unique_ptr<Batch> TakeIdle(int op);

  device::Stream kernel_stream() const {
    return reinterpret_cast<device::Stream>(static_cast<cudaStream_t>(stream_));
  }

  const int device_;
  const QueueCudaStream stream_;
  DeviceMemory& memory_;
  CudaErrors errors_;
  StagingRing ring_;
  DeviceScratch scratch_;
  const std::shared_ptr<EventPool> events_;
  uint32_t* not_finite_ = nullptr;  // on the device
  device::StepClip clip_;
  std::unique_ptr<GraphMemory> capture_;  // null: calls are launched

  struct Rows {
    size_t first = 0;     // place at which each row starts
    size_t furthest = 0;  // that a row has come to
  };
  std::vector<Rows> rows_;
  size_t place_ = 0;
  std::vector<std::vector<std::unique_ptr<Batch>>> places_;  // what was noted
  std::vector<std::vector<std::unique_ptr<Batch>>> idle_;    // by op
  size_t num_noted_ = 0;                                     // batches
  size_t bytes_in_ring_ = 0;                                 // that noted copies read
  std::vector<uint64_t> bitmap_;
};

template <class Op>
void CudaQueue::Put(const typename Op::Segment& segment,
                    const typename Op::Parameters& parameters) {
  const size_t place = rows_.empty() ? 0 : place_++;
  if constexpr (Op::kSkipsEmpty) {
    if (segment.numel == 0) return;
  }
  if (place >= places_.size()) places_.resize(place + 1);
  BatchOf<Op>* batch = nullptr;
  for (const auto& noted : places_[place]) {
    if (noted->op() != OpNumber<Op>()) continue;
    auto* candidate = static_cast<BatchOf<Op>*>(noted.get());
    if (candidate->Has(parameters)) batch = candidate;
  }
  if (batch == nullptr) {
    std::unique_ptr<Batch> idle = TakeIdle(OpNumber<Op>());
    if (!idle) idle = std::make_unique<BatchOf<Op>>();
    batch = static_cast<BatchOf<Op>*>(idle.get());
    batch->Start(parameters);
    places_[place].push_back(std::move(idle));
    ++num_noted_;
  }
  batch->Add(segment);
  if (rows_.empty()) Flush();
}

}  // namespace tw::kernels
