#pragma once
// World: this process's place among the ranks, its communicator and its lane thread. The only file
// that looks at a launcher's environment variables.

#include <memory>
#include <string>

#include "core/api/communicator.h"
#include "core/engine/lane.h"
#include "launch/device_module.h"
#include "launch/settings.h"

namespace tw {

// What a launcher says about this process, before MPI is up; {0, 1} without one.
struct LauncherHint {
  int rank = 0;
  int size = 1;
  bool mpi = false;  // started by something that MPI_Init can talk to
};
LauncherHint ReadLauncher();

class World {
 public:
  // backend auto, nccl: MPI under a launcher, one thread rank otherwise. SLURM_NTASKS > 1 without
  // PMIx is a ConfigError. So many buckets are under way at once on the lane.
  static StatusOr<std::unique_ptr<World>> Open(const std::string& backend, double timeout_s,
                                               int concurrent_buckets = 2);
  virtual ~World() = default;

  virtual Communicator& comm() = 0;
  // Takes GPU `number` of `devices`, which no other rank has; the lane works on it from here on.
  // Gradients then travel by NCCL, or with `backend` mpi, and with auto where one rank is all there
  // are or the module has no NCCL, by comm() behind pinned memory. Collective; after an error, the
  // same on every rank, there is none (after kPeer the job has to end).
  Status OpenDevice(const DeviceModule& devices, int number, const std::string& backend,
                    double timeout_s);
  // What OpenDevice has opened, if anything. REQUIRES: nothing that lies on it is left, and nothing
  // is under way.
  void CloseDevice();
  // All null without a device.
  RunDevice device() const;
  int device_number() const { return device_number_; }  // of the machine's; -1 without a device
  // What gradients travel by: comm(), or what carries memory of the device beside it.
  Communicator& gradient_comm() { return device_comm_ ? *device_comm_ : comm(); }
  virtual int local_rank() const = 0;
  virtual int local_size() const = 0;
  virtual int first_here() const = 0;  // lowest rank on this host
  virtual std::string host() const = 0;
  Lane& lane() { return *lane_; }
  int rank() { return comm().rank(); }
  int size() { return comm().size(); }
  // Collective, main thread, after all work; the lane ends here.
  virtual void Close() = 0;

  // The verdict of all ranks on something each tried alone (reading its config, opening its data).
  // Collective. OK when all are; otherwise the error of the lowest failing rank, on all ranks.
  Status AgreeOn(const Status& mine);

 protected:
  explicit World(int concurrent_buckets)
      : concurrent_buckets_(concurrent_buckets),
        lane_(std::make_unique<Lane>(concurrent_buckets)) {}
  // The lane first, then what it worked with.
  void CloseLane();

  const int concurrent_buckets_;
  OpenedDevice opened_;
  int device_number_ = -1;
  std::unique_ptr<Communicator> device_comm_;
  std::unique_ptr<Lane> lane_;
};

// Threads of a rank that was not told how many: OMP_NUM_THREADS, which launch/run sets, or else the
// host's cores shared by its `ranks_here`.
int DefaultThreads(int ranks_here);

// Prints one line on one rank and ends the job with the status's exit code: rank 0 at once, a
// higher rank only when no lower one has ended the job meanwhile. For errors that are not known to
// be the same everywhere. Does not return.
[[noreturn]] void EndJob(World& world, const Status& status);

}  // namespace tw
