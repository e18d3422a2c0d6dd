#include "launch/bench_encode.h"

#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <iomanip>
#include <nlohmann/json.hpp>
#include <optional>

#include "core/api/compressor.h"
#include "core/base/clock.h"
#include "core/kernels/lowrank.h"
#include "core/kernels/simd_target.h"

namespace tw {
namespace {

struct BenchEncodeConfig {
  std::string name;
  int64_t numel = 0;
  int64_t rows = 5000;
  int64_t cols = 5000;
  int64_t repetitions = 9;
  int64_t products = 0;
  std::string simd;
  std::string peer;
  std::string python = "python3";
  static FieldList<BenchEncodeConfig> Fields() {
    return FieldList<BenchEncodeConfig>()
        .Text("name", &BenchEncodeConfig::name, {}, "compressor; empty: every one")
        .Int("numel", &BenchEncodeConfig::numel, {0, int64_t{1} << 32},
             "elements, as a matrix as square as they allow; 0: rows x cols")
        .Int("rows", &BenchEncodeConfig::rows, {1, 1 << 20}, "of the matrix that is encoded")
        .Int("cols", &BenchEncodeConfig::cols, {1, 1 << 20}, "of the matrix that is encoded")
        .Int("repetitions", &BenchEncodeConfig::repetitions, {7, 1000}, "medians are over these")
        .Int("products", &BenchEncodeConfig::products, {0, 64},
             "PowerSGD's two products with so many columns instead of compressors, against twice "
             "the first")
        .Text("simd", &BenchEncodeConfig::simd, {}, "best instruction set allowed, as AVX2")
        .Text("peer", &BenchEncodeConfig::peer, {"", "torch"}, "time the same in PyTorch, too")
        .Text("python", &BenchEncodeConfig::python, {}, "interpreter that can import the peer");
  }
};

// `numel` as the two nearest factors.
Status ChooseShape(const ConfigSection& section, BenchEncodeConfig* config) {
  if (config->numel == 0) return OkStatus();
  if (section.has("rows") || section.has("cols")) {
    return ConfigError("bench.numel = " + std::to_string(config->numel) +
                       " is not allowed beside rows and cols: give the one or the others");
  }
  for (int64_t d = 1; d * d <= config->numel; ++d) {
    if (config->numel % d == 0) config->rows = d;
  }
  config->cols = config->numel / config->rows;
  return OkStatus();
}

struct Arena {
  explicit Arena(size_t numel) : gradient(numel), error(numel), copy(numel), mean(numel) {
    // Bell-shaped, of an ordinary gradient's size: sums of four uniform numbers.
    uint64_t state = 1;
    for (float& x : gradient) {
      state = state * 6364136223846793005ull + 1442695040888963407ull;
      uint64_t mixed = state ^ (state >> 32);
      float sum = -2.0f;
      for (int i = 0; i < 4; ++i, mixed >>= 16)
        sum += static_cast<float>(mixed & 0xFFFF) * 0x1p-16f;
      x = 1e-3f * sum;
    }
  }
  std::vector<float> gradient, error, copy, mean;
};

struct Timing {
  double copy_ms, encode_ms, decode_ms, encode_ratio, decode_ratio;
  int64_t wire_bytes = 0;  // of all rounds
};

double Median(std::vector<double> x) {
  std::sort(x.begin(), x.end());
  return (x[x.size() / 2] + x[(x.size() - 1) / 2]) / 2;
}

double TimedCopy(Arena& arena) {
  const double start = NowMs();
  std::memcpy(arena.copy.data(), arena.gradient.data(), arena.gradient.size() * sizeof(float));
  return NowMs() - start;
}

StatusOr<Timing> Measure(const Compressor& codec, const BenchEncodeConfig& config, Arena& arena) {
  const TensorSpec spec = {.id = 0, .name = "bench", .shape = {config.rows, config.cols}};
  StateBag bag;
  const StateScope state(&bag, "codec/bench/");
  Workspace scratch;
  CodecContext context;
  context.spec = &spec;
  context.state = &state;
  context.scratch = &scratch;
  const int rounds = codec.traits().rounds;
  std::vector<std::vector<uint8_t>> bodies;
  for (int round = 0; round < rounds; ++round) {
    bodies.emplace_back(static_cast<size_t>(codec.MaxEncodedBytes(spec, round)));
  }
  std::fill(arena.error.begin(), arena.error.end(), 0.0f);
  std::vector<double> copies, encodes, decodes, encode_ratios, decode_ratios;
  Timing timing = {};
  constexpr int64_t kWarmUp = 2;
  for (int64_t repetition = -kWarmUp; repetition < config.repetitions; ++repetition) {
    context.step = static_cast<uint64_t>(repetition + kWarmUp);
    const double first_copy = TimedCopy(arena);
    Message message{ViewOf(arena.error), ViewOf(arena.gradient), 1.0f};
    double start = NowMs();
    ByteSpan body;
    timing.wire_bytes = 0;
    for (int round = 0; round < rounds; ++round) {
      auto& to = bodies[static_cast<size_t>(round)];
      TW_ASSIGN_OR_RETURN(const int64_t size, codec.EncodeAny(round, body, message, context, to));
      body = ByteSpan(to).first(static_cast<size_t>(size));
      timing.wire_bytes += size;
    }
    const double encode = NowMs() - start;
    const double second_copy = TimedCopy(arena);
    start = NowMs();
    TW_RETURN_IF_ERROR(codec.DecodeAddAny(body, 1.0f, context, ViewOf(arena.mean)));
    const double decode = NowMs() - start;
    if (repetition < 0) continue;
    copies.push_back(first_copy);
    copies.push_back(second_copy);
    encodes.push_back(encode);
    decodes.push_back(decode);
    encode_ratios.push_back(encode / first_copy);
    decode_ratios.push_back(decode / second_copy);
  }
  timing.copy_ms = Median(copies);
  timing.encode_ms = Median(encodes);
  timing.decode_ms = Median(decodes);
  timing.encode_ratio = Median(encode_ratios);
  timing.decode_ratio = Median(decode_ratios);
  return timing;
}

// What the same costs written in PyTorch, error feedback included; prints milliseconds, or nothing
// when it has no counterpart.
constexpr const char* kTorchPeer = R"py(
import statistics, sys, time
import torch
name, rows, cols, repetitions = sys.argv[1], *map(int, sys.argv[2:5])
torch.set_num_threads(1)
torch.manual_seed(0)
n = rows * cols
g, e = torch.randn(n) * 1e-3, torch.zeros(n)
def topk():
    e.add_(g)
    _, i = torch.topk(e.abs(), max(1, n // 100), sorted=False)
    v = e[i]
    e[i] = 0
def randk():
    e.add_(g)
    i = torch.randint(0, n, (max(1, n // 100),))
    v = e[i]
    e[i] = 0
def cast(dtype):
    e.add_(g)
    e.sub_(e.to(dtype))
def sign():
    e.add_(g)
    scale = e.abs().mean()
    e.sub_(torch.sign(e), alpha=float(scale))
def powersgd():
    m = e.add_(g).view(rows, cols)
    p, _ = torch.linalg.qr(m @ q)
    m.sub_(p @ (m.t() @ p).t())
q = torch.randn(cols, 4)
case = {"topk": topk, "randk": randk, "fp16": lambda: cast(torch.float16),
        "bf16": lambda: cast(torch.bfloat16), "sign": sign, "powersgd": powersgd}.get(name)
if case:
    times = []
    for r in range(repetitions + 1):
        start = time.perf_counter()
        case()
        times.append(1e3 * (time.perf_counter() - start))
    print(statistics.median(times[1:]))
)py";

// Empty when the peer has no counterpart.
StatusOr<std::optional<double>> PeerMs(const std::string& name, const BenchEncodeConfig& config) {
  int fds[2];
  if (pipe(fds) != 0) return BugError("bench encode: no pipe");
  const std::string rows = std::to_string(config.rows), cols = std::to_string(config.cols);
  const std::string repetitions = std::to_string(config.repetitions);
  const pid_t child = fork();
  if (child == 0) {
    dup2(fds[1], STDOUT_FILENO);
    close(fds[0]);
    close(fds[1]);
    execlp(config.python.c_str(), config.python.c_str(), "-c", kTorchPeer, name.c_str(),
           rows.c_str(), cols.c_str(), repetitions.c_str(), nullptr);
    _exit(127);
  }
  close(fds[1]);
  std::string text;
  char buffer[256];
  for (ssize_t n = 0; (n = read(fds[0], buffer, sizeof(buffer))) > 0;) {
    text.append(buffer, static_cast<size_t>(n));
  }
  close(fds[0]);
  int code = -1;
  if (child < 0 || waitpid(child, &code, 0) != child || code != 0) {
    return ConfigError("bench.python = \"" + config.python + "\" does not run the peer " +
                       config.peer);
  }
  if (text.empty()) return std::optional<double>();
  return std::optional<double>(std::strtod(text.c_str(), nullptr));
}

Status Row(const ConfigSection& section, const std::string& name, const BenchEncodeConfig& config,
           bool json, Arena& arena, std::ostream& out) {
  TW_ASSIGN_OR_RETURN(auto codec, Registry<Compressor>::Get().Find(name)->make(section));
  TW_ASSIGN_OR_RETURN(const Timing timing, Measure(*codec, config, arena));
  std::optional<double> peer_ms;
  if (!config.peer.empty()) {
    TW_ASSIGN_OR_RETURN(peer_ms, PeerMs(name, config));
  }
  const auto bits = section.values.find("bits");
  const bool has_bits =
      bits != section.values.end() && std::holds_alternative<int64_t>(bits->second.value);
  if (json) {
    nlohmann::ordered_json row = {{"bench", "encode"},
                                  {"name", name},
                                  {"feedback", "ef14"},
                                  {"numel", config.rows * config.cols},
                                  {"threads", 1},
                                  {"simd", kernels::SimdTarget()},
                                  {"ms", timing.encode_ms},
                                  {"copy_ms", timing.copy_ms},
                                  {"copy_ratio", timing.encode_ratio},
                                  {"decode_ms", timing.decode_ms},
                                  {"decode_ratio", timing.decode_ratio},
                                  {"wire_bytes", timing.wire_bytes}};
    if (has_bits) row["bits"] = std::get<int64_t>(bits->second.value);
    if (peer_ms) row["peer"] = config.peer, row["peer_ms"] = *peer_ms;
    out << row.dump() << std::endl;
    return OkStatus();
  }
  out << std::left << std::setw(14)
      << (has_bits ? name + " " + std::to_string(std::get<int64_t>(bits->second.value)) : name)
      << std::right << std::fixed << std::setprecision(2) << std::setw(9) << timing.encode_ms
      << std::setw(9) << timing.copy_ms << std::setw(8) << timing.encode_ratio << std::setw(10)
      << timing.decode_ms << std::setw(8) << timing.decode_ratio << std::setw(12)
      << timing.wire_bytes;
  if (peer_ms) out << std::setw(10) << *peer_ms;
  out << std::endl;
  return OkStatus();
}

// M Q and P^T M, each passing over M once.
Status Products(const BenchEncodeConfig& config, bool json, std::ostream& out) {
  const kernels::LowRankShape shape{config.rows, config.cols, config.products};
  Arena arena(static_cast<size_t>(config.rows * config.cols));
  std::vector<float> p(static_cast<size_t>(shape.rows * shape.rank), 0.5f);
  std::vector<float> qt(static_cast<size_t>(shape.cols * shape.rank), 0.5f);
  const MessageView message{arena.gradient};
  std::vector<double> first, second, ratios;
  for (int64_t repetition = -2; repetition < config.repetitions; ++repetition) {
    const double start = NowMs();
    kernels::MaterializeTimesQ(message, shape, qt.data(), p.data());
    const double middle = NowMs();
    kernels::TransposeTimesM(arena.gradient.data(), shape, p.data(), qt.data());
    const double end = NowMs();
    if (repetition < 0) continue;
    first.push_back(middle - start);
    second.push_back(end - middle);
    ratios.push_back((end - start) / (2 * (middle - start)));
  }
  if (json) {
    out << nlohmann::ordered_json{{"bench", "encode"},
                                  {"products", config.products},
                                  {"rows", config.rows},
                                  {"cols", config.cols},
                                  {"mq_ms", Median(first)},
                                  {"ptm_ms", Median(second)},
                                  {"over_twice_mq", Median(ratios)}}
               .dump()
        << std::endl;
    return OkStatus();
  }
  out << std::fixed << std::setprecision(3) << "M Q " << Median(first) << " ms, P^T M "
      << Median(second) << " ms; both over twice M Q: " << std::setprecision(2) << Median(ratios)
      << std::endl;
  return OkStatus();
}

Status RunRows(const ConfigSection& section, const BenchEncodeConfig& config, bool json,
               std::ostream& out) {
  const auto& registry = Registry<Compressor>::Get();
  std::vector<std::string> names = registry.names();
  if (!config.name.empty()) {
    TW_RETURN_IF_ERROR(registry.Select(section, config.name));
    names = {config.name};
  }
  Arena arena(static_cast<size_t>(config.rows * config.cols));
  if (!json) {
    out << "codec           encode     copy   ratio    decode   ratio  wire bytes"
        << (config.peer.empty() ? "" : "      peer") << std::endl;
  }
  for (const std::string& name : names) {
    const auto& fields = registry.Find(name)->fields;
    const bool takes_bits = std::any_of(fields.begin(), fields.end(),
                                        [](const FieldInfo& field) { return field.key == "bits"; });
    if (!takes_bits || section.has("bits")) {
      TW_RETURN_IF_ERROR(Row(section, name, config, json, arena, out));
      continue;
    }
    for (const int64_t bits : {8, 4}) {
      ConfigSection with_bits = section;
      with_bits.Set("bits", bits);
      TW_RETURN_IF_ERROR(Row(with_bits, name, config, json, arena, out));
    }
  }
  return OkStatus();
}

}  // namespace

Status RunBenchEncode(const std::vector<std::string>& overrides, bool json, std::ostream& out) {
  Config given;
  for (const std::string& assignment : overrides) TW_RETURN_IF_ERROR(given.Override(assignment));
  TW_RETURN_IF_ERROR(given.CheckSections({"", "compressor"}));
  // `name=topk ratio=0.1` and `compressor.name=topk compressor.ratio=0.1` mean the same.
  ConfigSection section = given.section("");
  section.name = "bench";
  for (const auto& [key, value] : given.section("compressor").values) section.values[key] = value;
  TW_ASSIGN_OR_RETURN(BenchEncodeConfig config, ParseFields<BenchEncodeConfig>(section));
  TW_RETURN_IF_ERROR(ChooseShape(section, &config));
  std::vector<std::string> known = Registry<Compressor>::Get().all_keys();
  for (const auto& [key, value] : DumpFields(BenchEncodeConfig())) known.push_back(key);
  std::vector<std::string> idle;
  TW_RETURN_IF_ERROR(CheckKeys(section, known, {}, &idle));
  if (!config.simd.empty() && !kernels::LimitSimdTarget(config.simd)) {
    return ConfigError("bench.simd = \"" + config.simd + "\" is not offered here" +
                       KnownWords(config.simd, kernels::SimdTargets()));
  }
  const Status status =
      config.products > 0 ? Products(config, json, out) : RunRows(section, config, json, out);
  kernels::LimitSimdTarget("");
  return status;
}

}  // namespace tw
