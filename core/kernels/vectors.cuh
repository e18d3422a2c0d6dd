#pragma once
// Floats four at a time where their address allows it.

#include "core/kernels/launch.cuh"

namespace tw::kernels::device {

struct alignas(16) Four {
  float x[4];
};
// Null is aligned.
__device__ inline bool IsAligned(const float* x) {
  return reinterpret_cast<uintptr_t>(x) % sizeof(Four) == 0;
}
__device__ inline Four FourAt(const float* from) { return *reinterpret_cast<const Four*>(from); }
__device__ inline void PutFour(float* to, const Four& four) { *reinterpret_cast<Four*>(to) = four; }

// kEach elements, a multiple of 4, at an aligned address.
template <int kEach>
__device__ inline void LoadFours(const float* from, float (&out)[kEach]) {
  for (int i = 0; i < kEach; i += 4) {
    const Four four = FourAt(from + i);
    for (int k = 0; k < 4; ++k) out[i + k] = four.x[k];
  }
}
template <int kEach>
__device__ inline void StoreFours(float* to, const float (&x)[kEach]) {
  for (int i = 0; i < kEach; i += 4) PutFour(to + i, {{x[i], x[i + 1], x[i + 2], x[i + 3]}});
}

// Elements [at, at + kEach) of a tensor at any address; 0 beyond its end.
template <int kEach>
__device__ inline void LoadFloats(const float* from, int64_t at, int64_t numel,
                                  float (&out)[kEach]) {
  if (at + kEach <= numel && IsAligned(from + at)) return LoadFours(from + at, out);
  for (int i = 0; i < kEach; ++i) out[i] = at + i < numel ? from[at + i] : 0.0f;
}
template <int kEach>
__device__ inline void StoreFloats(float* to, int64_t at, int64_t numel, const float (&x)[kEach]) {
  if (at + kEach <= numel && IsAligned(to + at)) return StoreFours(to + at, x);
  for (int i = 0; i < kEach; ++i) {
    if (at + i < numel) to[at + i] = x[i];
  }
}

}  // namespace tw::kernels::device
