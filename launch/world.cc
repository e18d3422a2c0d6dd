#include "launch/world.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <utility>

#include "comm/mpi/mpi_session.h"
#include "comm/staged_communicator.h"
#include "comm/thread_communicator.h"
#include "core/engine/agree.h"
#include "launch/choose_device.h"

namespace tw {
namespace {

int EnvInt(const char* name, int fallback) {
  const char* text = std::getenv(name);
  return text && *text ? std::atoi(text) : fallback;
}

std::string HostName() {
  char name[256] = "localhost";
  ::gethostname(name, sizeof(name) - 1);
  return name;
}

class ThreadWorld : public World {
 public:
  ThreadWorld(double timeout_s, int concurrent_buckets)
      : World(concurrent_buckets), group_(MakeThreadGroup(1, timeout_s)) {}
  ~ThreadWorld() override { CloseLane(); }  // it uses comm()
  Communicator& comm() override { return *group_[0]; }
  int local_rank() const override { return 0; }
  int local_size() const override { return 1; }
  int first_here() const override { return 0; }
  std::string host() const override { return HostName(); }
  void Close() override { CloseLane(); }

 private:
  std::vector<std::unique_ptr<Communicator>> group_;
};

class MpiWorld : public World {
 public:
  MpiWorld(std::unique_ptr<MpiSession> session, int concurrent_buckets)
      : World(concurrent_buckets), session_(std::move(session)) {}
  ~MpiWorld() override { CloseLane(); }  // it uses comm()
  Communicator& comm() override { return session_->communicator(); }
  int local_rank() const override { return session_->place().local_rank; }
  int local_size() const override { return session_->place().local_size; }
  int first_here() const override { return session_->place().first_here; }
  std::string host() const override { return session_->place().host; }
  void Close() override {
    CloseLane();
    session_->Finalize();
  }

 private:
  std::unique_ptr<MpiSession> session_;
};

}  // namespace

LauncherHint ReadLauncher() {
  LauncherHint hint;
  for (const char* name : {"OMPI_COMM_WORLD", "PMIX", "PMI"}) {
    const std::string prefix = name;
    const int rank = EnvInt((prefix + "_RANK").c_str(), -1);
    if (rank < 0) continue;
    hint.rank = rank;
    hint.size = EnvInt((prefix + "_SIZE").c_str(), 1);
    hint.mpi = true;
    return hint;
  }
  return hint;
}

StatusOr<std::unique_ptr<World>> World::Open(const std::string& backend, double timeout_s,
                                             int concurrent_buckets) {
  const LauncherHint hint = ReadLauncher();
  const bool mpi = backend == "mpi" || (backend != "thread" && hint.mpi);
  if (!mpi) {
    if (hint.size > 1) {
      return ConfigError("comm.backend = \"thread\" is one rank, but the launcher started " +
                         std::to_string(hint.size) + "; use comm.backend = \"auto\" or \"mpi\"");
    }
    if (!hint.mpi && EnvInt("SLURM_NTASKS", 1) > 1 && std::getenv("SLURM_STEP_ID")) {
      return ConfigError("SLURM started " + std::to_string(EnvInt("SLURM_NTASKS", 1)) +
                         " tasks that do not know each other; start them with: srun --mpi=pmix");
    }
    return std::make_unique<ThreadWorld>(timeout_s, concurrent_buckets);
  }
  TW_ASSIGN_OR_RETURN(auto session, MpiSession::Init(timeout_s, hint.rank));
  return std::make_unique<MpiWorld>(std::move(session), concurrent_buckets);
}

Status World::OpenDevice(const DeviceModule& devices, int number, const std::string& backend,
                         double timeout_s) {
  const CudaModule* const module = devices.module;
  Status mine;
  if (!module) {
    mine = DataError("no GPU to use: " + devices.reason);
  } else if (backend == "nccl" && !module->make_nccl) {
    mine = DataError("the module was " + std::string(module->nccl) +
                     ", which comm.backend = nccl needs");
  } else {
    auto opened = OpenBesideTensors(*module, number);
    mine = opened.status();
    if (opened.ok()) opened_ = std::move(*opened);
  }
  Status all = AgreeOn(mine);
  const bool nccl =
      all.ok() && (backend == "nccl" || (backend != "mpi" && size() > 1 && module->make_nccl));
  if (all.ok()) {
    device_number_ = number;
    lane_->UseDevice(opened_.lane.get());
  }
  if (nccl) {
    Status status;
    all = lane_->Run([&] {
      auto made = module->make_nccl({.device = number,
                                     .timeout_s = timeout_s,
                                     .same_order = concurrent_buckets_ == 1,
                                     .producer = opened_.lane_stream},
                                    comm());
      status = made.status();
      if (made.ok()) device_comm_ = std::move(*made);
      return OkStatus();
    });
    if (all.ok()) all = AgreeOn(status);
  } else if (all.ok()) {
    device_comm_ = MakeStagedCommunicator(comm(), *opened_.lane);
  }
  // A job that ends by a peer's fault waits for nothing.
  if (!all.ok() && FaultOf(all) != Fault::kPeer) CloseDevice();
  return all;
}

// Queues free memory of the device's: it goes last, as in OpenedDevice's destructor, and not first,
// as it would when `{}` is assigned.
void World::CloseDevice() {
  if (lane_) lane_->UseDevice(nullptr);
  device_comm_.reset();
  device_number_ = -1;
  const OpenedDevice gone = std::exchange(opened_, {});
}

RunDevice World::device() const {
  return {opened_.memory.get(), opened_.training.get(), opened_.lane.get()};
}

void World::CloseLane() {
  lane_.reset();
  CloseDevice();
}

int DefaultThreads(int ranks_here) {
  const int asked = EnvInt("OMP_NUM_THREADS", 0);
  if (asked > 0) return asked;
  const int cores = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  return std::max(1, cores / ranks_here);
}

Status World::AgreeOn(const Status& mine) {
  // The lane ends with the first error it meets, and what ranks agree on may be one to go on after.
  Status verdict;
  TW_RETURN_IF_ERROR(lane_->Run([&] {
    verdict = AgreeStatus(comm(), mine, {0, -1, "agreement"});
    return size() > 1 && FaultOf(verdict) == Fault::kPeer ? verdict : OkStatus();
  }));
  return verdict;
}

void EndJob(World& world, const Status& status) {
  const int wait = std::min(world.rank(), 8);
  std::this_thread::sleep_for(std::chrono::milliseconds(400 * wait));
  const std::string line(status.message());
  // What ranks agreed on names its rank already.
  const bool named = world.size() == 1 || line.rfind("rank ", 0) == 0;
  std::fprintf(stderr, "tightwire: %s%s\n",
               named ? "" : ("rank " + std::to_string(world.rank()) + ": ").c_str(), line.c_str());
  std::fflush(stderr);
  if (world.size() == 1) std::_Exit(ExitCode(status));
  world.comm().Abort(ExitCode(status));
  std::abort();  // not reached
}

}  // namespace tw
