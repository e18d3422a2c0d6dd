#pragma once
// Tokens for language models: bytes of a text, or ready tokens of a .bin file; split into training
// and validation.
//
//   TW_ASSIGN_OR_RETURN(TextCorpus corpus, TextCorpus::Load({.path = "kjv", .context = 128}));
//   std::vector<int64_t> windows = corpus.TrainWindows({.seed = 1, .step = s, .micro_step = 0,
//   .rank = r}, batch_size);
//
// A training batch is a pure function of (seed, step, micro_step, rank): the data position is the
// step number, and a resumed run draws exactly what the unbroken one would have drawn. Immutable
// after Load; thread safe.

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/base/status.h"
#include "core/data/batch_key.h"

namespace tw {

struct TextOptions {
  // "kjv": the King James Bible as Debian's `bible` prints it. "synthetic": an invented language,
  // no file. Otherwise a file: "*.bin" or "*.bin.gz" holds little-endian uint16 tokens, anything
  // else is text (or .gz text), a token a byte.
  std::string path = "kjv";
  std::string val_path;       // not empty: the validation text; then all of `path` is for training
  int64_t context = 128;      // tokens a window predicts
  double val_fraction = 0.1;  // the last part of `path`, in (0, 1); unused with val_path
  int64_t vocab =
      0;  // 0: 256 for text, largest token + 1 for .bin. Else tokens >= vocab are an error
  std::string cache_folder;      // where the printed "kjv" is kept; empty: not kept
  uint64_t seed = 1;             // of "synthetic"
  bool validation_only = false;  // with val_path: `path` is not opened
};

class TextCorpus {
 public:
  // DataError: file missing, empty, cut, odd-sized .bin, tokens >= vocab, either part shorter than
  // context + 1 tokens.
  static StatusOr<TextCorpus> Load(const TextOptions& options);

  int64_t vocab() const { return vocab_; }
  int64_t context() const { return context_; }
  std::span<const uint16_t> train() const { return train_; }
  std::span<const uint16_t> validation() const { return validation_; }

  // `batch` random windows of context + 1 tokens each, row after row. REQUIRES: not
  // validation_only.
  std::vector<int64_t> TrainWindows(const BatchKey& key, int64_t batch) const;

  // Validation windows i = first .. first + count - 1 in order, without overlap: tokens [i *
  // context, i * context + context], the last one being only a target. Incomplete windows do not
  // exist: i < num_validation_windows().
  std::vector<int64_t> ValidationWindows(int64_t first, int64_t count) const;
  int64_t num_validation_windows() const;

 private:
  std::vector<uint16_t> train_, validation_;
  int64_t context_ = 0;
  int64_t vocab_ = 0;
};

}  // namespace tw
