#include "launch/bench_memory.h"

#include <ATen/Parallel.h>
#include <algorithm>

#include "absl/strings/str_format.h"
#include "core/base/config_value.h"
#include "core/engine/tensor_memory.h"
#include "launch/world.h"

namespace tw {
namespace {

struct BenchConfig {
  std::string name;
  int64_t repetitions = 5;
  int64_t threads = 0;
  std::string device = "cpu";
  static FieldList<BenchConfig> Fields() {
    return FieldList<BenchConfig>()
        .Text("name", &BenchConfig::name, Registry<MemoryRow>::Get().names(), "one row; all else")
        .Int("repetitions", &BenchConfig::repetitions, {1, 1000}, "timed runs of each way")
        .Int("threads", &BenchConfig::threads, {0, 4096}, "0: cores")
        .Text("device", &BenchConfig::device, kBenchDevices, kBenchDeviceHelp);
  }
};

double Median(std::vector<double> v) {
  std::sort(v.begin(), v.end());
  return v[v.size() / 2];
}

}  // namespace

StatusOr<std::vector<MemoryUse>> MeasureWays(const std::vector<std::function<void()>>& ways,
                                             int64_t repetitions, const BenchDevice& device) {
  const at::Device where = device.tensors();
  std::vector<MemoryUse> uses(ways.size());
  std::vector<std::vector<double>> times(ways.size());
  for (int64_t repetition = 0; repetition <= repetitions; ++repetition) {
    for (size_t i = 0; i < ways.size(); ++i) {
      const int64_t before = LiveTensorBytes(where);
      ResetPeakTensorBytes(where);
      TW_ASSIGN_OR_RETURN(const double ms, device.Time(1, [&] {
        ways[i]();
        return OkStatus();
      }));
      if (repetition > 0) times[i].push_back(ms);
      uses[i].extra_peak_bytes =
          std::max(uses[i].extra_peak_bytes, PeakTensorBytes(where) - before);
    }
  }
  for (size_t i = 0; i < ways.size(); ++i) uses[i].ms = Median(times[i]);
  return uses;
}

Status RunBenchMemory(const std::vector<std::string>& arguments, bool json, std::ostream& out,
                      const DeviceModule* devices) {
  InstallTensorMemoryCounter();
  if (!arguments.empty() && arguments[0] == "sweep") {
    return RunMemorySweep({arguments.begin() + 1, arguments.end()}, json, out);
  }
  Config config;
  for (const std::string& argument : arguments) {
    TW_RETURN_IF_ERROR(config.Override("memory." + argument));
  }
  const ConfigSection& section = config.section("memory");
  TW_ASSIGN_OR_RETURN(const BenchConfig bench, ParseFields<BenchConfig>(section));
  at::set_num_threads(bench.threads > 0 ? static_cast<int>(bench.threads) : DefaultThreads(1));
  TW_ASSIGN_OR_RETURN(const auto device, BenchDevice::Open(bench.device, devices, true));
  const auto& registry = Registry<MemoryRow>::Get();
  std::vector<std::string> known;
  for (const FieldInfo& f : BenchConfig::Fields().infos()) known.push_back(f.key);
  if (!json) {
    out << absl::StrFormat("%-10s %14s %14s %7s %9s %9s %6s\n", "row", "extra peak", "plain",
                           "ratio", "ms", "plain ms", "ratio");
  }
  for (const std::string& name : registry.names()) {
    if (!bench.name.empty() && name != bench.name) continue;
    const auto* entry = registry.Find(name);
    std::vector<std::string> keys = known, idle;
    for (const FieldInfo& f : entry->fields) keys.push_back(f.key);
    TW_RETURN_IF_ERROR(
        CheckKeys(section, keys,
                  bench.name.empty() ? registry.all_keys() : std::vector<std::string>{}, &idle));
    TW_ASSIGN_OR_RETURN(const auto row, entry->make(section));
    TW_ASSIGN_OR_RETURN(const MemoryRow::Result r, row->Measure(bench.repetitions, *device));
    const double bytes = static_cast<double>(r.ours.extra_peak_bytes);
    const double plain_bytes = static_cast<double>(r.plain.extra_peak_bytes);
    if (json) {
      nlohmann::ordered_json j = {{"bench", "memory"},
                                  {"name", name},
                                  {"extra_peak_bytes", r.ours.extra_peak_bytes},
                                  {"plain_extra_peak_bytes", r.plain.extra_peak_bytes},
                                  {"ms", r.ours.ms},
                                  {"plain_ms", r.plain.ms},
                                  {"threads", at::get_num_threads()}};
      if (device->on_device()) j["device"] = device->name();
      j.update(r.more);
      out << j.dump() << std::endl;
    } else {
      out << absl::StrFormat("%-10s %11.2f MB %11.2f MB %7.4f %9.1f %9.1f %6.3f  %s\n", name,
                             bytes / 1e6, plain_bytes / 1e6, bytes / plain_bytes, r.ours.ms,
                             r.plain.ms, r.ours.ms / r.plain.ms, r.more.dump())
          << std::flush;
    }
  }
  return OkStatus();
}

}  // namespace tw
