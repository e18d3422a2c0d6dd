// Run under mpirun: the verbs on MPI give what the thread communicator's tests ask for, and the
// exchanges give the thread group's bits. Prints what is wrong and exits with 1.

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>

#include "comm/mpi/mpi_communicator.h"
#include "comm/mpi/mpi_session.h"
#include "comm/staged_communicator.h"
#include "tests/comm/exchange_runner.h"
#include "tests/comm/fake_codecs.h"
#include "tests/comm/slow_queue.h"
#include "tests/comm/thread_group.h"
#include "tests/comm/verb_checks.h"

namespace {

std::atomic<bool> counting = false;
std::atomic<int> allocations = 0;

}  // namespace

[[gnu::noinline]] void* operator new(size_t bytes) {
  if (counting.load(std::memory_order_relaxed)) ++allocations;
  if (void* p = std::malloc(bytes ? bytes : 1)) return p;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* p) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, size_t) noexcept { std::free(p); }

namespace tw {
namespace {

int failures = 0;

void Expect(bool ok, const Communicator& comm, const std::string& what) {
  if (ok) return;
  std::fprintf(stderr, "rank %d of %d: %s\n", comm.rank(), comm.size(), what.c_str());
  ++failures;
}

void CheckExchange(Communicator& comm, const Compressor& codec, Merge merge) {
  std::vector<TensorSpec> specs;
  for (const int64_t numel : {1, 0, 3, 130, 40007, 7}) {
    specs.push_back(TestSpec(static_cast<uint32_t>(specs.size()), {numel}));
  }
  std::vector<std::vector<float>> expected;
  RunRanks(comm.size(), [&](Communicator& thread) {
    ExchangeRunner runner(thread);
    auto means = runner.Run(specs, codec, merge);
    TW_CHECK_OK(means);
    if (thread.rank() == 0) expected = std::move(*means);
  });
  ExchangeRunner runner(comm);
  const auto found = runner.Run(specs, codec, merge);
  Expect(found.ok(), comm, std::string(found.status().message()));
  Expect(found.ok() && *found == expected, comm,
         std::string(MergeName(merge)) + ": other bits than on threads");
}

void CheckBytesSent(Communicator& comm) {
  const int n = comm.size();
  const std::vector<int64_t> sizes(static_cast<size_t>(n), 10);
  std::vector<uint8_t> mine(10), all(static_cast<size_t>(10 * n)), received(all.size());
  const int64_t before = comm.bytes_sent();
  TW_CHECK_OK(comm.AllGatherV(mine, sizes, all, {}));
  TW_CHECK_OK(comm.AllToAllV(all, sizes, received, sizes, {}));
  Expect(comm.bytes_sent() - before == 2 * 10 * (n - 1), comm, "bytes_sent miscounts");
}

// MPI's own sums, of buckets that every rank starts in another order.
void CheckOwnSums(Communicator& comm, const std::string& where) {
  constexpr int kBuckets = 5;
  const int n = comm.size();
  for (int round = 0; round < 10; ++round) {
    std::vector<std::vector<float>> numbers(kBuckets);
    std::vector<std::unique_ptr<Ticket>> tickets(kBuckets);
    for (int i = 0; i < kBuckets; ++i) {
      const int b = (i * (comm.rank() + 1) + round) % kBuckets;  // 5 is prime
      const size_t at = static_cast<size_t>(b);
      numbers[at].assign(static_cast<size_t>(700 * b), static_cast<float>(b + comm.rank()));
      tickets[at] = comm.StartOwnSum(ViewOf(numbers[at]).mutable_raw(), DType::kF32,
                                     {1, static_cast<int32_t>(b), "all-reduce"});
    }
    for (int b = 0; b < kBuckets; ++b) {
      const size_t at = static_cast<size_t>(b);
      TW_CHECK_OK(tickets[at]->Wait());
      const float sum = static_cast<float>(n * b + n * (n - 1) / 2);
      for (const float x : numbers[at]) {
        if (x != sum) return Expect(false, comm, where + "own sum of bucket " + std::to_string(b));
      }
    }
  }
  double wide = comm.rank() + 0x1p-40;
  TW_CHECK_OK(
      comm.StartOwnSum({reinterpret_cast<uint8_t*>(&wide), sizeof(wide)}, DType::kF64, {})->Wait());
  Expect(wide == n * (n - 1) / 2 + n * 0x1p-40, comm, where + "own sum of fp64");
}

// The memory of an operation is that of earlier ones.
void CheckAllocations(Communicator& comm) {
  const size_t n = static_cast<size_t>(comm.size());
  constexpr size_t kPart = 600 << 10;  // travels in pieces
  const std::vector<int64_t> sizes(n, kPart);
  std::vector<uint8_t> mine(kPart), all(n * kPart), received(n * kPart), gathered(n * kPart);
  for (int turn = 0; turn < 6; ++turn) {
    counting = turn >= 3;
    auto first = comm.StartAllToAllV(all, sizes, received, sizes, {1, 0, "first"});
    auto second = comm.StartAllGatherV(mine, sizes, gathered, {1, 1, "second"});
    TW_CHECK_OK(second->Wait());
    TW_CHECK_OK(first->Wait());
    TW_CHECK_OK(comm.StartBroadcast(mine, comm.size() - 1, {1, 2, "third"})->Wait());
  }
  counting = false;
  Expect(allocations == 0, comm,
         std::to_string(allocations) + " allocations by operations like earlier ones");
}

int Main() {
  auto session = MpiSession::Init(20);
  TW_CHECK_OK(session);
  Communicator& comm = (*session)->communicator();
  SetProcessRank(comm.rank());
  const RankPlace& place = (*session)->place();
  Expect(place.rank == comm.rank() && place.size == comm.size(), comm, "place: wrong rank");
  Expect(place.local_rank == comm.rank() && place.local_size == comm.size() && !place.host.empty(),
         comm, "place: wrong local rank");

  const std::string wrong = CheckVerbs(comm);
  Expect(wrong.empty(), comm, wrong);
  {
    // Every part in pieces, the last one short.
    auto pieces = MakeMpiCommunicator({.timeout_s = 20, .max_message_bytes = 1000});
    TW_CHECK_OK(pieces);
    const std::string wrong_pieces = CheckVerbs(**pieces);
    Expect(wrong_pieces.empty(), comm, "in pieces: " + wrong_pieces);
    CheckOwnSums(**pieces, "in pieces: ");
    auto odd = (*pieces)->Split(comm.rank() % 2);
    TW_CHECK_OK(odd);
    CheckOwnSums(**odd, "a part's ranks: ");
  }
  CheckOwnSums(comm, "");
  {
    SlowQueue queue;
    const auto staged = MakeStagedCommunicator(comm, queue);
    const std::string wrong_staged = CheckVerbs(*staged);
    Expect(wrong_staged.empty(), comm, "staged: " + wrong_staged);
    CheckOwnSums(*staged, "staged: ");
    auto odd = staged->Split(comm.rank() % 2);
    TW_CHECK_OK(odd);
    CheckOwnSums(**odd, "a staged part's ranks: ");
  }
  CheckBytesSent(comm);
  CheckAllocations(comm);
  CheckExchange(comm, RawCodec(), Merge::kSum);
  CheckExchange(comm, NonzeroCodec(), Merge::kGather);
  CheckExchange(comm, ByteBlockCodec(), Merge::kReencode);
  CheckExchange(comm, NonzeroCodec(), Merge::kSparse);
  (*session)->Finalize();
  return failures ? 1 : 0;
}

}  // namespace
}  // namespace tw

int main() { return tw::Main(); }
