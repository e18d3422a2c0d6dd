#include "launch/bench_encode.h"

#include <algorithm>
#include <iomanip>
#include <nlohmann/json.hpp>
#include <optional>

#include "core/api/compressor.h"
#include "core/kernels/lowrank.h"
#include "core/kernels/simd_target.h"
#include "launch/bench_device.h"
#include "launch/peer_process.h"

namespace tw {
namespace {

struct BenchEncodeConfig {
  std::string name;
  int64_t numel = 0;
  int64_t rows = 5000;
  int64_t cols = 5000;
  int64_t repetitions = 9;
  int64_t products = 0;
  std::string feedback = "ef14";
  std::string device = "cpu";
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
        .Text("feedback", &BenchEncodeConfig::feedback, {"ef14", "none"},
              "none: the message is there, and no gradient waits to be added to it")
        .Text("device", &BenchEncodeConfig::device, kBenchDevices, kBenchDeviceHelp)
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

// The numbers of a bench, where its device has them. Made and used in a DeviceScope.
struct Arena {
  Arena(const BenchDevice& on, size_t numel)
      : device(on),
        memory(on.memory()),
        gradient(memory.Get<float>(0, numel)),
        error(memory.Get<float>(1, numel)),
        copy(memory.Get<float>(2, numel)),
        mean(memory.Get<float>(3, numel)) {
    FillBellShaped(gradient, 1e-3f, 1);  // of an ordinary gradient's size
    for (const auto& zeros : {error, copy, mean}) ZeroBytes(zeros.data(), zeros.size_bytes());
  }
  StatusOr<double> TimedCopy() const {
    return device.Time(1, [&] {
      CopyBytes(copy.data(), gradient.data(), gradient.size_bytes());
      return OkStatus();
    });
  }

  const BenchDevice& device;
  Workspace memory;
  std::span<float> gradient, error, copy, mean;
};

struct Timing {
  double copy_ms, encode_ms, decode_ms, encode_ratio, decode_ratio;
  std::optional<double> peer_ms;
  int64_t wire_bytes = 0;  // of all rounds
  // Parts that were reached of what memory allows: each number read or written once, and the body.
  double encode_of_bound, decode_of_bound;
};

double Median(std::vector<double> x) {
  std::sort(x.begin(), x.end());
  return (x[x.size() / 2] + x[(x.size() - 1) / 2]) / 2;
}

StatusOr<Timing> Measure(const Compressor& codec, const BenchEncodeConfig& config,
                         PeerProcess* peer, Arena& arena) {
  const TensorSpec spec = {.id = 0, .name = "bench", .shape = {config.rows, config.cols}};
  StateBag bag(arena.device.memory());
  const StateScope state(&bag, "codec/bench/", StatePlace::kTensors);
  Workspace scratch(arena.device.memory()), bodies(arena.device.memory());
  CodecContext context;
  context.spec = &spec;
  context.state = &state;
  context.scratch = &scratch;
  const int rounds = codec.traits().rounds;
  std::vector<MutableByteSpan> body_of;
  for (int round = 0; round < rounds; ++round) {
    body_of.push_back(
        bodies.Get<uint8_t>(round, static_cast<size_t>(codec.MaxEncodedBytes(spec, round))));
  }
  const bool pending = config.feedback == "ef14";
  ZeroBytes(arena.error.data(), arena.error.size_bytes());
  std::vector<double> copies, encodes, decodes, peers, encode_ratios, decode_ratios;
  Timing timing = {};
  ByteSpan body;
  const auto encode = [&]() -> Status {
    Message message{ViewOf(arena.error), pending ? ViewOf(arena.gradient) : TensorView{}, 1.0f};
    body = {};
    timing.wire_bytes = 0;
    for (int round = 0; round < rounds; ++round) {
      const MutableByteSpan to = body_of[static_cast<size_t>(round)];
      TW_ASSIGN_OR_RETURN(const int64_t size, codec.EncodeAny(round, body, message, context, to));
      body = ByteSpan(to).first(static_cast<size_t>(size));
      timing.wire_bytes += size;
    }
    return OkStatus();
  };
  constexpr int64_t kWarmUp = 2;
  for (int64_t repetition = -kWarmUp; repetition < config.repetitions; ++repetition) {
    context.step = static_cast<uint64_t>(repetition + kWarmUp);
    TW_ASSIGN_OR_RETURN(const double first_copy, arena.TimedCopy());
    if (!pending) CopyBytes(arena.error.data(), arena.gradient.data(), arena.error.size_bytes());
    TW_ASSIGN_OR_RETURN(const double encode_ms, arena.device.Time(1, encode));
    TW_ASSIGN_OR_RETURN(const double second_copy, arena.TimedCopy());
    TW_ASSIGN_OR_RETURN(const double decode_ms, arena.device.Time(1, [&] {
      return codec.DecodeAddAny(body, 1.0f, context, ViewOf(arena.mean));
    }));
    double peer_ms = 0;
    if (peer) {
      TW_ASSIGN_OR_RETURN(peer_ms, peer->Turn());
    }
    if (repetition < 0) continue;
    copies.push_back(first_copy);
    copies.push_back(second_copy);
    encodes.push_back(encode_ms);
    decodes.push_back(decode_ms);
    peers.push_back(peer_ms);
    encode_ratios.push_back(encode_ms / first_copy);
    decode_ratios.push_back(decode_ms / second_copy);
  }
  timing.copy_ms = Median(copies);
  timing.encode_ms = Median(encodes);
  timing.decode_ms = Median(decodes);
  timing.encode_ratio = Median(encode_ratios);
  timing.decode_ratio = Median(decode_ratios);
  if (peer) timing.peer_ms = Median(peers);
  // A copy moves eight bytes an element: it tells how many a second there are.
  const double copied = 8 * static_cast<double>(spec.numel());
  const double wire = static_cast<double>(timing.wire_bytes);
  timing.encode_of_bound = ((pending ? 1.5 : 1) * copied + wire) / copied / timing.encode_ratio;
  timing.decode_of_bound = (copied + wire) / copied / timing.decode_ratio;
  return timing;
}

// What the same costs written in PyTorch, error feedback included; none without a counterpart.
constexpr const char* kTorchPeer = R"py(
import sys, time
import torch
name, device, feedback = sys.argv[1:4]
rows, cols, bits, rank = map(int, sys.argv[4:])
torch.set_num_threads(1)
torch.manual_seed(0)
n = rows * cols
g, e = torch.randn(n, device=device) * 1e-3, torch.zeros(n, device=device)
if feedback == "none":
    add = lambda: e
else:
    add = lambda: e.add_(g)
def topk():
    add()
    _, i = torch.topk(e.abs(), max(1, n // 100), sorted=False)
    v = e[i]
    e[i] = 0
def randk():
    add()
    i = torch.randint(0, n, (max(1, n // 100),), device=device)
    v = e[i]
    e[i] = 0
def cast(dtype):
    add()
    e.sub_(e.to(dtype))
def sign():
    add()
    scale = e.abs().mean()
    e.sub_(torch.sign(e) * scale)
def blockquant():
    m = add().view(-1, 128)
    step = m.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
    codes = torch.round(m / step.clamp(min=1e-30)).to(torch.int8)
    m.sub_(codes * step)
def powersgd():
    m = add().view(rows, cols)
    p, _ = torch.linalg.qr(m @ q)
    m.sub_(p @ (m.t() @ p).t())
def products():
    m = g.view(rows, cols)
    p = m @ q
    m.t() @ p
q = torch.randn(cols, rank, device=device)
case = {"topk": topk, "randk": randk, "fp16": lambda: cast(torch.float16),
        "bf16": lambda: cast(torch.bfloat16), "sign": sign, "powersgd": powersgd,
        "products": products}.get(name)
if name == "blockquant" and n % 128 == 0:
    case = blockquant
print("ready" if case else "none", flush=True)
wait = torch.cuda.synchronize if device == "cuda" else lambda: None
for line in sys.stdin:
    if feedback == "none":
        e.copy_(g)
    wait()
    start = time.perf_counter()
    case()
    wait()
    print(1e3 * (time.perf_counter() - start), flush=True)
)py";

// Null without a peer, or where it has no counterpart.
StatusOr<std::unique_ptr<PeerProcess>> StartPeer(const std::string& name,
                                                 const BenchEncodeConfig& config, int64_t bits) {
  if (config.peer.empty()) return std::unique_ptr<PeerProcess>();
  const int64_t rank = config.products > 0 ? config.products : 4;
  return PeerProcess::Start(
      config.python, kTorchPeer,
      {name, config.device, config.feedback, std::to_string(config.rows),
       std::to_string(config.cols), std::to_string(bits), std::to_string(rank)});
}

Status Row(const ConfigSection& section, const std::string& name, const BenchEncodeConfig& config,
           bool json, Arena& arena, std::ostream& out) {
  TW_ASSIGN_OR_RETURN(auto codec, Registry<Compressor>::Get().Find(name)->make(section));
  const char* const host_only = codec->traits().host_only;
  if (host_only && arena.device.on_device()) {
    const std::string why = name + ": " + host_only;
    if (!config.name.empty()) return ConfigError("bench.device = cuda: " + why);
    if (!json) out << why << std::endl;
    return OkStatus();
  }
  const auto found = section.values.find("bits");
  std::optional<int64_t> bits;
  if (found != section.values.end() && std::holds_alternative<int64_t>(found->second.value)) {
    bits = std::get<int64_t>(found->second.value);
  }
  TW_ASSIGN_OR_RETURN(const auto peer, StartPeer(name, config, bits.value_or(0)));
  TW_ASSIGN_OR_RETURN(const Timing timing, Measure(*codec, config, peer.get(), arena));
  if (json) {
    nlohmann::ordered_json row = {{"bench", "encode"},
                                  {"name", name},
                                  {"feedback", config.feedback},
                                  {"numel", config.rows * config.cols},
                                  {"threads", 1},
                                  {"simd", kernels::SimdTarget()},
                                  {"ms", timing.encode_ms},
                                  {"copy_ms", timing.copy_ms},
                                  {"copy_ratio", timing.encode_ratio},
                                  {"of_bound", timing.encode_of_bound},
                                  {"decode_ms", timing.decode_ms},
                                  {"decode_ratio", timing.decode_ratio},
                                  {"decode_of_bound", timing.decode_of_bound},
                                  {"wire_bytes", timing.wire_bytes}};
    if (arena.device.on_device()) row["device"] = arena.device.name();
    if (bits) row["bits"] = *bits;
    if (peer) row["peer"] = config.peer, row["peer_ms"] = *timing.peer_ms;
    out << row.dump() << std::endl;
    return OkStatus();
  }
  out << std::left << std::setw(14) << (bits ? name + " " + std::to_string(*bits) : name)
      << std::right << std::fixed << std::setprecision(2) << std::setw(9) << timing.encode_ms
      << std::setw(9) << timing.copy_ms << std::setw(8) << timing.encode_ratio << std::setw(7)
      << timing.encode_of_bound << std::setw(10) << timing.decode_ms << std::setw(8)
      << timing.decode_ratio << std::setw(7) << timing.decode_of_bound << std::setw(12)
      << timing.wire_bytes;
  if (peer) out << std::setw(10) << *timing.peer_ms;
  out << std::endl;
  return OkStatus();
}

// M Q and P^T M, each passing over M once.
Status Products(const BenchEncodeConfig& config, bool json, Arena& arena, std::ostream& out) {
  const kernels::LowRankShape shape{config.rows, config.cols, config.products};
  const auto factor = [&](int slot, int64_t rows) {
    const std::vector<float> values(static_cast<size_t>(rows * shape.rank), 0.5f);
    const auto numbers = arena.memory.Get<float>(slot, values.size());
    PutBytes(numbers.data(), values.data(), numbers.size_bytes());
    return numbers;
  };
  const std::span<float> p = factor(4, shape.rows), qt = factor(5, shape.cols);
  const MessageView message{arena.gradient};
  TW_ASSIGN_OR_RETURN(const auto peer, StartPeer("products", config, 0));
  std::vector<double> first, second, ratios, copies, peers, peer_ratios;
  for (int64_t repetition = -2; repetition < config.repetitions; ++repetition) {
    TW_ASSIGN_OR_RETURN(const double copy, arena.TimedCopy());
    TW_ASSIGN_OR_RETURN(const double mq, arena.device.Time(1, [&] {
      kernels::MaterializeTimesQ(message, shape, qt.data(), p.data());
      return OkStatus();
    }));
    TW_ASSIGN_OR_RETURN(const double ptm, arena.device.Time(1, [&] {
      kernels::TransposeTimesM(arena.gradient.data(), shape, p.data(), qt.data());
      return OkStatus();
    }));
    double peer_ms = 1;
    if (peer) {
      TW_ASSIGN_OR_RETURN(peer_ms, peer->Turn());
    }
    if (repetition < 0) continue;
    copies.push_back(copy);
    first.push_back(mq);
    second.push_back(ptm);
    ratios.push_back((mq + ptm) / (2 * mq));
    peers.push_back(peer_ms);
    peer_ratios.push_back((mq + ptm) / peer_ms);
  }
  if (json) {
    nlohmann::ordered_json row = {{"bench", "encode"},
                                  {"products", config.products},
                                  {"rows", config.rows},
                                  {"cols", config.cols},
                                  {"mq_ms", Median(first)},
                                  {"ptm_ms", Median(second)},
                                  {"over_twice_mq", Median(ratios)},
                                  {"copy_ms", Median(copies)}};
    if (arena.device.on_device()) row["device"] = arena.device.name();
    if (peer) {
      row["peer"] = config.peer;
      row["peer_ms"] = Median(peers);
      row["peer_ratio"] = Median(peer_ratios);
    }
    out << row.dump() << std::endl;
    return OkStatus();
  }
  out << std::fixed << std::setprecision(3) << "M Q " << Median(first) << " ms, P^T M "
      << Median(second) << " ms; both over twice M Q: " << std::setprecision(2) << Median(ratios);
  if (peer) out << "; over the peer's two: " << Median(peer_ratios);
  out << std::endl;
  return OkStatus();
}

Status RunRows(const ConfigSection& section, const BenchEncodeConfig& config, bool json,
               Arena& arena, std::ostream& out) {
  const auto& registry = Registry<Compressor>::Get();
  std::vector<std::string> names = registry.names();
  if (!config.name.empty()) {
    TW_RETURN_IF_ERROR(registry.Select(section, config.name));
    names = {config.name};
  }
  if (!json) {
    if (arena.device.on_device()) out << arena.device.name() << std::endl;
    out << "codec           encode     copy   ratio  bound    decode   ratio  bound  wire bytes"
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

Status RunBenchEncode(const std::vector<std::string>& overrides, bool json, std::ostream& out,
                      const DeviceModule* devices) {
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
  const auto run = [&]() -> Status {
    TW_ASSIGN_OR_RETURN(const auto device, BenchDevice::Open(config.device, devices));
    const DeviceScope scope(device->queue());
    Arena arena(*device, static_cast<size_t>(config.rows * config.cols));
    return config.products > 0 ? Products(config, json, arena, out)
                               : RunRows(section, config, json, arena, out);
  };
  const Status status = run();
  kernels::LimitSimdTarget("");
  return status;
}

}  // namespace tw
