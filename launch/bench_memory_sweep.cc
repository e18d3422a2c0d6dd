// bench memory sweep. The peak of a training step is an affine function of the sequence's length:
// two short measurements give the line, a third where it meets the budget, and the line through the
// last two is followed until the length is within a fiftieth of what fits. Only lengths that were
// run are reported.

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/zeros_like.h>
#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

#include "absl/strings/str_format.h"
#include "core/base/clock.h"
#include "core/engine/tensor_memory.h"
#include "launch/bench_memory.h"
#include "launch/compose.h"
#include "launch/memory_report.h"

namespace tw {
namespace {

constexpr int64_t kFirstLength = 256;
constexpr int64_t kGrain = 64;  // lengths are multiples of it
constexpr int kMostRuns = 8;

struct Way {
  const char* name;
  std::vector<std::string> overrides;
};

std::vector<Way> Ways() {
  return {{"plain", {"memory.mlp_chunks=1", "memory.head_chunks=1", "memory.activations=none"}},
          {"mlp", {"memory.mlp_chunks=0", "memory.head_chunks=1", "memory.activations=none"}},
          {"head", {"memory.mlp_chunks=1", "memory.head_chunks=0", "memory.activations=none"}},
          {"mst", {"memory.mlp_chunks=0", "memory.head_chunks=0", "memory.activations=none"}},
          {"checkpoint",
           {"memory.mlp_chunks=1", "memory.head_chunks=1", "memory.activations=checkpoint"}},
          {"mst+checkpoint",
           {"memory.mlp_chunks=0", "memory.head_chunks=0", "memory.activations=checkpoint"}}};
}

struct SweepConfig {
  double budget_mb = 1024;
  int64_t repetitions = 3;
  int64_t threads = 0;
  std::string config;
  static FieldList<SweepConfig> Fields() {
    return FieldList<SweepConfig>()
        .Real("budget_mb", &SweepConfig::budget_mb, {0, 1e9, kOpenLow},
              "MB (2^20 bytes) of tensors and states a rank may have")
        .Int("repetitions", &SweepConfig::repetitions, {1, 100},
             "timed runs at the length that plain fits")
        .Int("threads", &SweepConfig::threads, {0, 4096}, "0: cores")
        .Text("config", &SweepConfig::config, {}, "a TOML file in place of the built-in llama");
  }
};

struct Run {
  int64_t peak = 0;       // bytes, states included
  int64_t predicted = 0;  // by formula; 0: none
  double tokens_per_s = 0;
};

class Sweep {
 public:
  Sweep(SweepConfig config, std::vector<std::string> overrides)
      : config_(std::move(config)), overrides_(std::move(overrides)) {}

  int64_t budget() const { return std::llround(config_.budget_mb * (1 << 20)); }

  // A step's forward and backward, once to warm up when it is timed more than once.
  StatusOr<Run> Step(const Way& way, int64_t length, int64_t repetitions) const {
    std::vector<std::string> overrides = overrides_;
    overrides.insert(overrides.end(), way.overrides.begin(), way.overrides.end());
    overrides.push_back("data.context=" + std::to_string(length));
    TW_ASSIGN_OR_RETURN(const LoadedConfig loaded, LoadedConfig::Load(config_.config, overrides));
    const int64_t before = LiveTensorBytes();
    TW_ASSIGN_OR_RETURN(const auto a, Assemble(loaded, 0, 1));
    for (auto& [name, parameter] : a->parameters) {
      parameter.mutable_grad() = at::zeros_like(parameter);
    }
    const MemoryReport report = PredictMemory(*a);
    Run run;
    run.predicted = report.peak().value_or(0);
    std::vector<double> seconds;
    for (int64_t i = repetitions > 1 ? -1 : 0; i < repetitions; ++i) {
      ResetPeakTensorBytes();
      const double start = NowMs();
      a->task->Loss(0, 0).backward();
      if (i >= 0) seconds.push_back((NowMs() - start) / 1e3);
      run.peak = std::max(run.peak, PeakTensorBytes() - before);
    }
    std::sort(seconds.begin(), seconds.end());
    run.tokens_per_s =
        static_cast<double>(a->task->tokens_per_batch()) / seconds[seconds.size() / 2];
    run.peak += report.optimizer + report.feedback + report.strategy;
    return run;
  }

  // The longest length run within the budget, and that run; length 0 when none is.
  StatusOr<std::pair<int64_t, Run>> Longest(const Way& way) const {
    std::map<int64_t, Run> runs;
    const auto measure = [&](int64_t length) -> Status {
      TW_ASSIGN_OR_RETURN(runs[length], Step(way, length, 1));
      return OkStatus();
    };
    TW_RETURN_IF_ERROR(measure(kFirstLength));
    TW_RETURN_IF_ERROR(measure(2 * kFirstLength));
    int64_t a = kFirstLength, b = 2 * kFirstLength;
    while (runs.size() < kMostRuns) {
      const double slope =
          static_cast<double>(runs[b].peak - runs[a].peak) / static_cast<double>(b - a);
      const double room = static_cast<double>(budget() - runs[b].peak);
      const int64_t next =
          static_cast<int64_t>(std::floor((static_cast<double>(b) + room / slope) / kGrain)) *
          kGrain;
      if (slope <= 0 || next < kGrain || runs.count(next)) break;
      TW_RETURN_IF_ERROR(measure(next));
      if (runs[next].peak <= budget() && runs[next].peak >= budget() / 50 * 49) break;
      a = b;
      b = next;
    }
    std::pair<int64_t, Run> best{0, {}};
    for (const auto& [length, run] : runs) {
      if (run.peak <= budget()) best = {length, run};
    }
    return best;
  }

 private:
  SweepConfig config_;
  std::vector<std::string> overrides_;
};

}  // namespace

Status RunMemorySweep(const std::vector<std::string>& arguments, bool json, std::ostream& out) {
  Config config;
  std::vector<std::string> overrides;
  for (const std::string& argument : arguments) {
    const std::string key = argument.substr(0, argument.find('='));
    if (key.find('.') == std::string::npos) {
      TW_RETURN_IF_ERROR(config.Override("sweep." + argument));
    } else {
      overrides.push_back(argument);
    }
  }
  const ConfigSection& section = config.section("sweep");
  TW_ASSIGN_OR_RETURN(const SweepConfig sweep_config, ParseFields<SweepConfig>(section));
  std::vector<std::string> known, idle;
  for (const FieldInfo& f : SweepConfig::Fields().infos()) known.push_back(f.key);
  TW_RETURN_IF_ERROR(CheckKeys(section, known, {}, &idle));
  if (sweep_config.config.empty()) {
    const std::vector<std::string> llama = {
        "data.path=synthetic", "data.vocab=32000", "model.name=llama",  "model.layers=4",
        "model.width=256",     "model.heads=8",    "train.batch_size=1"};
    overrides.insert(overrides.begin(), llama.begin(), llama.end());
  }
  at::set_num_threads(sweep_config.threads > 0 ? static_cast<int>(sweep_config.threads)
                                               : DefaultThreads(1));
  const Sweep sweep(sweep_config, overrides);
  bool head_printed = false;
  const auto print_head = [&] {
    out << absl::StrFormat("budget %.0f MB, %d threads\n%-15s %8s %8s %12s %12s %12s %10s\n",
                           sweep_config.budget_mb, at::get_num_threads(), "way", "longest",
                           "x plain", "peak MB", "predicted MB", "tokens/s", "at plain's");
  };
  int64_t plain_longest = 0;
  double plain_speed = 0;
  for (const Way& way : Ways()) {
    TW_ASSIGN_OR_RETURN(const auto longest, sweep.Longest(way));
    const auto& [length, run] = longest;
    if (plain_longest == 0) plain_longest = length;
    if (plain_longest == 0) {
      return ConfigError(absl::StrFormat(
          "bench memory sweep: budget_mb = %g holds no step of the plain model at %d tokens",
          sweep_config.budget_mb, kFirstLength));
    }
    TW_ASSIGN_OR_RETURN(const Run there, sweep.Step(way, plain_longest, sweep_config.repetitions));
    if (plain_speed == 0) plain_speed = there.tokens_per_s;
    const double times = static_cast<double>(length) / static_cast<double>(plain_longest);
    const double speed = there.tokens_per_s / plain_speed;
    if (json) {
      nlohmann::ordered_json j = {{"bench", "memory_sweep"},
                                  {"name", way.name},
                                  {"budget_bytes", sweep.budget()},
                                  {"longest", length},
                                  {"times_plain", times},
                                  {"peak_bytes", run.peak},
                                  {"predicted_peak_bytes", run.predicted},
                                  {"tokens_per_s", run.tokens_per_s},
                                  {"at", plain_longest},
                                  {"tokens_per_s_at", there.tokens_per_s},
                                  {"speed_ratio_at", speed},
                                  {"peak_bytes_at", there.peak},
                                  {"threads", at::get_num_threads()}};
      out << j.dump() << std::endl;
    } else {
      if (!std::exchange(head_printed, true)) print_head();
      out << absl::StrFormat("%-15s %8d %8.2f %12.1f %12.1f %12.0f %10.3f\n", way.name, length,
                             times, static_cast<double>(run.peak) / (1 << 20),
                             static_cast<double>(run.predicted) / (1 << 20), run.tokens_per_s,
                             speed)
          << std::flush;
    }
  }
  if (!json) {
    out << "tokens/s: forward and backward at the longest length; at plain's: tokens/s at plain's "
           "longest length over plain's there\n";
  }
  return OkStatus();
}

}  // namespace tw
