
#include <ATen/core/Tensor.h>
#include <ATen/ops/equal.h>
#include <filesystem>
#include <set>
#include <sstream>

#include "core/base/file_io.h"
#include "core/engine/agree.h"
#include "core/engine/checkpoint.h"
#include "core/engine/checkpoint_slots.h"
#include "core/nn/safetensors/safetensors.h"

namespace tw {
namespace {

namespace fs = std::filesystem;

constexpr OpTag kTag{0, -1, "load checkpoint"};

// The manifest, once every file in it was found whole. The same answer on all ranks.
StatusOr<CheckpointManifest> VerifyTogether(const std::string& folder, Communicator& comm) {
  const std::string path = (fs::path(folder) / "manifest.json").string();
  StatusOr<std::string> read = std::string();
  if (comm.rank() == 0) read = ReadTextFile(path);
  TW_RETURN_IF_ERROR(AgreeStatus(comm, read.status(), kTag));
  TW_ASSIGN_OR_RETURN(const std::string text, BroadcastText(comm, *read, 0, kTag));
  auto manifest = CheckpointManifest::Parse(path, text);
  Status status = manifest.status();
  if (status.ok()) status = VerifyCheckpointFiles(folder, *manifest, comm.rank(), comm.size());
  TW_RETURN_IF_ERROR(AgreeStatus(comm, status, kTag));
  return manifest;
}

// The average over the files that have the slot, those without counting as zero (a slot is zero
// until it is first used). Added up in fp64 in rank order.
StatusOr<at::Tensor> MeanOf(const std::vector<SafetensorsFile>& files, const std::string& name) {
  at::Tensor sum, first;
  for (const SafetensorsFile& file : files) {
    if (file.entries().count(name) == 0) continue;
    TW_ASSIGN_OR_RETURN(const at::Tensor part, file.Read(name));
    if (files.size() == 1) return part;
    if (!first.defined()) {
      first = part;
      sum = part.to(at::kDouble);
      continue;
    }
    if (part.sizes() != first.sizes() || part.scalar_type() != first.scalar_type()) {
      return DataError(file.path() + ": state " + name + " is unlike that of the other ranks");
    }
    if (!c10::isFloatingType(part.scalar_type()) && !at::equal(part, first)) {
      return DataError(file.path() + ": state " + name +
                       " holds integers that differ between ranks: it has no mean, so the run can "
                       "only go on at the number of ranks it had");
    }
    sum.add_(part.to(at::kDouble));
  }
  if (!c10::isFloatingType(first.scalar_type())) return first;
  return sum.div_(static_cast<double>(files.size())).to(first.scalar_type());
}

Status RestoreRankSlots(const std::string& folder, const CheckpointManifest& manifest,
                        const CheckpointSpec& into, const Communicator& comm) {
  std::vector<SafetensorsFile> files;
  std::set<std::string> names;
  for (int source : ReshardSources(manifest.world_size, comm.size(), comm.rank())) {
    TW_ASSIGN_OR_RETURN(SafetensorsFile file,
                        SafetensorsFile::Open((fs::path(folder) / RankFile(source)).string()));
    for (const auto& [name, entry] : file.entries()) names.insert(name);
    files.push_back(std::move(file));
  }
  for (const std::string& name : names) {
    TW_ASSIGN_OR_RETURN(const at::Tensor mean, MeanOf(files, name));
    TW_RETURN_IF_ERROR(PutSlot(into.state, name, Reshard::kKeepMean, mean));
  }
  return OkStatus();
}

Status Restore(const std::string& folder, const CheckpointManifest& manifest,
               const CheckpointSpec& into, const Communicator& comm) {
  TW_RETURN_IF_ERROR(LoadSafetensors((fs::path(folder) / kModelFile).string(), into.model));
  TW_ASSIGN_OR_RETURN(const SafetensorsFile replicated,
                      SafetensorsFile::Open((fs::path(folder) / kReplicatedFile).string()));
  for (const auto& [name, entry] : replicated.entries()) {
    TW_ASSIGN_OR_RETURN(const at::Tensor slot, replicated.Read(name));
    TW_RETURN_IF_ERROR(PutSlot(into.state, name, Reshard::kReplicated, slot));
  }
  return RestoreRankSlots(folder, manifest, into, comm);
}

std::string ReshardNote(int from, int to) {
  const std::string head =
      "saved by " + std::to_string(from) + " rank" + (from == 1 ? "" : "s") + ", resumed by " +
      std::to_string(to) +
      ": each rank's own state (error memories; parameters and moments of local "
      "steps) is ";
  const std::string tail = "; their mean over ranks is kept, the bits of the unbroken run are not";
  if (from % to == 0) {
    return head + "averaged in groups of " + std::to_string(from / to) + tail;
  }
  if (to % from == 0) return head + "copied to " + std::to_string(to / from) + " ranks each" + tail;
  return head + "averaged over all ranks" + tail;
}

// What keeps the continuation from being the unbroken run, bit for bit; whether its config may
// differ is for the caller to say.
std::vector<std::string> Differences(const CheckpointManifest& was, const CheckpointSpec& is,
                                     int world_size) {
  std::vector<std::string> out;
  if (was.world_size != world_size) out.push_back(ReshardNote(was.world_size, world_size));
  const auto differs = [&](const std::string& what, const std::string& a, const std::string& b) {
    out.push_back("saved with " + what + " " + a + ", resumed with " + b +
                  ": the bits of the unbroken run are not kept");
  };
  if (was.threads != is.threads) {
    differs("thread count", std::to_string(was.threads), std::to_string(is.threads));
  }
  if (was.simd != is.simd) differs("SIMD target", was.simd, is.simd);
  if (was.seed != is.seed) differs("seed", std::to_string(was.seed), std::to_string(is.seed));
  return out;
}

StatusOr<LoadedCheckpoint> LoadFirstWhole(const std::vector<std::string>& folders,
                                          const CheckpointSpec& into, Communicator& comm) {
  LoadedCheckpoint out;
  Status damage;
  for (const std::string& folder : folders) {
    auto manifest = VerifyTogether(folder, comm);
    if (!manifest.ok()) {
      if (FaultOf(manifest.status()) != Fault::kData) return manifest.status();
      damage = manifest.status();
      out.warnings.push_back("checkpoint passed over: " + std::string(damage.message()));
      continue;
    }
    TW_RETURN_IF_ERROR(AgreeStatus(comm, Restore(folder, *manifest, into, comm), kTag));
    out.path = folder;
    out.manifest = std::move(manifest).value();
    for (std::string& line : Differences(out.manifest, into, comm.size())) {
      out.warnings.push_back(std::move(line));
    }
    return out;
  }
  return Annotate(damage, folders.size() == 1 ? std::string("the checkpoint is damaged")
                                              : "all " + std::to_string(folders.size()) +
                                                    " checkpoints are damaged; the oldest");
}

// Rank 0's list on all ranks.
StatusOr<std::vector<std::string>> AgreeOnFolders(const std::vector<std::string>& mine,
                                                  Communicator& comm) {
  std::string text;
  for (const std::string& folder : mine) text += folder + '\n';
  TW_ASSIGN_OR_RETURN(text, BroadcastText(comm, text, 0, kTag));
  std::vector<std::string> out;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) out.push_back(line);
  return out;
}

}  // namespace

std::vector<int> ReshardSources(int old_size, int new_size, int rank) {
  if (new_size % old_size == 0) return {rank / (new_size / old_size)};
  int first = 0, count = old_size;
  if (old_size % new_size == 0) {
    count = old_size / new_size;
    first = rank * count;
  }
  std::vector<int> out;
  for (int i = 0; i < count; ++i) out.push_back(first + i);
  return out;
}

StatusOr<std::optional<LoadedCheckpoint>> LoadNewestCheckpoint(const std::string& run_dir,
                                                               const CheckpointSpec& into,
                                                               Communicator& comm) {
  TW_ASSIGN_OR_RETURN(const std::vector<std::string> folders,
                      AgreeOnFolders(FindCheckpoints(run_dir), comm));
  if (folders.empty()) return std::optional<LoadedCheckpoint>();
  TW_ASSIGN_OR_RETURN(LoadedCheckpoint loaded, LoadFirstWhole(folders, into, comm));
  return std::optional<LoadedCheckpoint>(std::move(loaded));
}

StatusOr<LoadedCheckpoint> LoadCheckpoint(const std::string& path, const CheckpointSpec& into,
                                          Communicator& comm) {
  std::vector<std::string> mine;
  if (comm.rank() == 0) {
    mine = FindCheckpoints(path);
    std::error_code error;
    if (mine.empty() && fs::is_directory(path, error)) mine = {path};
  }
  TW_ASSIGN_OR_RETURN(const std::vector<std::string> folders, AgreeOnFolders(mine, comm));
  if (folders.empty()) {
    return DataError(path +
                     ": no such folder; wanted a run folder or a checkpoint (step-00001000)");
  }
  return LoadFirstWhole(folders, into, comm);
}

}  // namespace tw
