#include <nccl.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "tests/comm/nccl/fake_gpu.h"
#include "tests/comm/nccl/fake_stream.h"

namespace tw::fake_gpu {

void ResetRuntime(int num_devices);  // fake_cudart.cc

namespace {

struct Letter {
  const uint8_t* data;
  size_t bytes;
  bool taken = false;
};

// What the ranks of one communicator share.
struct Hub {
  int size = 0, num_arrived = 0;
  // Sent and not yet taken, by (from, to, collective or not).
  std::map<std::array<int, 3>, std::deque<std::shared_ptr<Letter>>> mail;
};

std::mutex mutex;  // of all below and of every hub
std::condition_variable changed;
Faults faults;
std::map<uint64_t, std::shared_ptr<Hub>> hubs;
uint64_t next_id = 1;
std::vector<int> failed_ranks;
std::atomic<int> live = 0, aborted = 0, mismatched = 0;

struct Transfer {
  uint8_t* data;
  size_t bytes;
  int peer;
  bool send, collective;
};

struct Pending {
  ncclComm_t comm;
  cudaStream_t stream;
  std::vector<Transfer> transfers;
  std::function<void()> then = {};  // when all have ended
};

}  // namespace
}  // namespace tw::fake_gpu

struct ncclComm {
  std::shared_ptr<tw::fake_gpu::Hub> hub;
  int rank = 0;
  bool hung = false, stopped = false;
  int polls_left = 0;
  int num_on_stream = 0;
  std::deque<tw::fake_gpu::Pending> calls;  // not yet taken in
};

namespace tw::fake_gpu {
namespace {

thread_local int group_depth = 0;
thread_local std::vector<Pending> group;

// Runs in the stream's thread, as a kernel does on a device.
void Exchange(ncclComm* comm, const std::vector<Transfer>& transfers,
              const std::function<void()>& then) {
  std::unique_lock<std::mutex> lock(mutex);
  if (comm->rank == faults.stuck) changed.wait(lock, [&] { return comm->stopped; });
  std::vector<std::shared_ptr<Letter>> sent;
  for (const Transfer& t : transfers) {
    if (!t.send || comm->stopped) continue;
    sent.push_back(std::make_shared<Letter>(Letter{t.data, t.bytes}));
    comm->hub->mail[{comm->rank, t.peer, t.collective}].push_back(sent.back());
  }
  changed.notify_all();
  for (const Transfer& t : transfers) {
    if (t.send) continue;
    auto& mail = comm->hub->mail[{t.peer, comm->rank, t.collective}];
    changed.wait(lock, [&] { return comm->stopped || !mail.empty(); });
    if (comm->stopped) break;
    const auto letter = mail.front();
    mail.pop_front();
    if (letter->bytes != t.bytes) ++mismatched;
    std::memcpy(t.data, letter->data, std::min(letter->bytes, t.bytes));
    letter->taken = true;
    changed.notify_all();
  }
  const auto all_taken = [&] {
    return std::all_of(sent.begin(), sent.end(), [](const auto& letter) { return letter->taken; });
  };
  changed.wait(lock, [&] { return comm->stopped || all_taken(); });
  if (then && !comm->stopped) then();
  // A stopped rank's buffers go away.
  for (auto& [route, mail] : comm->hub->mail) {
    if (comm->stopped && route[0] == comm->rank) mail.clear();
  }
  --comm->num_on_stream;
  changed.notify_all();
}

ncclResult_t Submit(std::vector<Pending> calls) {
  std::lock_guard<std::mutex> lock(mutex);
  if (calls.empty()) return ncclSuccess;
  for (Pending& call : calls) {
    call.comm->polls_left = faults.polls_in_progress;
    call.comm->calls.push_back(std::move(call));
  }
  return ncclInProgress;
}

ncclResult_t Add(ncclComm_t comm, cudaStream_t stream, const std::vector<Transfer>& transfers,
                 const std::function<void()>& then = {}) {
  {
    // As NCCL: nothing new while a call is in progress.
    std::lock_guard<std::mutex> lock(mutex);
    if (comm->polls_left > 0 || !comm->calls.empty()) return ncclInvalidUsage;
  }
  auto it =
      std::find_if(group.begin(), group.end(), [&](const Pending& p) { return p.comm == comm; });
  if (it == group.end()) it = group.insert(group.end(), {comm, stream, {}});
  if (then) it->then = then;
  it->transfers.insert(it->transfers.end(), transfers.begin(), transfers.end());
  if (group_depth > 0) return ncclSuccess;
  return Submit(std::exchange(group, {}));
}

// out <- the sum of n parts that lie one behind the other.
template <class T>
void AddBackwards(const std::vector<uint8_t>& parts, size_t n, void* out) {
  const T* from = reinterpret_cast<const T*>(parts.data());
  T* const to = static_cast<T*>(out);
  const size_t count = parts.size() / sizeof(T) / n;
  for (size_t i = 0; i < count; ++i) {
    to[i] = 0;
    for (size_t r = n; r-- > 0;) to[i] += from[r * count + i];
  }
}

}  // namespace

void Reset(const Faults& wanted) {
  std::lock_guard<std::mutex> lock(mutex);
  faults = wanted;
  ResetRuntime(faults.num_devices);
  hubs.clear();
  failed_ranks.clear();
  aborted = mismatched = 0;
  changed.notify_all();
}
void FailAsync(int rank) {
  std::lock_guard<std::mutex> lock(mutex);
  failed_ranks.push_back(rank);
}
int LiveCommunicators() { return live; }
int NumAborted() { return aborted; }
int NumMismatched() { return mismatched; }

}  // namespace tw::fake_gpu

using namespace tw::fake_gpu;  // NOLINT: this file is that namespace

extern "C" {

const char* ncclGetErrorString(ncclResult_t code) {
  return code == ncclRemoteError ? "remote process exited or there was a network error"
                                 : "fake error";
}
const char* ncclGetLastError(ncclComm_t) { return ""; }

ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  std::lock_guard<std::mutex> lock(mutex);
  std::memset(id, 0, sizeof(*id));
  std::memcpy(id, &next_id, sizeof(next_id));
  ++next_id;
  return ncclSuccess;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t* comm, int size, ncclUniqueId id, int rank,
                                    ncclConfig_t* config) {
  if (config->blocking != 0) return ncclInvalidUsage;
  std::lock_guard<std::mutex> lock(mutex);
  if (rank == faults.init_fails_on) return ncclSystemError;
  uint64_t key = 0;
  std::memcpy(&key, &id, sizeof(key));
  auto& hub = hubs[key];
  if (!hub) hub = std::make_shared<Hub>();
  hub->size = size;
  *comm = new ncclComm{hub, rank};
  ++live;
  (*comm)->hung = rank == faults.init_hangs_on;
  if (!(*comm)->hung) ++hub->num_arrived;
  return ncclInProgress;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t* state) {
  std::lock_guard<std::mutex> lock(mutex);
  *state = ncclInProgress;
  if (std::count(failed_ranks.begin(), failed_ranks.end(), comm->rank)) {
    *state = ncclRemoteError;
    return ncclSuccess;
  }
  if (comm->hub->num_arrived < comm->hub->size || --comm->polls_left > 0) return ncclSuccess;
  comm->polls_left = 0;
  while (!comm->calls.empty()) {
    ++comm->num_on_stream;
    const Pending call = std::move(comm->calls.front());
    comm->calls.pop_front();
    call.stream->Push([comm, call] { Exchange(comm, call.transfers, call.then); });
  }
  *state = ncclSuccess;
  return ncclSuccess;
}

ncclResult_t ncclCommFinalize(ncclComm_t) { return ncclInProgress; }

ncclResult_t ncclCommDestroy(ncclComm_t comm) {
  std::unique_lock<std::mutex> lock(mutex);
  changed.wait(lock, [&] { return comm->num_on_stream == 0; });
  delete comm;
  --live;
  return ncclSuccess;
}

ncclResult_t ncclCommAbort(ncclComm_t comm) {
  std::unique_lock<std::mutex> lock(mutex);
  ++aborted;
  if (faults.abort_hangs) changed.wait(lock, [] { return !faults.abort_hangs; });
  comm->stopped = true;
  changed.notify_all();
  changed.wait(lock, [&] { return comm->num_on_stream == 0; });
  delete comm;
  --live;
  return ncclSuccess;
}

ncclResult_t ncclGroupStart() {
  ++group_depth;
  return ncclSuccess;
}
ncclResult_t ncclGroupEnd() {
  if (--group_depth > 0) return ncclSuccess;
  return Submit(std::exchange(group, {}));
}

ncclResult_t ncclSend(const void* data, size_t count, ncclDataType_t, int peer, ncclComm_t comm,
                      cudaStream_t stream) {
  uint8_t* bytes = static_cast<uint8_t*>(const_cast<void*>(data));
  return Add(comm, stream, {{bytes, count, peer, true, false}});
}
ncclResult_t ncclRecv(void* data, size_t count, ncclDataType_t, int peer, ncclComm_t comm,
                      cudaStream_t stream) {
  return Add(comm, stream, {{static_cast<uint8_t*>(data), count, peer, false, false}});
}

// As sends and receives, this rank's own part among them.
ncclResult_t ncclAllGather(const void* send, void* recv, size_t count, ncclDataType_t,
                           ncclComm_t comm, cudaStream_t stream) {
  std::vector<Transfer> transfers;
  for (int r = 0; r < comm->hub->size; ++r) {
    const size_t begin = static_cast<size_t>(r) * count;
    uint8_t* to = static_cast<uint8_t*>(recv) + begin;
    uint8_t* from = static_cast<uint8_t*>(const_cast<void*>(send));
    if (r == comm->rank && from == to) continue;
    transfers.push_back({from, count, r, true, true});
    transfers.push_back({to, count, r, false, true});
  }
  return Add(comm, stream, transfers);
}
ncclResult_t ncclBroadcast(const void*, void* recv, size_t count, ncclDataType_t, int root,
                           ncclComm_t comm, cudaStream_t stream) {
  std::vector<Transfer> transfers;
  uint8_t* bytes = static_cast<uint8_t*>(recv);
  for (int r = 0; r < comm->hub->size && comm->rank == root; ++r) {
    if (r != root) transfers.push_back({bytes, count, r, true, true});
  }
  if (comm->rank != root) transfers.push_back({bytes, count, root, false, true});
  return Add(comm, stream, transfers);
}

// Everybody's numbers to everybody, added from the last rank to the first: an order of its own.
ncclResult_t ncclAllReduce(const void* send, void* recv, size_t count, ncclDataType_t type,
                           ncclRedOp_t op, ncclComm_t comm, cudaStream_t stream) {
  if (send != recv || op != ncclSum) return ncclInvalidUsage;
  if (type != ncclFloat32 && type != ncclFloat64) return ncclInvalidUsage;
  const size_t bytes = count * (type == ncclFloat32 ? sizeof(float) : sizeof(double));
  const size_t n = static_cast<size_t>(comm->hub->size), me = static_cast<size_t>(comm->rank);
  const auto parts = std::make_shared<std::vector<uint8_t>>(n * bytes);
  std::vector<Transfer> transfers;
  for (size_t r = 0; r < n; ++r) {
    if (r == me) continue;
    transfers.push_back({static_cast<uint8_t*>(recv), bytes, static_cast<int>(r), true, true});
    transfers.push_back({parts->data() + r * bytes, bytes, static_cast<int>(r), false, true});
  }
  return Add(comm, stream, transfers, [=] {
    std::memcpy(parts->data() + me * bytes, recv, bytes);
    if (type == ncclFloat32) {
      AddBackwards<float>(*parts, n, recv);
    } else {
      AddBackwards<double>(*parts, n, recv);
    }
  });
}

}  // extern "C"
