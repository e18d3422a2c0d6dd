// Run under mpirun: the verbs on MPI give what the thread communicator's tests ask for, and the
// exchanges give the thread group's bits. Prints what is wrong and exits with 1.

#include <cstdio>
#include <cstring>

#include "comm/mpi/mpi_communicator.h"
#include "comm/mpi/mpi_session.h"
#include "tests/comm/exchange_runner.h"
#include "tests/comm/fake_codecs.h"
#include "tests/comm/thread_group.h"
#include "tests/comm/verb_checks.h"

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
  }
  CheckBytesSent(comm);
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
