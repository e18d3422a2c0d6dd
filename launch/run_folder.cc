#include "launch/run_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "core/base/clock.h"
#include "core/base/hash.h"

namespace tw {
namespace {

// To a temporary name, then renamed: a reader never sees half a file.
Status WriteWhole(const std::string& path, const std::string& text) {
  const std::string temporary = path + ".tmp";
  std::FILE* file = std::fopen(temporary.c_str(), "wb");
  bool ok = file != nullptr;
  if (file) {
    ok = std::fwrite(text.data(), 1, text.size(), file) == text.size();
    ok = std::fflush(file) == 0 && ok;
    ok = std::fclose(file) == 0 && ok;
  }
  ok = ok && std::rename(temporary.c_str(), path.c_str()) == 0;
  if (ok) return OkStatus();
  const std::string why = std::strerror(errno);
  std::remove(temporary.c_str());
  return DataError(path + ": cannot be written: " + why);
}

}  // namespace

std::string ChooseRunDir(const Settings& settings) {
  if (!settings.run.dir.empty()) return settings.run.dir;
  char stamp[32];
  const std::time_t now = std::time(nullptr);
  std::tm local{};
  localtime_r(&now, &local);
  std::strftime(stamp, sizeof(stamp), "%Y%m%d-%H%M%S", &local);
  const std::string base = "runs/" + settings.top.name + "-" + stamp;
  std::string dir = base;
  for (int i = 2; std::filesystem::exists(dir); ++i) dir = base + "-" + std::to_string(i);
  return dir;
}

FolderLock::~FolderLock() {
  if (fd_ >= 0) ::close(fd_);
}

StatusOr<FolderLock> OpenRunDir(const std::string& dir, const std::string& effective_toml,
                                double patience_s) {
  std::error_code error;
  std::filesystem::create_directories(dir, error);
  if (error) return DataError(dir + ": cannot be made: " + error.message());
  FolderLock lock(::open(dir.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  const double start = NowMs();
  // A file system without locks has another errno: there nobody is kept out.
  while (::flock(lock.fd(), LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
    if (NowMs() - start > 1e3 * patience_s) {
      return ConfigError(dir +
                         ": another run is at work there; wait for its end or give another "
                         "run.dir");
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  TW_RETURN_IF_ERROR(WriteWhole(dir + "/config.toml", effective_toml));
  return lock;
}

Status RemoveSummary(const std::string& dir) {
  std::error_code error;
  std::filesystem::remove(dir + "/summary.json", error);
  return error ? DataError(dir + "/summary.json: cannot be removed: " + error.message())
               : OkStatus();
}

Status WriteSummary(const std::string& dir, const RunFacts& f) {
  nlohmann::ordered_json j;
  j["name"] = f.name;
  j["world_size"] = f.world_size;
  j["steps"] = f.steps;
  j["params"] = f.params;
  j["tokens"] = f.train.tokens;
  j["final_loss"] = f.train.final_loss;
  if (f.evaluated) {
    j["val_loss"] = f.eval.loss;
    if (f.eval.accuracy) j["val_accuracy"] = *f.eval.accuracy;
  }
  j["wall_s"] = f.train.wall_s;
  j["step_ms_median"] = f.train.step_ms_median;
  j["wire_bytes_per_step"] = f.train.wire_bytes_per_step;
  j["dense_bytes_per_step"] = f.train.dense_bytes_per_step;
  j["payload_bytes_per_step"] = f.train.payload_bytes_per_step;
  j["compression_ratio"] =
      f.train.payload_bytes_per_step > 0
          ? static_cast<double>(f.train.dense_bytes_per_step) / f.train.payload_bytes_per_step
          : 1.0;
  j["exposed_ms_median"] = f.train.exposed_ms_median;
  j["peak_tensor_bytes"] = f.peak_tensor_bytes;
  j["peak_rss_bytes"] = f.peak_rss_bytes;
  j["memory"] = {{"predicted", ToJson(f.predicted_memory)}, {"measured_peak", f.peak_tensor_bytes}};
  j["optimizer_state_bytes"] = f.optimizer_state_bytes;
  j["optimizer_bytes_per_param"] = static_cast<double>(f.optimizer_state_bytes) /
                                   static_cast<double>(std::max<int64_t>(f.params, 1));
  j["feedback_state_bytes"] = f.feedback_state_bytes;
  j["params_hash"] = Hex64(f.params_hash);
  j["config_hash"] = Hex64(f.config_hash);
  j["skipped_steps"] = f.train.skipped;
  j["plan"] = nlohmann::ordered_json::array();
  for (const ParameterPlan& p : f.plan->parameters()) {
    j["plan"].push_back({{"param", p.spec.name},
                         {"compressor", p.route.compressor},
                         {"feedback", p.route.feedback},
                         {"bytes", p.payload_bytes}});
    if (!p.option.empty()) j["plan"].back()["option"] = p.option;
  }
  if (f.planner) {
    const PlanRound& last = f.planner->last_round();
    j["planner"] = {{"rounds", f.planner->num_rounds()},
                    {"last_round",
                     {{"step", last.step},
                      {"bytes_before", last.bytes_before},
                      {"bytes_after", last.bytes_after},
                      {"bytes_configured", last.bytes_configured},
                      {"error_before", last.error_before},
                      {"error_after", last.error_after},
                      {"error_configured", last.error_configured},
                      {"measure_ms", last.measure_ms},
                      {"decide_ms", last.decide_ms},
                      {"why", last.why}}}};
  }
  j["warnings"] = f.warnings;
  j["status"] = f.status;
  return WriteWhole(dir + "/summary.json", j.dump(2) + "\n");
}

std::optional<std::string> FinishedConfig(const std::string& dir, int64_t steps) {
  std::ifstream in(dir + "/summary.json");
  if (!in) return std::nullopt;
  try {  // anything may be in that file
    const auto j = nlohmann::json::parse(in);
    if (j.at("status") != "finished" || j.at("steps").get<int64_t>() < steps) return std::nullopt;
    return j.at("config_hash").get<std::string>();
  } catch (const std::exception&) {
    return std::nullopt;
  }
}

int64_t PeakRssBytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<int64_t>(usage.ru_maxrss) * 1024;
}

}  // namespace tw
