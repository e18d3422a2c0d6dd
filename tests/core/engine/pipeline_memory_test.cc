// What the way from a gradient to its estimate takes from the heap.

#include <ATen/core/Tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <atomic>
#include <barrier>
#include <cstdlib>
#include <new>

#include "core/engine/tensor_memory.h"
#include "tests/core/engine/reducer_rank.h"

namespace {

std::atomic<bool> counting = false;
std::atomic<int64_t> allocations = 0;
std::atomic<size_t> largest = 0;

}  // namespace

// The program's own: every thread's, the lanes' among them.
void* operator new(size_t bytes) {
  if (counting.load(std::memory_order_relaxed)) {
    ++allocations;
    size_t most = largest.load();
    while (bytes > most && !largest.compare_exchange_weak(most, bytes)) {
    }
  }
  if (void* p = std::malloc(bytes ? bytes : 1)) return p;
  throw std::bad_alloc();
}
void operator delete(void* p) noexcept { std::free(p); }
void operator delete(void* p, size_t) noexcept { std::free(p); }

namespace tw {
namespace {

constexpr int64_t kRows = 128, kCols = 256, kParameters = 12;
constexpr int64_t kParameterBytes = 4 * kRows * kCols;
constexpr int64_t kCap = 2 * kParameterBytes;  // six buckets
constexpr int64_t kInFlight = 2;               // the lane's default

struct Heap {
  int64_t allocations = 0;
  size_t largest = 0;
  int64_t tensor_bytes = 0;
  int64_t scratch_bytes = 0, payload_bytes = 0;
};

GradientReducer::NamedTensors Parameters() {
  GradientReducer::NamedTensors out;
  for (int64_t i = 0; i < kParameters; ++i) {
    out.emplace_back("blocks." + std::to_string(i) + ".a_long_name.weight",
                     at::zeros({kRows, kCols}).requires_grad_());
  }
  return out;
}

// Of rank 0, but for `allocations` and `largest`: those of all ranks in one step, the fourth.
Heap Measure(int n, const ReducerSetup& setup) {
  InstallTensorMemoryCounter();
  Heap heap;
  std::barrier together(n);
  RunRanks(n, [&](Communicator& comm) {
    ReducerRank rank(comm, setup, Parameters());
    std::vector<at::Tensor> gradients;
    std::vector<TensorView> views;
    for (int64_t i = 0; i < kParameters; ++i) {
      gradients.push_back(Numbers({kRows, kCols}, static_cast<uint64_t>(i), 1.0));
      views.push_back(ViewOf(gradients.back()));
    }
    ReduceOutcome outcome;
    double sums[] = {1.0};
    for (uint64_t step = 0; step < 4; ++step) {
      together.arrive_and_wait();
      if (step == 3 && comm.rank() == 0) {
        ResetPeakTensorBytes();
        heap.tensor_bytes = -LiveTensorBytes();
        allocations = 0;
        largest = 0;
        counting = true;
      }
      together.arrive_and_wait();
      auto reduced = rank.reducer->Exchange(step, views, sums);
      TW_CHECK_OK(reduced);
      outcome = *reduced;
      together.arrive_and_wait();
      counting = false;
    }
    if (comm.rank() != 0) return;
    heap.tensor_bytes += PeakTensorBytes();
    heap.allocations = allocations;
    heap.largest = largest;
    heap.scratch_bytes = rank.reducer->scratch_bytes();
    heap.payload_bytes = outcome.times.payload_bytes;
  });
  return heap;
}

const std::vector<ReducerSetup>& Setups() {
  static const auto* setups =
      new std::vector<ReducerSetup>{{"none", "none", {}, kCap},
                                    {"bf16", "none", {}, kCap},
                                    {"topk", "ef14", {{"ratio", 0.01}}, kCap},
                                    {"blockquant", "ef14", {{"bits", int64_t{4}}}, kCap},
                                    {"powersgd", "ef14", {{"rank", int64_t{4}}}, kCap},
                                    {"sign", "ef14", {}, kCap}};
  return *setups;
}

TEST(PipelineMemory, NoTensorIsMadeAndNothingLargeIsAllocatedAfterTheFirstSteps) {
  for (const ReducerSetup& setup : Setups()) {
    for (const int n : {1, 3}) {
      const Heap heap = Measure(n, setup);
      EXPECT_EQ(heap.tensor_bytes, 0) << setup.compressor << " at " << n << " ranks";
      // Tickets of threads, closures, shapes of slots: small, and so many a parameter at most.
      EXPECT_LE(heap.largest, 2048u) << setup.compressor << " at " << n << " ranks";
      EXPECT_LE(heap.allocations, n * kParameters * 12) << setup.compressor;
    }
  }
}

// Beside the gradients themselves: for each bucket under way what is encoded, what arrives, and at
// most a bucket of fp32 to add in.
TEST(PipelineMemory, BuffersAreTwoBucketsAndThePayloads) {
  for (const ReducerSetup& setup : Setups()) {
    for (const int n : {1, 2, 4}) {
      const Heap heap = Measure(n, setup);
      const int64_t payload = heap.payload_bytes * kCap / (kParameters * kParameterBytes);
      // Dense gradients are not encoded: what arrives is all.
      const int64_t in_flight = setup.compressor == "none" ? payload : payload * (n + 1);
      EXPECT_LE(heap.scratch_bytes, kInFlight * (kCap + in_flight + 64 * 1024))
          << setup.compressor << " at " << n << " ranks, payload of a bucket " << payload;
      if (n > 1) {  // one rank sends nothing dense
        EXPECT_GT(heap.payload_bytes, 0);
      }
    }
  }
}

}  // namespace
}  // namespace tw
