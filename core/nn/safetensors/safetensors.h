#pragma once
// Safetensors files (https://huggingface.co/docs/safetensors, "Format"), read and written.
//
//   8 bytes  N, little-endian, at most 100 MB
//   N bytes  JSON: {"__metadata__": {text: text}, name: {"dtype": "F32", "shape": [..],
//   "data_offsets": [begin, end]}, ..} rest     the tensors, row-major, little-endian, at their
//   offsets from here; no gap, no overlap, no byte left over
//
// A reader trusts nothing: a damaged file is one DataError that names the file and what is wrong.
// CPU and other devices: tensors are copied through the CPU. Not thread safe; two objects share
// nothing.

#include <ATen/core/Tensor.h>

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/base/status.h"

namespace tw {

using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;

// One file open for reading (memory-mapped; must not change while it is open).
class SafetensorsFile {
 public:
  struct Entry {
    at::ScalarType dtype = at::kFloat;
    std::vector<int64_t> shape;
    int64_t begin = 0, end = 0;  // bytes behind the header
  };

  static StatusOr<SafetensorsFile> Open(const std::string& path);
  SafetensorsFile(SafetensorsFile&&) noexcept;
  SafetensorsFile& operator=(SafetensorsFile&&) noexcept;
  ~SafetensorsFile();

  const std::map<std::string, Entry>& entries() const { return entries_; }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  const std::string& path() const { return path_; }

  // A CPU tensor of its own, in the file's dtype. DataError for a name the file does not have.
  StatusOr<at::Tensor> Read(const std::string& name) const;

 private:
  struct Mapping;
  SafetensorsFile(std::string path, std::unique_ptr<Mapping> mapping);
  Status ParseHeader();

  std::string path_;
  std::unique_ptr<Mapping> mapping_;
  int64_t data_begin_ = 0;
  std::map<std::string, Entry> entries_;
  std::map<std::string, std::string> metadata_;
};

// Writes all tensors, or leaves what was at `path`: temporary name beside it, fsync, rename. The
// same tensors give the same bytes: entries go by falling element size (so that each is aligned),
// then by name. DataError when the disk refuses. ConfigError for a dtype the format has no word
// for.
Status WriteSafetensors(const std::string& path, const NamedTensors& tensors,
                        const std::map<std::string, std::string>& metadata = {});

// Copies the file's tensors into `targets` in place, converting floating dtypes; targets keep dtype
// and device. `tied` maps names another program may store to the target they share: such an entry
// may be there besides its target (then it is left alone) or instead of it. Non-persistent buffers
// old checkpoints carry (rotary_emb.inv_freq) are left alone too. One DataError lists the first few
// names that are missing, unknown, or of another shape; then nothing was copied.
Status LoadSafetensors(const std::string& path, const NamedTensors& targets,
                       const std::map<std::string, std::string>& tied = {});

}  // namespace tw
