// Numbers for the host, element-wise kernels and the updates of error-feedback memories.
#include <utility>

#include "core/base/status.h"
#include "core/kernels/device_queue_cuda.h"
#include "core/kernels/elementwise_device.h"
#include "core/kernels/feedback_device.h"
#include "core/kernels/reduce_device.h"

namespace tw::kernels {
namespace {

using device::AddSegment;
using device::ConvertSegment;
using device::MessageSegment;
using device::ReduceSegment;
using Feedback = device::FeedbackSegment<float>;

AddSegment Adding(std::span<float> a, float s, const void* b) {
  return {a.data(), b, s, static_cast<int64_t>(a.size())};
}
ConvertSegment Converting(std::span<const float> wide, std::span<const uint16_t> narrow) {
  TW_CHECK_EQ(wide.size(), narrow.size());
  return {const_cast<float*>(wide.data()), const_cast<uint16_t*>(narrow.data()),
          static_cast<int64_t>(wide.size())};
}
MessageSegment Moving(std::span<float> buffer, const float* addend, float s, void* to) {
  return {buffer.data(), addend, s, static_cast<uint8_t*>(to), static_cast<int64_t>(buffer.size())};
}

bool IsFloating(DType dtype) {
  TW_CHECK(dtype != DType::kF64);  // there are none on a device
  return dtype == DType::kF32 || dtype == DType::kF16 || dtype == DType::kBF16;
}
ReduceSegment Reducing(const TensorView& x) {
  ReduceSegment segment;
  segment.x = x.data;
  segment.dtype = x.dtype;
  segment.numel = x.numel;
  return segment;
}

// A sum for each segment at the start of the scratch.
struct SquaresOp : OpBase<ReduceSegment, None> {
  static constexpr bool kSkipsEmpty = false;
  static size_t Scratch(std::span<const ReduceSegment> segments, int64_t tiles, const None&) {
    return (segments.size() + static_cast<size_t>(device::SumScratch(tiles))) * sizeof(double);
  }
  static void Launch(const LaunchOf<ReduceSegment, None>& of) {
    auto* sums = reinterpret_cast<double*>(of.scratch);
    device::SumOfSquares(of.table, sums + of.table.count, sums, of.stream);
  }
};

struct ClipOp : OpBase<ReduceSegment, double> {
  static size_t Scratch(std::span<const ReduceSegment> segments, int64_t tiles, double) {
    return SquaresOp::Scratch(segments, tiles, {});
  }
  static void Launch(const LaunchOf<ReduceSegment, double>& of) {
    SquaresOp::Launch({of.table, of.segments, {}, nullptr, of.scratch, of.stream});
    device::ClipEach(of.table, of.parameters, reinterpret_cast<const double*>(of.scratch),
                     of.stream);
  }
};

}  // namespace

void CudaQueue::CheckFinite(TensorView x) {
  if (IsFloating(x.dtype)) Put<Kernel<device::NoteNotFinite>>(Reducing(x), {not_finite_});
}

bool CudaQueue::TakeAllFinite() {
  uint32_t found = 0;
  CopyOut(&found, not_finite_, sizeof(found));
  if (found && UseDevice()) {
    errors_.Succeeds(cudaMemsetAsync(not_finite_, 0, sizeof(uint32_t), stream_));
  }
  return found == 0;
}

void CudaQueue::LaunchSquares(std::span<const TensorView> x) {
  Flush();
  // A flush of its own, whatever row this is in.
  const size_t place = std::exchange(place_, 0);
  BeginTogether();
  for (const TensorView& tensor : x) {
    TW_CHECK(IsFloating(tensor.dtype));
    Next();
    Put<SquaresOp>(Reducing(tensor));
  }
  rows_.pop_back();
  Flush();
  place_ = place;
}

void CudaQueue::SumsOfSquares(std::span<const TensorView> x, std::span<double> out) {
  TW_CHECK_EQ(x.size(), out.size());
  if (x.empty()) return;
  LaunchSquares(x);
  CopyOut(out.data(), scratch_.AtLeast(0), out.size_bytes());
}

void CudaQueue::Norm(std::span<const TensorView> x, double* norm) {
  LaunchSquares(x);
  if (!UseDevice()) return;
  device::NormOfSums(reinterpret_cast<const double*>(Scratch(0)), static_cast<int>(x.size()), norm,
                     kernel_stream());
}

void CudaQueue::ClipToNorm(TensorView x, double limit) {
  TW_CHECK(IsFloating(x.dtype));
  Put<ClipOp>(Reducing(x), limit);
}

void CudaQueue::ClipSteps(double limit, const double* norm) {
  Flush();
  clip_ = {limit, norm};
}

// ---- elementwise.h ----

void CudaQueue::AddFromBytes(std::span<float> a, float s, const uint8_t* b) {
  Put<Kernel<device::AddInPlace>>(Adding(a, s, b));
}
void CudaQueue::AddInPlace(std::span<float> a, float s, std::span<const float> b) {
  Put<Kernel<device::AddInPlace>>(Adding(a, s, b.data()));
}
void CudaQueue::MoveOut(std::span<float> buffer, const float* addend, float s, uint8_t* to) {
  Put<Kernel<device::MoveOut>>(Moving(buffer, addend, s, to));
}
void CudaQueue::Scale(std::span<float> a, float s) {
  Put<Kernel<device::Scale>>(Adding(a, s, nullptr));
}
void CudaQueue::AddFromBf16(std::span<float> a, float s, std::span<const uint16_t> b) {
  TW_CHECK_EQ(a.size(), b.size());
  Put<Kernel<device::AddFromBf16>>(Adding(a, s, b.data()));
}
void CudaQueue::AddFromHalf(std::span<float> a, float s, std::span<const uint16_t> b) {
  TW_CHECK_EQ(a.size(), b.size());
  Put<Kernel<device::AddFromHalf>>(Adding(a, s, b.data()));
}
void CudaQueue::AddToNarrow(TensorView to, float s, TensorView from) {
  TW_CHECK_EQ(to.numel, from.numel);
  TW_CHECK(IsFloating(to.dtype) && IsFloating(from.dtype) && to.dtype != DType::kF32);
  device::NarrowSumSegment segment;
  segment.to = to.data;
  segment.from = from.data;
  segment.s = s;
  segment.to_type = to.dtype;
  segment.from_type = from.dtype;
  segment.numel = to.numel;
  Put<Kernel<device::AddToNarrow>>(segment);
}
void CudaQueue::ConvertToBf16(std::span<const float> from, std::span<uint16_t> to) {
  Put<Kernel<device::ConvertToBf16>>(Converting(from, to));
}
void CudaQueue::ConvertFromBf16(std::span<const uint16_t> from, std::span<float> to) {
  Put<Kernel<device::ConvertFromBf16>>(Converting(to, from));
}
void CudaQueue::ConvertToHalf(std::span<const float> from, std::span<uint16_t> to) {
  Put<Kernel<device::ConvertToHalf>>(Converting(from, to));
}
void CudaQueue::ConvertFromHalf(std::span<const uint16_t> from, std::span<float> to) {
  Put<Kernel<device::ConvertFromHalf>>(Converting(to, from));
}
void CudaQueue::CastResidualBf16(std::span<float> buffer, const float* addend, float s, float pre,
                                 float post, std::span<uint16_t> to) {
  TW_CHECK_EQ(buffer.size(), to.size());
  Put<Kernel<device::CastResidualBf16>>(Moving(buffer, addend, s, to.data()), {pre, post});
}
void CudaQueue::CastResidualHalf(std::span<float> buffer, const float* addend, float s, float pre,
                                 float post, std::span<uint16_t> to) {
  TW_CHECK_EQ(buffer.size(), to.size());
  Put<Kernel<device::CastResidualHalf>>(Moving(buffer, addend, s, to.data()), {pre, post});
}
void CudaQueue::AddBytes(std::span<uint8_t> a, std::span<const uint8_t> b) {
  TW_CHECK_EQ(a.size(), b.size());
  Put<Kernel<device::AddBytes>>({a.data(), b.data(), static_cast<int64_t>(a.size())});
}
void CudaQueue::TakeLarger(std::span<float> a, std::span<const float> b) {
  TW_CHECK_EQ(a.size(), b.size());
  Put<Kernel<device::TakeLarger>>(Adding(a, 1.0f, b.data()));
}
void CudaQueue::ZeroWhere(std::span<float> a, std::span<const float> b) {
  TW_CHECK_EQ(a.size(), b.size());
  Put<Kernel<device::ZeroWhere>>(Adding(a, 1.0f, b.data()));
}

// ---- feedback.h ----

void CudaQueue::Advance(std::span<float> estimate, std::span<float> mean) {
  Feedback segment;
  segment.estimate = estimate.data(), segment.mean = mean.data();
  segment.numel = static_cast<int64_t>(mean.size());
  Put<Kernel<device::Advance<float>>>(segment);
}
void CudaQueue::DampedAdvance(std::span<float> estimate, std::span<float> mean, float alpha) {
  Feedback segment;
  segment.estimate = estimate.data(), segment.mean = mean.data();
  segment.numel = static_cast<int64_t>(mean.size());
  Put<Kernel<device::DampedAdvance<float>>>(segment, {alpha});
}
void CudaQueue::ErrorMessage(std::span<float> g, std::span<const float> h, std::span<const float> e,
                             float eta) {
  Feedback segment;
  segment.g = g.data(), segment.h = h.data(), segment.e = const_cast<float*>(e.data());
  segment.numel = static_cast<int64_t>(g.size());
  Put<Kernel<device::ErrorMessage<float>>>(segment, {eta});
}
void CudaQueue::ErrorMemory(std::span<float> e, std::span<const float> r, float keep) {
  Feedback segment;
  segment.e = e.data(), segment.r = r.data();
  segment.numel = static_cast<int64_t>(e.size());
  Put<Kernel<device::ErrorMemory<float>>>(segment, {keep});
}
void CudaQueue::MomentumMessage(std::span<float> v, std::span<float> g, std::span<const float> h,
                                float keep, float b) {
  Feedback segment;
  segment.v = v.data(), segment.g = g.data(), segment.h = h.data();
  segment.numel = static_cast<int64_t>(g.size());
  Put<Kernel<device::MomentumMessage<float>>>(segment, {keep, b});
}
void CudaQueue::MomentumErrorMessage(std::span<float> v, std::span<float> g,
                                     std::span<const float> h, std::span<const float> e, float keep,
                                     float b, float eta) {
  Feedback segment;
  segment.v = v.data(), segment.g = g.data(), segment.h = h.data();
  segment.e = const_cast<float*>(e.data());
  segment.numel = static_cast<int64_t>(g.size());
  Put<Kernel<device::MomentumErrorMessage<float>>>(segment, {keep, b, eta});
}

}  // namespace tw::kernels
