#include "core/data/text_corpus.h"

#include <sys/wait.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>

#include "core/base/bytes.h"
#include "core/data/file.h"
#include "core/data/synthetic_text.h"

namespace tw {
namespace {

constexpr char kBibleCommand[] = "bible -f 'gen1:1-rev22:21' 2>/dev/null";
constexpr size_t kBibleBytes = 4404412;
constexpr int64_t kSyntheticBytes = 1 << 20;
constexpr int64_t kByteVocab = 256;

bool EndsWith(const std::string& text, const std::string& tail) {
  return text.size() >= tail.size() &&
         text.compare(text.size() - tail.size(), tail.size(), tail) == 0;
}

StatusOr<std::string> PrintBible() {
  FILE* pipe = ::popen(kBibleCommand, "re");
  if (pipe == nullptr) return DataError("data.path = \"kjv\": cannot start the program `bible`");
  std::string text;
  std::vector<char> chunk(1 << 16);
  while (const size_t n = std::fread(chunk.data(), 1, chunk.size(), pipe))
    text.append(chunk.data(), n);
  const int status = ::pclose(pipe);
  if (status == -1 || !WIFEXITED(status) || WEXITSTATUS(status) != 0) {
    return DataError(
        "data.path = \"kjv\" needs the program `bible`, which did not run; install Debian's "
        "bible-kjv, or give a text "
        "file, or \"synthetic\"");
  }
  if (text.size() != kBibleBytes) {
    return DataError("data.path = \"kjv\": `bible` printed " + std::to_string(text.size()) +
                     " bytes where Debian's bible-kjv prints " + std::to_string(kBibleBytes) +
                     "; print it to a file and give that as data.path");
  }
  return text;
}

StatusOr<std::string> ReadBible(const std::string& cache_folder) {
  const std::string cached = cache_folder.empty() ? "" : cache_folder + "/kjv.txt";
  if (!cached.empty() && FileExists(cached)) {
    auto text = ReadDataFile(cached);
    if (text.ok() && text->size() == kBibleBytes) return text;
  }
  TW_ASSIGN_OR_RETURN(std::string text, PrintBible());
  // The cache only saves time: a read-only home is no reason to stop.
  if (!cached.empty()) WriteCacheFile(cached, text).IgnoreError();
  return text;
}

StatusOr<std::vector<uint16_t>> DecodeBin(const std::string& path, const std::string& bytes) {
  if (bytes.size() % 2 != 0) {
    return DataError(path + ": " + std::to_string(bytes.size()) +
                     " bytes are no whole number of uint16 tokens");
  }
  std::vector<uint16_t> tokens(bytes.size() / 2);
  for (size_t i = 0; i < tokens.size(); ++i) {
    tokens[i] = LoadLE<uint16_t>(reinterpret_cast<const uint8_t*>(bytes.data()) + 2 * i);
  }
  return tokens;
}

StatusOr<std::vector<uint16_t>> ReadTokens(const std::string& path, const TextOptions& options) {
  std::string bytes;
  if (path == "synthetic") {
    bytes = SyntheticText(options.seed, kSyntheticBytes);
  } else if (path == "kjv") {
    TW_ASSIGN_OR_RETURN(bytes, ReadBible(options.cache_folder));
  } else {
    TW_ASSIGN_OR_RETURN(bytes, ReadDataFile(path));
    if (EndsWith(path, ".bin") || EndsWith(path, ".bin.gz")) return DecodeBin(path, bytes);
  }
  std::vector<uint16_t> tokens(bytes.size());
  std::transform(bytes.begin(), bytes.end(), tokens.begin(),
                 [](char c) { return static_cast<uint8_t>(c); });
  return tokens;
}

bool HoldsTokens(const std::string& path) {
  return EndsWith(path, ".bin") || EndsWith(path, ".bin.gz");
}

// The smallest vocabulary for the tokens of `path`, or the configured one if they all fit.
StatusOr<int64_t> CheckVocab(const std::string& path, std::span<const uint16_t> tokens,
                             int64_t configured) {
  if (configured == 0) {
    if (!HoldsTokens(path)) return kByteVocab;
    return int64_t{*std::max_element(tokens.begin(), tokens.end())} + 1;
  }
  const auto bad =
      std::find_if(tokens.begin(), tokens.end(), [&](uint16_t t) { return t >= configured; });
  if (bad == tokens.end()) return configured;
  return DataError(path + ": token " + std::to_string(*bad) + " at position " +
                   std::to_string(bad - tokens.begin()) + ", but the vocabulary has " +
                   std::to_string(configured) + " (allowed 0 to " + std::to_string(configured - 1) +
                   ")");
}

Status CheckLength(const std::string& path, const char* part, size_t tokens, int64_t context) {
  if (static_cast<int64_t>(tokens) > context) return OkStatus();
  return DataError(
      path + ": the " + part + " part has " + std::to_string(tokens) +
      " tokens, fewer than one window of data.context + 1 = " + std::to_string(context + 1));
}

}  // namespace

StatusOr<TextCorpus> TextCorpus::Load(const TextOptions& options) {
  if (options.context < 1) return ConfigError("data.context must be at least 1");
  TextCorpus corpus;
  corpus.context_ = options.context;
  const bool two_files = !options.val_path.empty();
  if (two_files) {
    TW_ASSIGN_OR_RETURN(corpus.validation_, ReadTokens(options.val_path, options));
    TW_RETURN_IF_ERROR(
        CheckLength(options.val_path, "validation", corpus.validation_.size(), options.context));
    TW_ASSIGN_OR_RETURN(corpus.vocab_,
                        CheckVocab(options.val_path, corpus.validation_, options.vocab));
    if (options.validation_only) return corpus;
  }
  TW_ASSIGN_OR_RETURN(corpus.train_, ReadTokens(options.path, options));
  if (corpus.train_.empty()) return DataError(options.path + ": the file is empty");
  TW_ASSIGN_OR_RETURN(const int64_t vocab, CheckVocab(options.path, corpus.train_, options.vocab));
  corpus.vocab_ = std::max(corpus.vocab_, vocab);
  if (!two_files) {
    if (!(options.val_fraction > 0 && options.val_fraction < 1)) {
      return ConfigError("data.val_fraction must lie between 0 and 1, both excluded");
    }
    const size_t total = corpus.train_.size();
    const size_t held =
        static_cast<size_t>(std::floor(static_cast<double>(total) * options.val_fraction));
    corpus.validation_.assign(corpus.train_.end() - static_cast<int64_t>(held),
                              corpus.train_.end());
    corpus.train_.resize(total - held);
    TW_RETURN_IF_ERROR(CheckLength(options.path, "validation", held, options.context));
  }
  TW_RETURN_IF_ERROR(CheckLength(options.path, "training", corpus.train_.size(), options.context));
  return corpus;
}

std::vector<int64_t> TextCorpus::TrainWindows(const BatchKey& key, int64_t batch) const {
  const RngStream rng = key.Stream();
  const uint64_t starts = train_.size() - static_cast<uint64_t>(context_);
  std::vector<int64_t> out;
  out.reserve(static_cast<size_t>(batch * (context_ + 1)));
  for (int64_t i = 0; i < batch; ++i) {
    const auto from =
        train_.begin() + static_cast<int64_t>(rng.Below(static_cast<uint64_t>(i), starts));
    out.insert(out.end(), from, from + context_ + 1);
  }
  return out;
}

int64_t TextCorpus::num_validation_windows() const {
  return (static_cast<int64_t>(validation_.size()) - 1) / context_;
}

std::vector<int64_t> TextCorpus::ValidationWindows(int64_t first, int64_t count) const {
  TW_CHECK_LE(first + count, num_validation_windows());
  std::vector<int64_t> out;
  out.reserve(static_cast<size_t>(count * (context_ + 1)));
  for (int64_t i = first; i < first + count; ++i) {
    const auto from = validation_.begin() + i * context_;
    out.insert(out.end(), from, from + context_ + 1);
  }
  return out;
}

}  // namespace tw
