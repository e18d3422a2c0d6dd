#pragma once
// Checkpoints: all that a run needs to go on bit for bit. A folder that is whole or not there:
//
//   RUN/checkpoints/step-00001000/
//     manifest.json             step, world size, threads, SIMD target, config hash, seed,
//     counters;
//                               bytes and XXH3-64 of every file; its own checksum
//     model.safetensors         parameters under their own names (rank 0 writes it)
//     replicated.safetensors    state slots that are equal on all ranks (rank 0 writes it)
//     rank-00000.safetensors    state slots of one rank (error memories, h_i; of local steps also
//     parameters and moments), each rank its own
//
// RUN is on a file system that all ranks share. The data position and all randomness are functions
// of the step and need no file.
//
// Save: files go to step-N.tmp, every one fsynced; all ranks agree that all is written; rank 0 adds
// the manifest, fsyncs the folder and renames it. A failure anywhere (disk full) is the same error
// on all ranks, and earlier checkpoints stay. Load: rank 0 chooses, checksums are verified by all
// ranks, and nothing is restored before all of them agree.
//
// Another world size: replicated slots are taken over; those of one rank are re-sharded so that
// their mean over ranks is kept:
//   new | old (4 -> 2)   each new rank takes the average of a group of old / new neighbours
//   old | new (1 -> 4)   each old rank is copied to new / old neighbours
//   else      (2 -> 3)   every new rank takes the average of all
//
// Functions that take a communicator are collective and run where it may be used (the lane thread),
// with nothing else touching the tensors or the state bag meanwhile.

#include <ATen/core/Tensor.h>

#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/api/communicator.h"
#include "core/base/state_bag.h"

namespace tw {

// What is saved, and what is restored in place.
struct CheckpointSpec {
  std::vector<std::pair<std::string, at::Tensor>> model;  // tied tensors once
  StateBag* state = nullptr;
  int64_t step = 0;                         // steps done
  std::map<std::string, int64_t> counters;  // running totals: samples, tokens, skipped...
  // What bit-for-bit continuation depends on besides the world size.
  std::string config_hash;
  std::string config;  // the text that was hashed; kept for the one who asks what changed
  int threads = 1;
  std::string simd;  // target the kernels run on, "AVX2"
  uint64_t seed = 0;
};

struct CheckpointManifest {
  struct File {
    std::string name;
    int64_t bytes = 0;
    uint64_t hash = 0;  // XXH3-64
  };
  int64_t step = 0;
  int world_size = 1;
  std::string config_hash;
  std::string config;
  int threads = 1;
  std::string simd;
  uint64_t seed = 0;
  std::map<std::string, int64_t> counters;
  std::vector<File> files;

  std::string ToJson() const;
  // DataError about what is wrong; `path` names the file in it.
  static StatusOr<CheckpointManifest> Parse(const std::string& path, const std::string& text);
};

// "step-00001000".
std::string CheckpointName(int64_t step);
// Folders under RUN/checkpoints that carry a checkpoint's name, newest first; whether they are
// whole is for the reader to see. Empty when there are none.
std::vector<std::string> FindCheckpoints(const std::string& run_dir);
// This process alone: the manifest, without a look at the other files.
StatusOr<CheckpointManifest> ReadManifest(const std::string& folder);
// This process alone: lengths and checksums of the files with index % parts == part.
Status VerifyCheckpointFiles(const std::string& folder, const CheckpointManifest& manifest,
                             int part = 0, int parts = 1);
// This process alone: the safetensors file with the weights that `path` stands for: a run folder
// (its newest undamaged checkpoint), a checkpoint folder, or such a file itself. *warnings (may be
// null) says what was damaged and passed over.
StatusOr<std::string> ResolveWeights(const std::string& path, std::vector<std::string>* warnings);

// Collective. Saves under RUN/checkpoints and returns the folder. Then removes all but the `keep`
// newest (at least one), and those of later steps: they belong to a continuation that was given up
// when the run went back to an earlier checkpoint.
StatusOr<std::string> SaveCheckpoint(const std::string& run_dir, const CheckpointSpec& spec,
                                     Communicator& comm, int keep);

struct LoadedCheckpoint {
  std::string path;
  CheckpointManifest manifest;
  std::vector<std::string> warnings;  // lines for the log, the same on all ranks
};
// Collective. Restores `into` (model, state) from a checkpoint folder, or from the newest undamaged
// one of a run folder. DataError when there is none, it is damaged, or it does not fit the model;
// into.step and into.counters are not touched, the manifest has them.
StatusOr<LoadedCheckpoint> LoadCheckpoint(const std::string& path, const CheckpointSpec& into,
                                          Communicator& comm);
// The same for resume = "auto": nothing when the run folder has no checkpoint yet. DataError when
// it has some and all are damaged: starting over is the user's decision.
StatusOr<std::optional<LoadedCheckpoint>> LoadNewestCheckpoint(const std::string& run_dir,
                                                               const CheckpointSpec& into,
                                                               Communicator& comm);

// Old ranks whose average new rank `rank` takes.
std::vector<int> ReshardSources(int old_size, int new_size, int rank);

}  // namespace tw
