// metrics.jsonl in the run folder: one JSON object a step, fields in the order of MetricFields();
// jsonl_ranks writes the same of every rank, metrics.rank0.jsonl and so on.
// What JSON cannot say (NaN, infinities) is null. Each line is handed to the kernel when it is
// written: a killed run loses none. A resumed run first drops the lines after its first step and a
// torn last one.

#include <charconv>
#include <cmath>
#include <filesystem>
#include <string_view>

#include "core/api/metrics.h"
#include "core/base/file_io.h"

namespace tw {
namespace {

void AppendNumber(std::string* out, double value, bool integer) {
  char digits[32];
  if (!std::isfinite(value)) {
    *out += "null";
  } else if (integer) {
    *out += std::to_string(static_cast<int64_t>(value));
  } else {
    // The shortest text that reads back as the same double.
    const auto end = std::to_chars(digits, digits + sizeof(digits), value).ptr;
    out->append(digits, end);
  }
}

// The step of a line of ours; -1 when there is none to be read.
int64_t StepOfLine(std::string_view line) {
  constexpr std::string_view kKey = "\"step\":";
  const size_t at = line.find(kKey);
  if (at == std::string_view::npos) return -1;
  const size_t from = line.find_first_not_of(' ', at + kKey.size());
  if (from == std::string_view::npos) return -1;
  int64_t step = -1;
  std::from_chars(line.data() + from, line.data() + line.size(), step);
  return step;
}

// Length of the head of `text` a run that resumes after `first_step` keeps.
size_t KeptBytes(std::string_view text, int64_t first_step) {
  size_t at = 0;
  while (at < text.size()) {
    const size_t end = text.find('\n', at);
    if (end == std::string_view::npos) break;
    if (StepOfLine(text.substr(at, end - at)) > first_step) break;
    at = end + 1;
  }
  return at;
}

class JsonlSink : public MetricSink {
 public:
  JsonlSink(OutputFile file, int64_t every) : file_(std::move(file)), every_(every) {}

  Status Write(const StepRecord& record) override {
    if (every_ > 1 && record.step % every_ != 0) return OkStatus();
    line_.assign(1, '{');
    for (const MetricField& field : MetricFields()) {
      if (line_.size() > 1) line_ += ',';
      line_ += '"';
      line_ += field.name;
      line_ += "\":";
      AppendNumber(&line_, field.get(record), field.integer);
    }
    line_ += "}\n";
    return file_.Write(line_);
  }
  Status Flush() override { return file_.Sync(); }

 private:
  OutputFile file_;
  int64_t every_;
  std::string line_;
};

class JsonlKind : public MetricSinkKind {
 public:
  static StatusOr<std::unique_ptr<MetricSinkKind>> Create(const NoConfig&) {
    return std::make_unique<JsonlKind>();
  }
  StatusOr<std::unique_ptr<MetricSink>> Open(const RunInfo& info) const override {
    return OpenFile("metrics.jsonl", info);
  }

 protected:
  static StatusOr<std::unique_ptr<MetricSink>> OpenFile(const std::string& name,
                                                        const RunInfo& info) {
    const std::string path = (std::filesystem::path(info.run_dir) / name).string();
    const bool resume = info.first_step > 0 && std::filesystem::exists(path);
    TW_ASSIGN_OR_RETURN(
        OutputFile file,
        OutputFile::Open(path, resume ? OutputFile::Mode::kAppend : OutputFile::Mode::kTruncate));
    if (resume) {
      TW_ASSIGN_OR_RETURN(const std::string text, ReadTextFile(path));
      TW_RETURN_IF_ERROR(file.Truncate(static_cast<int64_t>(KeptBytes(text, info.first_step))));
    }
    return std::make_unique<JsonlSink>(std::move(file), info.every);
  }
};

class JsonlRanksKind : public JsonlKind {
 public:
  static StatusOr<std::unique_ptr<MetricSinkKind>> Create(const NoConfig&) {
    return std::make_unique<JsonlRanksKind>();
  }
  StatusOr<std::unique_ptr<MetricSink>> Open(const RunInfo& info) const override {
    return OpenFile("metrics.rank" + std::to_string(info.rank) + ".jsonl", info);
  }
  bool on_every_rank() const override { return true; }
};

TW_REGISTER(MetricSinkKind, jsonl, 0, NoConfig, JsonlKind::Create,
            "metrics.jsonl in the run folder, one object a step");
TW_REGISTER(MetricSinkKind, jsonl_ranks, 0, NoConfig, JsonlRanksKind::Create,
            "the same of each rank: metrics.rank0.jsonl and so on");

}  // namespace
}  // namespace tw
