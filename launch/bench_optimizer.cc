#include "launch/bench_optimizer.h"

#include <algorithm>
#include <iomanip>
#include <nlohmann/json.hpp>

#include "core/api/optimizer.h"
#include "core/kernels/simd_target.h"
#include "launch/bench_device.h"
#include "launch/peer_process.h"

namespace tw {
namespace {

struct BenchOptimizerConfig {
  std::string name, state;
  int64_t rows = 4096;
  int64_t cols = 4096;
  int64_t repetitions = 9;
  int64_t queued = 1;
  std::string device = "cpu";
  std::string simd;
  std::string peer;
  std::string python = "python3";
  static FieldList<BenchOptimizerConfig> Fields() {
    return FieldList<BenchOptimizerConfig>()
        .Text("name", &BenchOptimizerConfig::name, {}, "optimizer; empty: every one")
        .Text("state", &BenchOptimizerConfig::state, {}, "how moments rest; empty: every way")
        .Int("rows", &BenchOptimizerConfig::rows, {1, 1 << 20}, "of the matrix")
        .Int("cols", &BenchOptimizerConfig::cols, {1, 1 << 20}, "of the matrix")
        .Int("repetitions", &BenchOptimizerConfig::repetitions, {7, 1000}, "medians are over these")
        .Int("queued", &BenchOptimizerConfig::queued, {1, 1000}, "steps in a row a repetition")
        .Text("device", &BenchOptimizerConfig::device, kBenchDevices, kBenchDeviceHelp)
        .Text("simd", &BenchOptimizerConfig::simd, {}, "best instruction set allowed, as AVX2")
        .Text("peer", &BenchOptimizerConfig::peer, {"", "torch", "torchao"},
              "time the same there, too")
        .Text("python", &BenchOptimizerConfig::python, {}, "interpreter that can import the peer");
  }
};

constexpr const char* kPeer = R"py(
import sys, time
peer, name, state, device = sys.argv[1:5]
rows, cols, queued = map(int, sys.argv[5:])
import torch
torch.set_num_threads(1)
torch.manual_seed(0)
p = torch.nn.Parameter(torch.randn(rows, cols, device=device))
p.grad = torch.randn(rows, cols, device=device) * 1e-3
if peer == "torch":
    if name == "sgdm":
        optimizer = torch.optim.SGD([p], lr=1e-3, momentum=0.9, fused=True)
    else:
        optimizer = torch.optim.AdamW([p], lr=1e-3, fused=True)
else:
    from torchao.optim import AdamW4bit, AdamW8bit
    kind = {("adamw", "int4"): AdamW4bit, ("adamw", "int8"): AdamW8bit}.get((name, state))
    if kind is None:
        print("none", flush=True)
        sys.exit()
    optimizer = kind([p], lr=1e-3)
for _ in range(2):
    optimizer.step()
print("ready", flush=True)
wait = torch.cuda.synchronize if device == "cuda" else lambda: None
for line in sys.stdin:
    wait()
    start = time.perf_counter()
    for _ in range(queued):
        optimizer.step()
    wait()
    print(1e3 * (time.perf_counter() - start) / queued, flush=True)
)py";

// Made and used in a DeviceScope.
struct Arena {
  Arena(const BenchDevice& on, size_t numel)
      : device(on),
        memory(on.memory()),
        parameter(memory.Get<float>(0, numel)),
        gradient(memory.Get<float>(1, numel)),
        copy(memory.Get<float>(2, numel)) {
    FillBellShaped(parameter, 0.02f, 1);
    FillBellShaped(gradient, 1e-3f, 2);
    ZeroBytes(copy.data(), copy.size_bytes());
  }
  const BenchDevice& device;
  Workspace memory;
  std::span<float> parameter, gradient, copy;
};

double Median(std::vector<double> x) {
  std::sort(x.begin(), x.end());
  return (x[x.size() / 2] + x[(x.size() - 1) / 2]) / 2;
}

struct Timing {
  double ms = 0, copy_ratio = 0, peer_ms = 0, peer_ratio = 0;
  double of_bound = 0;  // part reached of what memory allows: each number read, and written, once
  int64_t state_bytes = 0;
};

StatusOr<Timing> Measure(const Optimizer& optimizer, const StateTreatment& treatment,
                         const BenchOptimizerConfig& config, PeerProcess* peer, Arena& arena) {
  const TensorSpec spec{.id = 0, .name = "bench.weight", .shape = {config.rows, config.cols}};
  const ParameterView view{&spec, ViewOf(arena.parameter), ViewOf(arena.gradient)};
  StateBag state(arena.device.memory());
  Workspace scratch(arena.device.memory());
  Timing timing;
  std::vector<double> times, copy_ratios, peer_times, peer_ratios;
  constexpr int64_t kWarmUp = 2;
  int64_t update = 0;
  for (int64_t i = -kWarmUp; i < config.repetitions; ++i) {
    TW_ASSIGN_OR_RETURN(const double copy, arena.device.Time(config.queued, [&] {
      CopyBytes(arena.copy.data(), arena.gradient.data(), arena.copy.size_bytes());
      return OkStatus();
    }));
    TW_ASSIGN_OR_RETURN(const double ms, arena.device.Time(config.queued, [&] {
      return optimizer.Step({&view, 1}, {.lr = 1e-3,
                                         .update = ++update,
                                         .state = &state,
                                         .treatments = {&treatment, 1},
                                         .scratch = &scratch});
    }));
    double peer_ms = 0;
    if (peer) {
      TW_ASSIGN_OR_RETURN(peer_ms, peer->Turn());
    }
    if (i < 0) continue;
    times.push_back(ms);
    copy_ratios.push_back(ms / copy);
    peer_times.push_back(peer_ms);
    peer_ratios.push_back(ms / peer_ms);
  }
  timing.ms = Median(times);
  timing.copy_ratio = Median(copy_ratios);
  timing.peer_ms = Median(peer_times);
  timing.peer_ratio = peer ? Median(peer_ratios) : 0;
  timing.state_bytes = state.bytes("optimizer/");
  TW_CHECK_EQ(timing.state_bytes, optimizer.StateBytes(spec, treatment));
  // A copy moves eight bytes a parameter: it tells how many a second there are.
  const double copied = 8 * static_cast<double>(spec.numel());
  const double moved = 1.5 * copied + 2 * static_cast<double>(timing.state_bytes);
  timing.of_bound = moved / copied / timing.copy_ratio;
  return timing;
}

Status Row(const ConfigSection& section, const std::string& name, const std::string& state,
           const BenchOptimizerConfig& config, bool json, Arena& arena, std::ostream& out) {
  TW_ASSIGN_OR_RETURN(auto optimizer, Registry<Optimizer>::Get().Find(name)->make(section));
  TW_ASSIGN_OR_RETURN(auto codec, Registry<StateCodec>::Get().Find(state)->make(ConfigSection{}));
  const StateTreatment treatment{codec.get(), {{BlockKind::kRow}}};
  if (arena.device.on_device()) {
    const TensorSpec spec{.id = 0, .name = "bench.weight", .shape = {config.rows, config.cols}};
    const Status works = optimizer->CheckOnDevice(spec, treatment);
    if (!works.ok()) {
      const std::string why = name + " " + state + ": " + std::string(works.message());
      if (!config.name.empty() && !config.state.empty()) {
        return ConfigError("bench.device = cuda: " + why);
      }
      if (!json) out << why << std::endl;
      return OkStatus();
    }
  }
  std::unique_ptr<PeerProcess> peer;
  if (!config.peer.empty()) {
    TW_ASSIGN_OR_RETURN(
        peer,
        PeerProcess::Start(config.python, kPeer,
                           {config.peer, name, state, config.device, std::to_string(config.rows),
                            std::to_string(config.cols), std::to_string(config.queued)}));
  }
  TW_ASSIGN_OR_RETURN(const Timing t, Measure(*optimizer, treatment, config, peer.get(), arena));
  const double numel = static_cast<double>(config.rows * config.cols);
  if (json) {
    nlohmann::ordered_json row = {
        {"bench", "optimizer"},
        {"name", name},
        {"state", state},
        {"numel", config.rows * config.cols},
        {"threads", 1},
        {"simd", kernels::SimdTarget()},
        {"ms", t.ms},
        {"ns_per_param", 1e6 * t.ms / numel},
        {"copy_ratio", t.copy_ratio},
        {"of_bound", t.of_bound},
        {"state_bytes", t.state_bytes},
        {"state_bytes_per_param", static_cast<double>(t.state_bytes) / numel}};
    if (arena.device.on_device()) row["device"] = arena.device.name();
    if (peer) {
      row["peer"] = config.peer;
      row["peer_ms"] = t.peer_ms;
      row["peer_ratio"] = t.peer_ratio;
    }
    out << row.dump() << std::endl;
    return OkStatus();
  }
  out << std::left << std::setw(11) << name << std::setw(13) << state << std::right << std::fixed
      << std::setprecision(2) << std::setw(9) << t.ms << std::setw(11) << 1e6 * t.ms / numel
      << std::setw(8) << t.copy_ratio << std::setw(7) << t.of_bound << std::setprecision(4)
      << std::setw(11) << static_cast<double>(t.state_bytes) / numel;
  if (peer) {
    out << std::setprecision(2) << std::setw(10) << t.peer_ms << std::setw(8) << t.peer_ratio;
  }
  out << std::endl;
  return OkStatus();
}

Status RunRows(const ConfigSection& section, const BenchOptimizerConfig& config, bool json,
               Arena& arena, std::ostream& out) {
  const auto pick = [](const auto& registry, const std::string& wanted,
                       const char* key) -> StatusOr<std::vector<std::string>> {
    if (wanted.empty()) return registry.names();
    if (registry.Find(wanted)) return std::vector<std::string>{wanted};
    return ConfigError("bench." + std::string(key) + " = \"" + wanted + "\" is not known" +
                       KnownWords(wanted, registry.names()));
  };
  TW_ASSIGN_OR_RETURN(const auto names, pick(Registry<Optimizer>::Get(), config.name, "name"));
  TW_ASSIGN_OR_RETURN(const auto states, pick(Registry<StateCodec>::Get(), config.state, "state"));
  if (!json) {
    if (arena.device.on_device()) out << arena.device.name() << std::endl;
    out << "optimizer  state               ms   ns/param  copies  bound    B/param"
        << (config.peer.empty() ? "" : "      peer   ratio") << std::endl;
  }
  for (const std::string& name : names) {
    for (const std::string& state : states) {
      TW_RETURN_IF_ERROR(Row(section, name, state, config, json, arena, out));
    }
  }
  return OkStatus();
}

}  // namespace

Status RunBenchOptimizer(const std::vector<std::string>& overrides, bool json, std::ostream& out,
                         const DeviceModule* devices) {
  Config given;
  for (const std::string& assignment : overrides) TW_RETURN_IF_ERROR(given.Override(assignment));
  TW_RETURN_IF_ERROR(given.CheckSections({"", "optimizer"}));
  // `name=adamw eps=1e-6` and `optimizer.name=adamw optimizer.eps=1e-6` mean the same.
  ConfigSection section = given.section("");
  section.name = "bench";
  for (const auto& [key, value] : given.section("optimizer").values) section.values[key] = value;
  TW_ASSIGN_OR_RETURN(const BenchOptimizerConfig config,
                      ParseFields<BenchOptimizerConfig>(section));
  std::vector<std::string> known = Registry<Optimizer>::Get().all_keys();
  for (const auto& [key, value] : DumpFields(BenchOptimizerConfig())) known.push_back(key);
  std::vector<std::string> idle;
  TW_RETURN_IF_ERROR(CheckKeys(section, known, {}, &idle));
  if (!config.simd.empty() && !kernels::LimitSimdTarget(config.simd)) {
    return ConfigError("bench.simd = \"" + config.simd + "\" is not offered here" +
                       KnownWords(config.simd, kernels::SimdTargets()));
  }
  const auto run = [&]() -> Status {
    TW_ASSIGN_OR_RETURN(const auto device, BenchDevice::Open(config.device, devices));
    const DeviceScope scope(device->queue());
    Arena arena(*device, static_cast<size_t>(config.rows * config.cols));
    return RunRows(section, config, json, arena, out);
  };
  const Status status = run();
  kernels::LimitSimdTarget("");
  return status;
}

}  // namespace tw
