// That the emulation does what kernels count on, and notices what they must not do.
#include "core/kernels/launch.cuh"
#include "gtest/gtest.h"

namespace tw {
namespace {

using kernels::device::kWholeWarp;
using kernels::device::SumAcrossWarp;

void RunThreads(unsigned blocks, unsigned threads, const std::function<void()>& body) {
  emulation::Launch(blocks, threads, body);
}

TEST(Emulation, EveryThreadOfEveryBlockRunsOnce) {
  std::vector<int> seen(3 * 70);
  RunThreads(3, 70, [&] { ++seen[blockIdx.x * blockDim.x + threadIdx.x]; });
  EXPECT_EQ(seen, std::vector<int>(3 * 70, 1));
}

TEST(Emulation, ABarrierSeparatesWritesFromReads) {
  static int shared[64];
  std::vector<int> got(64);
  RunThreads(1, 64, [&] {
    shared[threadIdx.x] = static_cast<int>(threadIdx.x);
    __syncthreads();
    got[threadIdx.x] = shared[63 - threadIdx.x];
  });
  for (int i = 0; i < 64; ++i) EXPECT_EQ(got[static_cast<size_t>(i)], 63 - i);
}

TEST(Emulation, ARaceDependsOnTheSeed) {
  const auto last_of = [](uint64_t seed) {
    emulation::SetSeed(seed);
    unsigned last = 0;
    RunThreads(1, 64, [&] { last = threadIdx.x; });
    return last;
  };
  std::vector<unsigned> lasts;
  for (uint64_t seed = 0; seed < 8; ++seed) lasts.push_back(last_of(seed));
  EXPECT_NE(std::count(lasts.begin(), lasts.end(), lasts[0]), 8);
  EXPECT_EQ(last_of(3), lasts[3]);
}

TEST(Emulation, LanesExchangeAndVote) {
  RunThreads(1, 64, [] {
    const int lane = static_cast<int>(threadIdx.x % 32);
    EXPECT_EQ(__shfl_sync(kWholeWarp, lane, 5), 5);
    EXPECT_EQ(__shfl_xor_sync(kWholeWarp, lane, 3), lane ^ 3);
    EXPECT_EQ(__shfl_up_sync(kWholeWarp, lane, 4), lane < 4 ? lane : lane - 4);
    EXPECT_EQ(__shfl_down_sync(kWholeWarp, 2.0 * lane, 1), 2.0 * (lane < 31 ? lane + 1 : 31));
    EXPECT_EQ(__ballot_sync(kWholeWarp, lane % 2 == 1), 0xAAAAAAAAu);
    EXPECT_EQ(SumAcrossWarp(lane), 31 * 16);
    if (lane < 8) {
      EXPECT_EQ(__ballot_sync(0xFFu, true), 0xFFu);
    }
  });
}

TEST(Emulation, ABarrierThatNotAllReachIsAnError) {
  const auto half = [] {
    if (threadIdx.x < 16) __syncthreads();
  };
  EXPECT_THROW(RunThreads(1, 32, half), emulation::DivergenceError);
  const auto two_places = [] {
    if (threadIdx.x < 32) {
      __syncthreads();
    } else {
      __syncthreads();
    }
  };
  EXPECT_THROW(RunThreads(1, 64, two_places), emulation::DivergenceError);
  const auto lane_missing = [] {
    if (threadIdx.x != 7) SumAcrossWarp(1);
  };
  EXPECT_THROW(RunThreads(1, 32, lane_missing), emulation::DivergenceError);
  const auto one_in_the_way = [] {
    if (threadIdx.x == 0) {
      __syncwarp();
    } else {
      __syncthreads();
    }
  };
  EXPECT_THROW(RunThreads(1, 32, one_in_the_way), emulation::DivergenceError);
  int ran = 0;
  RunThreads(1, 32, [&] { ++ran; });  // and the next launch is as ever
  EXPECT_EQ(ran, 32);
}

__global__ void ReadShared(uint32_t* out) {
  __shared__ uint32_t never_written[1];
  *out = never_written[0];
  never_written[0] = 0;
}

TEST(Emulation, SharedMemoryComesWithNoiseInIt) {
  uint32_t got = 0;
  kernels::device::Launch(ReadShared, 2, 1, nullptr, &got);
  EXPECT_NE(got, 0u);
}

}  // namespace
}  // namespace tw
