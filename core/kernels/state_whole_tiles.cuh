#pragma once
// AdamW on moments of 4 bits where a tile is whole and its addresses are aligned, which is nearly
// everywhere. While memory moves a block of 128 parameters, 14.13 bytes each, an H200 issues some
// 400 instructions for its warp. The general way of state_codes.cuh takes 640 and this one 320:
// counted in nvcc's code for sm_90, not timed. Half a warp has a block here, a lane eight elements
// in a row; nothing asks where the tensor ends; a code is looked up by the upper bits of its
// number; whole numbers are made and read as floats. The numbers and codes are the same.

#include <array>

#include "core/kernels/step_access.cuh"

namespace tw::kernels::device {

// Magnitudes up to 1 by their upper bits: at most one border of codes is in a cell.
struct SignedCell {
  uint32_t border;  // bits; magnitudes above it have one border more below them
  uint32_t below;   // borders below the cell
};
inline constexpr int kCellShift = 20, kFirstCell = 118 << 3, kCells = ((127 - 118) << 3) + 1;
inline constexpr std::array<SignedCell, kCells> kSignedCells = [] {
  std::array<SignedCell, kCells> out{};
  for (SignedCell& cell : out) cell.border = 0xFFFFFFFFu;
  for (const float border : kDeSignedBorders) {
    const auto bits = std::bit_cast<uint32_t>(border);
    const auto at = static_cast<size_t>((bits >> kCellShift) - kFirstCell);
    out[at].border = out[at].border == 0xFFFFFFFFu ? bits : 0;  // 0: two of them, see below
    for (size_t i = at + 1; i < out.size(); ++i) ++out[i].below;
  }
  return out;
}();
static_assert(std::none_of(kSignedCells.begin(), kSignedCells.end(),
                           [](const SignedCell& cell) { return cell.border == 0; }));
static __constant__ std::array<SignedCell, kCells> kCellsOnDevice = kSignedCells;

// Coder4<kDeSigned>::Code, NaN included.
__device__ inline unsigned SignedCode(float x, const SignedCell* cells) {
  const unsigned bits = __float_as_uint(x), negative = bits >> 31;
  const unsigned compared = (bits & 0x7FFFFFFFu) + negative;
  int at = static_cast<int>(compared >> kCellShift) - kFirstCell;
  at = at < 0 ? 0 : at < kCells ? at : kCells - 1;
  const SignedCell cell = cells[at];
  const int count = static_cast<int>(cell.below) + (compared > cell.border);
  const int flip = -static_cast<int>(negative), code = 7 + ((count ^ flip) - flip);
  return static_cast<unsigned>(code < 0 ? 0 : code);
}

inline constexpr float kWholes = 8388608.0f;  // from here on floats are whole numbers
inline constexpr unsigned kWholesBits = 0x4B000000u;
// Coder4<kLinear>::Code; 16 x is exact, so that one rounding is as good as two.
__device__ inline unsigned LinearCode(float x) {
  const float above = fminf(fmaxf(fmaf(x, 16.0f, -1.5f), 0.0f), 15.0f);
  return __float_as_uint(__fadd_ru(above, kWholes)) & 15u;
}
__device__ inline float OneAndCode(unsigned code) {
  return __uint_as_float(kWholesBits | code) - (kWholes - 1);
}

// Of a block, from the lane's eight numbers.
template <int kEach>
__device__ inline BlockScales ScalesOfHalfWarp(const float (&x)[kEach]) {
  unsigned most = LargestBits(x);
  for (int distance = kWarp / 4; distance > 0; distance /= 2) {
    const unsigned other = __shfl_xor_sync(kWholeWarp, most, distance);
    most = most < other ? other : most;
  }
  return ScalesOf(most);
}

template <class Segment>
__device__ inline bool IsWholeTile(const Segment& s) {
  if ((blockIdx.x - s.first_tile + 1) * kTile > s.numel) return false;
  auto addresses = reinterpret_cast<uintptr_t>(s.m_codes) | reinterpret_cast<uintptr_t>(s.v_codes);
  if constexpr (!Narrow<Segment>) {
    addresses |= reinterpret_cast<uintptr_t>(s.p) | reinterpret_cast<uintptr_t>(s.g);
  }
  return addresses % sizeof(Four) == 0;
}

// By a thread block. `cells` is shared memory for kCells.
template <class Segment>
__device__ inline void StepWholeTile(const Segment& s, const AdamWCoefficients<float>& c,
                                     SignedCell* cells) {
  constexpr int kEach = 8;
  constexpr int kAtOnce = kEach * kThreads;
  if (threadIdx.x < kCells) cells[threadIdx.x] = kCellsOnDevice[threadIdx.x];
  __syncthreads();
  const int lane = LaneInWarp(), half = lane & 16;
  const float mine = kBooks4[static_cast<int>(Code4::kDeSigned)][static_cast<size_t>(lane & 15)];
  const int64_t tile = (blockIdx.x - s.first_tile) * kTile;
  for (int64_t at = tile + static_cast<int>(threadIdx.x) * kEach; at < tile + kTile;
       at += kAtOnce) {
    const int64_t block = at / kStateBlock4;
    float p[kEach], g[kEach], m[kEach], v[kEach];
    if constexpr (Narrow<Segment>) {
      LoadStep(s, at, p, g);
    } else {
      LoadFours(s.p + at, p);
      LoadFours(s.g + at, g);
    }
    const unsigned m_codes = *reinterpret_cast<const uint32_t*>(s.m_codes + at / 2);
    const unsigned v_codes = *reinterpret_cast<const uint32_t*>(s.v_codes + at / 2);
    const float book = mine * s.m_scales[block], part = s.v_scales[block] * (1.0f / 16);
    for (int i = 0; i < kEach; ++i) {
      m[i] = __shfl_sync(kWholeWarp, book, half | static_cast<int>(m_codes >> (4 * i) & 15u));
      v[i] = OneAndCode(v_codes >> (4 * i) & 15u) * part;
    }
    for (int i = 0; i < kEach; ++i) AdamWElement(p[i], g[i], m[i], v[i], c);
    if constexpr (Narrow<Segment>) {
      StoreStep(s, at, p);
    } else {
      StoreFours(s.p + at, p);
    }
    const BlockScales of_m = ScalesOfHalfWarp(m), of_v = ScalesOfHalfWarp(v);
    unsigned new_m = 0, new_v = 0;
    for (int i = 0; i < kEach; ++i) {
      new_m |= SignedCode(m[i] * of_m.inverse, cells) << (4 * i);
      new_v |= LinearCode(v[i] * of_v.inverse) << (4 * i);
    }
    *reinterpret_cast<uint32_t*>(s.m_codes + at / 2) = new_m;
    *reinterpret_cast<uint32_t*>(s.v_codes + at / 2) = new_v;
    if ((lane & 15) == 0) {
      s.m_scales[block] = of_m.scale;
      s.v_scales[block] = of_v.scale;
    }
  }
}

}  // namespace tw::kernels::device
