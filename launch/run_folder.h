#pragma once
// The run folder: made by rank 0, named for all ranks; what it holds at the start and at the end of
// a run.

#include <optional>
#include <string>
#include <utility>

#include "core/engine/trainer.h"
#include "launch/compose.h"
#include "launch/memory_report.h"

namespace tw {

// run.dir, or runs/<name>-<yyyymmdd-hhmmss>.
std::string ChooseRunDir(const Settings& settings);
// The folder is this process's alone, as flock(2) has it, until this goes or the process ends.
class FolderLock {
 public:
  explicit FolderLock(int fd = -1) : fd_(fd) {}
  FolderLock(FolderLock&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  FolderLock& operator=(FolderLock&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~FolderLock();
  int fd() const { return fd_; }

 private:
  int fd_;
};

// Makes the folder, locks it and writes config.toml. Fault kData when the disk does not let it,
// kConfig when another run holds the folder for longer than `patience_s`: that of ranks just killed
// ends in less.
StatusOr<FolderLock> OpenRunDir(const std::string& dir, const std::string& effective_toml,
                                double patience_s = 5);

struct RunFacts {
  std::string name;
  int world_size = 1;
  int64_t steps = 0;
  int64_t params = 0;
  TrainSummary train;
  bool evaluated = false;
  EvalResult eval;
  int64_t peak_tensor_bytes = 0;
  int64_t peak_rss_bytes = 0;
  MemoryReport predicted_memory;
  int64_t optimizer_state_bytes = 0;
  int64_t feedback_state_bytes = 0;
  uint64_t params_hash = 0;
  uint64_t config_hash = 0;
  const Plan* plan = nullptr;
  const PlanUpdater* planner = nullptr;  // null: none
  std::vector<std::string> warnings;
  std::string status = "finished";
};
// Before the first step: the summary of an earlier run in the folder is not that of one that is
// killed later.
Status RemoveSummary(const std::string& dir);
// summary.json, as a whole or not at all.
Status WriteSummary(const std::string& dir, const RunFacts& facts);
// The config hash in the summary of a finished run of at least `steps` steps; nothing when the
// folder has no such summary.
std::optional<std::string> FinishedConfig(const std::string& dir, int64_t steps);

int64_t PeakRssBytes();

}  // namespace tw
