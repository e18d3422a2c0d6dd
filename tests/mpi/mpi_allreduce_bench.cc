// Run under mpirun by hand: milliseconds of the sum exchange against MPI_Allreduce on fp32.
//   mpirun -np 2 mpi_allreduce_bench

#include <mpi.h>

#include <algorithm>
#include <cstdio>

#include "comm/mpi/mpi_session.h"
#include "core/base/clock.h"
#include "tests/comm/fake_codecs.h"

namespace tw {
namespace {

constexpr int kRuns = 21;

double Median(std::vector<double> ms) {
  std::nth_element(ms.begin(), ms.begin() + kRuns / 2, ms.end());
  return ms[kRuns / 2];
}

template <class F>
double Time(Communicator& comm, F&& run) {
  std::vector<double> ms;
  for (int i = 0; i < kRuns + 2; ++i) {
    TW_CHECK_OK(comm.Barrier({}));
    const double start = NowMs();
    run();
    if (i >= 2) ms.push_back(NowMs() - start);
  }
  return Median(std::move(ms));
}

int Main() {
  auto session = MpiSession::Init(60);
  TW_CHECK_OK(session);
  Communicator& comm = (*session)->communicator();
  for (const int64_t megabytes : {1, 10, 40}) {
    const TensorSpec spec{0, "w", {megabytes * 250000}, DType::kF32};
    std::vector<float> send(static_cast<size_t>(spec.numel()), 1.0f), mean(send.size());
    const RawCodec codec;
    Workspace scratch;
    double exchange_ms = 0, add_ms = 0;
    const double ours = Time(comm, [&] {
      ExchangeTimes times;
      Segment segment{&codec, {.spec = &spec, .scratch = &scratch}, 1, {}, {}};
      segment.body = ViewOf(send).mutable_raw();
      // An earlier round: sums only, as MPI_Allreduce gives.
      TW_CHECK_OK(FindExchange(Merge::kSum)
                      ->Run({&segment, 1}, segment.body, 0, false, {}, comm, scratch, &times));
      exchange_ms = times.exchange_ms, add_ms = times.decode_ms;
    });
    const double theirs = Time(comm, [&] {
      MPI_Allreduce(send.data(), mean.data(), static_cast<int>(send.size()), MPI_FLOAT, MPI_SUM,
                    MPI_COMM_WORLD);
    });
    if (comm.rank() == 0) {
      std::printf(
          "%d ranks, %3d MB: sum exchange %7.2f ms (last: moving %.2f, adding %.2f), "
          "MPI_Allreduce %7.2f ms\n",
          comm.size(), static_cast<int>(megabytes), ours, exchange_ms, add_ms, theirs);
    }
  }
  (*session)->Finalize();
  return 0;
}

}  // namespace
}  // namespace tw

int main() { return tw::Main(); }
