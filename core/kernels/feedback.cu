#include "core/kernels/feedback.h"

#include "core/kernels/feedback_device.h"
#include "core/kernels/launch.cuh"

namespace tw::kernels::device {
namespace {

template <class T>
struct AdvanceOp {
  __device__ void operator()(const FeedbackSegment<T>& s, int64_t i) const {
    AdvanceElement(s.estimate[i], s.mean[i]);
  }
};
template <class T>
struct DampedAdvanceOp {
  T alpha;
  __device__ void operator()(const FeedbackSegment<T>& s, int64_t i) const {
    DampedAdvanceElement(s.estimate[i], s.mean[i], alpha);
  }
};
template <class T>
struct ErrorMessageOp {
  T eta;
  __device__ void operator()(const FeedbackSegment<T>& s, int64_t i) const {
    ErrorMessageElement(s.g[i], s.h[i], s.e[i], eta);
  }
};
template <class T>
struct ErrorMemoryOp {
  T keep;
  __device__ void operator()(const FeedbackSegment<T>& s, int64_t i) const {
    ErrorMemoryElement(s.e[i], s.r[i], keep);
  }
};
template <class T>
struct MomentumMessageOp {
  T keep, b;
  __device__ void operator()(const FeedbackSegment<T>& s, int64_t i) const {
    MomentumMessageElement(s.v[i], s.g[i], s.h[i], keep, b);
  }
};
template <class T>
struct MomentumErrorMessageOp {
  T keep, b, eta;
  __device__ void operator()(const FeedbackSegment<T>& s, int64_t i) const {
    MomentumErrorMessageElement(s.v[i], s.g[i], s.h[i], s.e[i], keep, b, eta);
  }
};

}  // namespace

template <class T>
void Advance(Table<FeedbackSegment<T>> table, Stream stream) {
  LaunchForEach(table, stream, AdvanceOp<T>());
}
template <class T>
void DampedAdvance(Table<FeedbackSegment<T>> table, T alpha, Stream stream) {
  LaunchForEach(table, stream, DampedAdvanceOp<T>{alpha});
}
template <class T>
void ErrorMessage(Table<FeedbackSegment<T>> table, T eta, Stream stream) {
  LaunchForEach(table, stream, ErrorMessageOp<T>{eta});
}
template <class T>
void ErrorMemory(Table<FeedbackSegment<T>> table, T keep, Stream stream) {
  LaunchForEach(table, stream, ErrorMemoryOp<T>{keep});
}
template <class T>
void MomentumMessage(Table<FeedbackSegment<T>> table, T keep, T b, Stream stream) {
  LaunchForEach(table, stream, MomentumMessageOp<T>{keep, b});
}
template <class T>
void MomentumErrorMessage(Table<FeedbackSegment<T>> table, T keep, T b, T eta, Stream stream) {
  LaunchForEach(table, stream, MomentumErrorMessageOp<T>{keep, b, eta});
}

#define TW_FEEDBACK_OF(T)                                                 \
  template void Advance(Table<FeedbackSegment<T>>, Stream);               \
  template void DampedAdvance(Table<FeedbackSegment<T>>, T, Stream);      \
  template void ErrorMessage(Table<FeedbackSegment<T>>, T, Stream);       \
  template void ErrorMemory(Table<FeedbackSegment<T>>, T, Stream);        \
  template void MomentumMessage(Table<FeedbackSegment<T>>, T, T, Stream); \
  template void MomentumErrorMessage(Table<FeedbackSegment<T>>, T, T, T, Stream)
TW_FEEDBACK_OF(float);
TW_FEEDBACK_OF(double);
#undef TW_FEEDBACK_OF

}  // namespace tw::kernels::device
