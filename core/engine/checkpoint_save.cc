#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <sstream>

#include "core/base/device.h"
#include "core/base/file_io.h"
#include "core/engine/agree.h"
#include "core/engine/checkpoint.h"
#include "core/engine/checkpoint_slots.h"
#include "core/nn/safetensors/safetensors.h"

namespace tw {
namespace {

namespace fs = std::filesystem;
using File = CheckpointManifest::File;

constexpr char kTemporary[] = ".tmp";

// Makes the temporary folder, after sweeping what killed runs left behind.
Status PrepareFolder(const fs::path& root, const fs::path& temporary) {
  std::error_code error;
  fs::create_directories(root, error);
  if (error) return FileError(root.string(), "make folder", error.value());
  for (const auto& entry : fs::directory_iterator(root, error)) {
    if (entry.path().extension() == kTemporary) {
      std::error_code ignored;
      fs::remove_all(entry.path(), ignored);
    }
  }
  fs::create_directory(temporary, error);
  if (error) return FileError(temporary.string(), "make folder", error.value());
  return OkStatus();
}

// Writes a file and reads it back for its digest: what is in the manifest was really there.
Status WriteFile(const fs::path& folder, const std::string& name,
                 const std::vector<std::pair<std::string, at::Tensor>>& tensors,
                 std::vector<File>* files) {
  const std::string path = (folder / name).string();
  TW_RETURN_IF_ERROR(WriteSafetensors(path, tensors));
  TW_ASSIGN_OR_RETURN(const FileDigest digest, DigestFile(path));
  files->push_back({name, digest.bytes, digest.hash});
  return OkStatus();
}

Status WriteOwnFiles(const fs::path& folder, const CheckpointSpec& spec, int rank,
                     std::vector<File>* files) {
  std::error_code error;
  if (!fs::is_directory(folder, error)) {
    return DataError(folder.string() +
                     ": made by rank 0 and not seen here; the run folder must be on a file system "
                     "that all ranks share");
  }
  if (rank == 0) {
    TW_RETURN_IF_ERROR(WriteFile(folder, kModelFile, spec.model, files));
    TW_RETURN_IF_ERROR(
        WriteFile(folder, kReplicatedFile, SlotTensors(*spec.state, Reshard::kReplicated), files));
  }
  TW_RETURN_IF_ERROR(
      WriteFile(folder, RankFile(rank), SlotTensors(*spec.state, Reshard::kKeepMean), files));
  // What a device could not give was written as zeros.
  return CurrentQueue() ? CurrentQueue()->Wait() : OkStatus();
}

std::string ToText(const std::vector<File>& files) {
  std::ostringstream out;
  for (const File& file : files) out << file.name << ' ' << file.bytes << ' ' << file.hash << '\n';
  return out.str();
}

std::vector<File> FilesFromTexts(const std::vector<std::string>& texts) {
  std::vector<File> out;
  for (const std::string& text : texts) {
    std::istringstream in(text);
    for (File file; in >> file.name >> file.bytes >> file.hash;) out.push_back(file);
  }
  return out;
}

// From here on the checkpoint exists. One of the same step is there when the run went back and came
// here again: the two change places in one system call, so that there is never none.
Status Rename(const std::string& temporary, const std::string& folder) {
  if (std::rename(temporary.c_str(), folder.c_str()) == 0) return OkStatus();
  if (errno != ENOTEMPTY && errno != EEXIST) return FileError(folder, "rename to", errno);
  if (::renameat2(AT_FDCWD, temporary.c_str(), AT_FDCWD, folder.c_str(), RENAME_EXCHANGE) != 0) {
    return FileError(folder, "replace", errno);
  }
  std::error_code ignored;
  fs::remove_all(temporary, ignored);
  return OkStatus();
}

// What cannot be removed now is tried again after the next save.
void Prune(const std::string& run_dir, const std::string& newest, int keep) {
  int kept = 0;
  for (const std::string& folder : FindCheckpoints(run_dir)) {
    const bool later = fs::path(folder).filename() != fs::path(newest).filename() && kept == 0;
    if (!later && ++kept <= std::max(1, keep)) continue;
    // Renamed first: one that is half removed must not look like a damaged checkpoint.
    std::error_code ignored;
    const fs::path dying = folder + kTemporary;
    fs::rename(folder, dying, ignored);
    fs::remove_all(ignored ? fs::path(folder) : dying, ignored);
  }
}

Status Publish(const std::string& run_dir, const fs::path& temporary, const fs::path& folder,
               const CheckpointManifest& manifest) {
  TW_RETURN_IF_ERROR(
      WriteTextFileAtomically((temporary / "manifest.json").string(), manifest.ToJson()));
  TW_RETURN_IF_ERROR(SyncPath(temporary.string()));
  TW_RETURN_IF_ERROR(Rename(temporary.string(), folder.string()));
  TW_RETURN_IF_ERROR(SyncPath(folder.parent_path().string()));
  return SyncPath(run_dir);
}

}  // namespace

StatusOr<std::string> SaveCheckpoint(const std::string& run_dir, const CheckpointSpec& spec,
                                     Communicator& comm, int keep) {
  const OpTag tag{static_cast<uint64_t>(spec.step), -1, "checkpoint"};
  const fs::path root = fs::path(run_dir) / "checkpoints";
  const fs::path folder = root / CheckpointName(spec.step);
  const fs::path temporary = folder.string() + kTemporary;
  const bool first = comm.rank() == 0;
  TW_RETURN_IF_ERROR(AgreeStatus(comm, first ? PrepareFolder(root, temporary) : OkStatus(), tag));

  std::vector<File> files;
  const Status written = WriteOwnFiles(temporary, spec, comm.rank(), &files);
  Status status = AgreeStatus(comm, written, tag);
  if (status.ok()) {
    TW_ASSIGN_OR_RETURN(const std::vector<std::string> texts,
                        GatherTexts(comm, ToText(files), tag));
    Status published;
    if (first) {
      published = Publish(run_dir, temporary, folder,
                          {spec.step, comm.size(), spec.config_hash, spec.config, spec.threads,
                           spec.simd, spec.seed, spec.counters, FilesFromTexts(texts)});
    }
    status = AgreeStatus(comm, published, tag);
  }
  if (first && status.ok()) Prune(run_dir, folder.string(), keep);
  if (first && !status.ok()) {
    std::error_code ignored;
    fs::remove_all(temporary, ignored);
  }
  TW_RETURN_IF_ERROR(Annotate(status, "checkpoint of step " + std::to_string(spec.step)));
  return folder.string();
}

}  // namespace tw
