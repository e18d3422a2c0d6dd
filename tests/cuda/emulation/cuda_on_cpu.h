#pragma once
// CUDA's names for a C++ compiler, which includes this file before a .cu source (g++ -x c++
// -include): the very kernels that nvcc compiles then run on the CPU, in tests that need no GPU.
//
// Threads of a block are fibers that run in a shuffled order, one at a time, from one meeting
// (__syncthreads, __syncwarp, shuffles and votes of a warp) to the next; blocks run one after the
// other, shuffled too. Threads that race then see different orders under different seeds. A meeting
// that not all of those come to that it waits for ends the launch with DivergenceError: threads of
// a block at different barriers, a thread that has returned, lanes of a mask elsewhere. Shared
// memory is filled with noise before each block. What is missing does not compile.
//
// Launches are done when the call returns, on one thread of the program at a time; where a runtime
// is emulated too (runtime.h), its streams do them later, and any thread may launch.

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <source_location>
#include <stdexcept>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __constant__ const
// A section of its own, so that it can be filled. Kernels are in unnamed namespaces: their statics
// are never shared between object files.
#define __shared__ static __attribute__((section("tw_shared")))

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
extern dim3 threadIdx, blockIdx, blockDim, gridDim;

struct CUstream_st;
using cudaStream_t = CUstream_st*;
using cudaError_t = int;
inline constexpr cudaError_t cudaSuccess = 0;
cudaError_t cudaGetLastError();
const char* cudaGetErrorString(cudaError_t);
cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t stream);

namespace tw::emulation {

struct DivergenceError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Runs body() as every thread of every block. Throws DivergenceError.
void Launch(dim3 grid, dim3 block, const std::function<void()>& body);
// The same as work of a stream.
void Launch(dim3 grid, dim3 block, cudaStream_t stream, std::function<void()> body);

// Who does the work of streams; null: whoever launches, at once.
using Submit = void (*)(cudaStream_t stream, std::function<void()> work);
void SetSubmit(Submit submit);
// What an emulated runtime's other functions have left for cudaGetLastError on this thread.
using TakeError = cudaError_t (*)();
void SetTakeError(TakeError take);
// The launch after `others` more is not done, and is an error.
void FailLaunch(int64_t others = 0);

// From here on the order of threads and blocks is another one.
void SetSeed(uint64_t seed);
int64_t LaunchCount();

using Site = std::source_location;
void MeetBlock(Site at);
// Waits for the lanes of `mask`; returns what each of them brought, in the order of lanes. Lanes
// that are not of the mask bring noise.
const uint64_t* MeetWarp(unsigned mask, uint64_t brought, Site at);
int Lane();

template <class T>
uint64_t ToWord(T value) {
  static_assert(sizeof(T) <= 8);
  uint64_t word = 0;
  std::memcpy(&word, &value, sizeof(T));
  return word;
}
template <class T>
T FromWord(uint64_t word) {
  T value;
  std::memcpy(&value, &word, sizeof(T));
  return value;
}

}  // namespace tw::emulation

inline void __syncthreads(tw::emulation::Site at = tw::emulation::Site::current()) {
  tw::emulation::MeetBlock(at);
}
inline void __syncwarp(unsigned mask = 0xFFFFFFFFu,
                       tw::emulation::Site at = tw::emulation::Site::current()) {
  tw::emulation::MeetWarp(mask, 0, at);
}
template <class T>
T __shfl_sync(unsigned mask, T value, int lane,
              tw::emulation::Site at = tw::emulation::Site::current()) {
  return tw::emulation::FromWord<T>(
      tw::emulation::MeetWarp(mask, tw::emulation::ToWord(value), at)[lane & 31]);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lanes,
                  tw::emulation::Site at = tw::emulation::Site::current()) {
  return __shfl_sync(mask, value, tw::emulation::Lane() ^ lanes, at);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned distance,
                 tw::emulation::Site at = tw::emulation::Site::current()) {
  const int from = tw::emulation::Lane() - static_cast<int>(distance);
  return __shfl_sync(mask, value, from < 0 ? tw::emulation::Lane() : from, at);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned distance,
                   tw::emulation::Site at = tw::emulation::Site::current()) {
  const int from = tw::emulation::Lane() + static_cast<int>(distance);
  return __shfl_sync(mask, value, from > 31 ? tw::emulation::Lane() : from, at);
}
inline unsigned __ballot_sync(unsigned mask, bool vote,
                              tw::emulation::Site at = tw::emulation::Site::current()) {
  const uint64_t* votes = tw::emulation::MeetWarp(mask, vote, at);
  unsigned out = 0;
  for (unsigned lane = 0; lane < 32; ++lane) {
    if ((mask >> lane & 1) && votes[lane]) out |= 1u << lane;
  }
  return out;
}
inline bool __any_sync(unsigned mask, bool vote,
                       tw::emulation::Site at = tw::emulation::Site::current()) {
  return __ballot_sync(mask, vote, at) != 0;
}

template <class T>
T atomicAdd(T* at, std::type_identity_t<T> value) {
  const T old = *at;
  *at = old + value;
  return old;
}
template <class T>
T atomicMax(T* at, std::type_identity_t<T> value) {
  const T old = *at;
  *at = old < value ? value : old;
  return old;
}
template <class T>
T atomicOr(T* at, std::type_identity_t<T> value) {
  const T old = *at;
  *at = old | value;
  return old;
}

inline int __popc(unsigned x) { return std::popcount(x); }
inline int __popcll(unsigned long long x) { return std::popcount(x); }
inline int __clz(int x) { return std::countl_zero(static_cast<unsigned>(x)); }
inline int __ffs(int x) { return x ? std::countr_zero(static_cast<unsigned>(x)) + 1 : 0; }
inline unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>(uint64_t{a} * b >> 32);
}
inline uint64_t __umul64hi(uint64_t a, uint64_t b) {
  return static_cast<uint64_t>(static_cast<unsigned __int128>(a) * b >> 64);
}
inline float __fadd_ru(float a, float b) {  // rounds up
  const double exact = double{a} + double{b};
  const auto near = static_cast<float>(exact);
  return near < exact ? std::nextafter(near, std::numeric_limits<float>::infinity()) : near;
}
inline float __uint_as_float(unsigned bits) { return std::bit_cast<float>(bits); }
inline unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
