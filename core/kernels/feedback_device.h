#pragma once
// The updates of error-feedback memories (feedback.h) on a GPU: one launch over all tensors of a
// bucket, the same bits. T is float or double.

#include "core/kernels/device.h"

namespace tw::kernels::device {

// Only the pointers that a function names need be set; they do not overlap.
template <class T>
struct FeedbackSegment {
  T* estimate = nullptr;  // mean of all h
  T* mean = nullptr;
  T* v = nullptr;  // momentum
  T* g = nullptr;
  T* e = nullptr;  // error
  const T* h = nullptr;
  const T* r = nullptr;  // residual
  int64_t numel = 0;
  int64_t first_tile = 0;
};

// estimate, mean
template <class T>
void Advance(Table<FeedbackSegment<T>> table, Stream stream);
template <class T>
void DampedAdvance(Table<FeedbackSegment<T>> table, T alpha, Stream stream);
// g, h, e
template <class T>
void ErrorMessage(Table<FeedbackSegment<T>> table, T eta, Stream stream);
// e, r
template <class T>
void ErrorMemory(Table<FeedbackSegment<T>> table, T keep, Stream stream);
// v, g, h
template <class T>
void MomentumMessage(Table<FeedbackSegment<T>> table, T keep, T b, Stream stream);
// v, g, h, e
template <class T>
void MomentumErrorMessage(Table<FeedbackSegment<T>> table, T keep, T b, T eta, Stream stream);

}  // namespace tw::kernels::device
