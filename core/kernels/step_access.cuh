#pragma once
// How steps come to parameter and gradient of a segment: fp32, or bf16 with what a NarrowParameter
// says of it.

#include "core/kernels/float16.h"
#include "core/kernels/narrow_parameter.h"
#include "core/kernels/random.h"
#include "core/kernels/state_codes.cuh"

namespace tw::kernels::device {

template <class Segment>
concept Narrow = std::is_base_of_v<NarrowParameter, Segment>;

template <class Segment>
__device__ inline float GradientAt(const Segment& s, int64_t i) {
  if constexpr (Narrow<Segment>) {
    return Bf16ToFloat(s.grad[i]);
  } else {
    return s.g[i];
  }
}
template <class Segment>
__device__ inline float ParameterAt(const Segment& s, int64_t i) {
  if constexpr (Narrow<Segment>) {
    return s.master ? s.master[i] : Bf16ToFloat(s.value[i]);
  } else {
    return s.p[i];
  }
}
__device__ inline uint16_t Rounded(const NarrowParameter& x, int64_t i, float p) {
  return x.master ? FloatToBf16(p)
                  : FloatToBf16Random(p, ElementBits(x.key, static_cast<uint64_t>(i)));
}
template <class Segment>
__device__ inline void PutParameter(const Segment& s, int64_t i, float p) {
  if constexpr (Narrow<Segment>) {
    if (s.master) s.master[i] = p;
    s.value[i] = Rounded(s, i, p);
  } else {
    s.p[i] = p;
  }
}

// Elements [at, at + kEach), kEach = 4 or 8, as LoadFloats and StoreFloats have them.
struct alignas(8) FourNarrow {
  uint16_t x[4];
};
template <int kEach>
__device__ inline void LoadBf16(const uint16_t* from, int64_t at, int64_t numel,
                                float (&out)[kEach]) {
  if (at + kEach <= numel && reinterpret_cast<uintptr_t>(from + at) % sizeof(FourNarrow) == 0) {
    for (int i = 0; i < kEach; i += 4) {
      const FourNarrow four = *reinterpret_cast<const FourNarrow*>(from + at + i);
      for (int k = 0; k < 4; ++k) out[i + k] = Bf16ToFloat(four.x[k]);
    }
    return;
  }
  for (int i = 0; i < kEach; ++i) out[i] = at + i < numel ? Bf16ToFloat(from[at + i]) : 0.0f;
}
template <int kEach>
__device__ inline void StoreRounded(const NarrowParameter& x, int64_t at, int64_t numel,
                                    const float (&p)[kEach]) {
  if (at + kEach <= numel && reinterpret_cast<uintptr_t>(x.value + at) % sizeof(FourNarrow) == 0) {
    for (int i = 0; i < kEach; i += 4) {
      FourNarrow four;
      for (int k = 0; k < 4; ++k) four.x[k] = Rounded(x, at + i + k, p[i + k]);
      *reinterpret_cast<FourNarrow*>(x.value + at + i) = four;
    }
    return;
  }
  for (int i = 0; i < kEach; ++i) {
    if (at + i < numel) x.value[at + i] = Rounded(x, at + i, p[i]);
  }
}

template <class Segment, int kEach>
__device__ inline void LoadStep(const Segment& s, int64_t at, float (&p)[kEach],
                                float (&g)[kEach]) {
  if constexpr (Narrow<Segment>) {
    LoadBf16(s.grad, at, s.numel, g);
    s.master ? LoadFloats(s.master, at, s.numel, p) : LoadBf16(s.value, at, s.numel, p);
  } else {
    LoadFloats(s.p, at, s.numel, p);
    LoadFloats(s.g, at, s.numel, g);
  }
}
template <class Segment, int kEach>
__device__ inline void StoreStep(const Segment& s, int64_t at, const float (&p)[kEach]) {
  if constexpr (Narrow<Segment>) {
    if (s.master) StoreFloats(s.master, at, s.numel, p);
    StoreRounded(s, at, s.numel, p);
  } else {
    StoreFloats(s.p, at, s.numel, p);
  }
}

}  // namespace tw::kernels::device
