// tb/events.out.tfevents.<time>.<host> in the run folder: every metric as a scalar, by step.
// A resumed run opens a new file that begins with "session start": TensorBoard then drops what the
// older files say about the steps that are done again.

#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <filesystem>
#include <system_error>

#include "core/api/metrics.h"
#include "core/base/file_io.h"
#include "launch/sinks/tfevents.h"

namespace tw {
namespace {

double WallTimeS() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

// TensorBoard groups by what is in front of the slash.
std::string TagOf(std::string_view name) {
  const char* group = name.ends_with("_ms")      ? "ms/"
                      : name.ends_with("_bytes") ? "bytes/"
                                                 : "train/";
  return group + std::string(name);
}

class TensorBoardSink : public MetricSink {
 public:
  TensorBoardSink(OutputFile file, int64_t every) : file_(std::move(file)), every_(every) {
    for (const MetricField& field : MetricFields()) {
      if (std::string_view(field.name) != "step") scalars_.emplace_back(TagOf(field.name), 0.f);
    }
  }
  Status Write(const StepRecord& record) override {
    if (every_ > 1 && record.step % every_ != 0) return OkStatus();
    size_t i = 0;
    for (const MetricField& field : MetricFields()) {
      if (std::string_view(field.name) == "step") continue;
      scalars_[i++].second = static_cast<float>(field.get(record));
    }
    return file_.Write(FramedRecord(ScalarsEvent(WallTimeS(), record.step, scalars_)));
  }
  Status Flush() override { return file_.Sync(); }

 private:
  OutputFile file_;
  int64_t every_;
  std::vector<std::pair<std::string, float>> scalars_;
};

class TensorBoardKind : public MetricSinkKind {
 public:
  static StatusOr<std::unique_ptr<MetricSinkKind>> Create(const NoConfig&) {
    return std::make_unique<TensorBoardKind>();
  }
  StatusOr<std::unique_ptr<MetricSink>> Open(const RunInfo& info) const override {
    const std::filesystem::path folder = std::filesystem::path(info.run_dir) / "tb";
    std::error_code error;
    std::filesystem::create_directory(folder, error);
    if (error) return FileError(folder.string(), "make folder", error.value());
    char host[256] = "localhost";
    (void)::gethostname(host, sizeof(host) - 1);
    const double now = WallTimeS();
    // TensorBoard reads the files of a folder in name order: ten digits of seconds, then micros for
    // two starts within a second.
    char time[40];
    std::snprintf(time, sizeof(time), "%010.6f", now);
    const std::string path =
        (folder / (std::string("events.out.tfevents.") + time + "." + host)).string();
    TW_ASSIGN_OR_RETURN(OutputFile file, OutputFile::Open(path, OutputFile::Mode::kTruncate));
    TW_RETURN_IF_ERROR(file.Write(FramedRecord(VersionEvent(now)) +
                                  FramedRecord(SessionStartEvent(now, info.first_step + 1))));
    return std::make_unique<TensorBoardSink>(std::move(file), info.every);
  }
};

TW_REGISTER(MetricSinkKind, tensorboard, 0, NoConfig, TensorBoardKind::Create,
            "TensorBoard event file under tb/ in the run folder");

}  // namespace
}  // namespace tw
