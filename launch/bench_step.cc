#include "launch/bench_step.h"

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <algorithm>
#include <nlohmann/json.hpp>

#include "absl/strings/str_format.h"
#include "core/api/tensor_scope.h"
#include "core/base/clock.h"
#include "core/base/rng.h"
#include "core/engine/tensor_memory.h"
#include "core/engine/update.h"
#include "core/nn/model/gpt.h"
#include "launch/bench_device.h"
#include "launch/choose_device.h"
#include "launch/compose.h"
#include "launch/peer_process.h"

namespace tw {
namespace {

struct BenchStepConfig {
  int64_t blocks = 9;
  int64_t block_steps = 8;
  std::string device = "cpu";
  std::string peer;
  std::string python = "python3";
  static FieldList<BenchStepConfig> Fields() {
    return FieldList<BenchStepConfig>()
        .Int("blocks", &BenchStepConfig::blocks, {1, 1 << 20}, "of each way; medians over these")
        .Int("block_steps", &BenchStepConfig::block_steps, {1, 1 << 20}, "steps of a block")
        .Text("device", &BenchStepConfig::device, kBenchDevices, kBenchDeviceHelp)
        .Text("peer", &BenchStepConfig::peer, {"", "torch"}, "step the same in PyTorch, too")
        .Text("python", &BenchStepConfig::python, {}, "interpreter that can import the peer");
  }
};

// The model of core/nn/model/gpt.h as one writes it in PyTorch. Pure bf16 is all of it there,
// norms, tables and moments included.
constexpr const char* kTorchPeer = R"py(
import sys, time
import torch
from torch import nn
from torch.nn import functional
device, precision = sys.argv[1:3]
layers, width, heads, context, vocab, batch, steps, threads = map(int, sys.argv[3:])
torch.set_num_threads(threads)
torch.manual_seed(0)
class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.ln1, self.ln2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc, self.out = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
    def forward(self, x):
        b, t, _ = x.shape
        q, k, v = self.qkv(self.ln1(x)).view(b, t, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.proj(mixed.transpose(1, 2).reshape(b, t, width))
        return x + self.out(functional.gelu(self.fc(self.ln2(x)), approximate="tanh"))
class Gpt(nn.Module):
    def __init__(self):
        super().__init__()
        self.tok, self.pos = nn.Embedding(vocab, width), nn.Embedding(context, width)
        self.blocks = nn.ModuleList(Block() for _ in range(layers))
        self.lnf = nn.LayerNorm(width)
        for p in self.parameters():
            if p.dim() == 2:
                nn.init.normal_(p, std=0.02)
    def forward(self, ids):
        x = self.tok(ids[:, :-1]) + self.pos.weight
        for block in self.blocks:
            x = block(x)
        scores = functional.linear(self.lnf(x), self.tok.weight).float()
        return functional.cross_entropy(scores.flatten(0, 1), ids[:, 1:].flatten())
model = Gpt().to(device)
if precision == "bf16_pure":
    model = model.to(torch.bfloat16)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
text = torch.randint(0, vocab, (1 << 20,))
def step():
    starts = torch.randint(0, len(text) - context - 1, (batch, 1))
    ids = text[starts + torch.arange(context + 1)].to(device)
    optimizer.zero_grad(set_to_none=True)
    with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
        loss = model(ids)
    loss.backward()
    optimizer.step()
print("ready", flush=True)
wait = torch.cuda.synchronize if device == "cuda" else lambda: None
for line in sys.stdin:
    if line.strip() == "peak":
        print(torch.cuda.max_memory_allocated() if device == "cuda" else 0, flush=True)
        continue
    wait()
    start = time.perf_counter()
    for _ in range(steps):
        step()
    wait()
    print(1e3 * (time.perf_counter() - start) / steps, flush=True)
)py";

// Null without a peer.
StatusOr<std::unique_ptr<PeerProcess>> StartPeer(const BenchStepConfig& bench,
                                                 const LoadedConfig& loaded,
                                                 const Assembly& assembly) {
  if (bench.peer.empty()) return std::unique_ptr<PeerProcess>();
  const Settings& s = loaded.settings;
  const bool pure = s.train.precision == "bf16_pure";
  if (s.model_name != "gpt" || s.optimizer.name != "adamw" ||
      (s.train.weights != "fp32" && !pure)) {
    return ConfigError(
        "bench step: peer = torch knows model.name = gpt, optimizer.name = adamw and train.weights "
        "= fp32, or bf16 with train.precision = bf16_pure, only");
  }
  TW_ASSIGN_OR_RETURN(const auto model, ParseFields<GptConfig>(loaded.config.section("model")));
  const auto rows = [&](const char* name) {
    for (const auto& [key, tensor] : assembly.parameters) {
      if (key == name) return std::to_string(tensor.size(0));
    }
    return std::string("0");
  };
  return PeerProcess::Start(
      bench.python, kTorchPeer,
      {bench.device, s.train.precision, std::to_string(model.layers), std::to_string(model.width),
       std::to_string(model.heads), rows("pos.weight"), rows("tok.weight"),
       std::to_string(s.train.batch_size), std::to_string(bench.block_steps),
       std::to_string(at::get_num_threads())});
}

double Median(std::vector<double> v) {
  std::sort(v.begin(), v.end());
  return v.size() % 2 ? v[v.size() / 2] : (v[v.size() / 2 - 1] + v[v.size() / 2]) / 2;
}

// 90 % percentile bootstrap interval of the median; seeded.
std::pair<double, double> BootstrapInterval(const std::vector<double>& values) {
  constexpr int kResamples = 2000;
  const auto stream = RngStream::Of(1, RngPurpose::kTest, 0, 0, 0);
  std::vector<double> medians, sample(values.size());
  uint64_t draw = 0;
  for (int i = 0; i < kResamples; ++i) {
    for (double& x : sample) x = values[stream.Below(draw++, values.size())];
    medians.push_back(Median(sample));
  }
  std::sort(medians.begin(), medians.end());
  return {medians[kResamples * 5 / 100], medians[kResamples * 95 / 100]};
}

// One model with its optimizer state, stepped in one of the two ways.
class Stepper {
 public:
  // All outlive it.
  static StatusOr<std::unique_ptr<Stepper>> Create(const LoadedConfig& loaded, World& world,
                                                   at::Device tensors, bool reduced) {
    const int64_t before = LiveTensorBytes(tensors);
    auto s = std::make_unique<Stepper>(loaded.settings, world, tensors);
    TW_ASSIGN_OR_RETURN(s->assembly_, Assemble(loaded, 0, 1, 0, tensors));
    if (world.device().memory) {
      TW_RETURN_IF_ERROR(Annotate(CheckOnDevice(loaded.settings, *s->assembly_, /*grouped=*/false),
                                  "bench.device = cuda"));
    }
    if (reduced) {
      s->reducer_ = std::make_unique<GradientReducer>(
          s->assembly_->parameters, s->assembly_->plan.get(), &world.gradient_comm(), &world.lane(),
          &s->state_,
          ReducerOptions{.bucket_cap_bytes =
                             static_cast<int64_t>(loaded.settings.comm.bucket_cap_mb * (1 << 20)),
                         .overlap = loaded.settings.comm.overlap,
                         .seed = static_cast<uint64_t>(loaded.settings.train.seed),
                         .sketches = s->assembly_->sketches,
                         .device = world.device()});
    }
    s->own_bytes_ = LiveTensorBytes(tensors) - before;
    return s;
  }
  Stepper(const Settings& settings, World& world, at::Device tensors)
      : settings_(settings),
        device_(world.device()),
        tensors_(tensors),
        state_(device_.memory),
        scratch_(device_.memory) {}

  const Assembly& assembly() const { return *assembly_; }
  int64_t peak_bytes() const { return peak_bytes_; }

  // Milliseconds a step.
  StatusOr<double> Block(int64_t steps) {
    TW_RETURN_IF_ERROR(Wait());
    const int64_t before = LiveTensorBytes(tensors_);
    ResetPeakTensorBytes(tensors_);
    const double start = NowMs();
    for (int64_t i = 0; i < steps; ++i) TW_RETURN_IF_ERROR(Step());
    TW_RETURN_IF_ERROR(Wait());
    const double ms = (NowMs() - start) / static_cast<double>(steps);
    const int64_t scratch =
        static_cast<int64_t>(scratch_.bytes()) + (reducer_ ? reducer_->scratch_bytes() : 0);
    peak_bytes_ = std::max(
        peak_bytes_, own_bytes_ + PeakTensorBytes(tensors_) - before + state_.bytes() + scratch);
    if (!reducer_) ForgetGradients();  // the other way's blocks are without them
    return ms;
  }

 private:
  Status Wait() { return device_.training ? device_.training->Wait() : OkStatus(); }

  Status Step() {
    ++update_;
    const uint64_t step = static_cast<uint64_t>(update_);
    if (reducer_) {
      reducer_->ZeroGradients();
      const at::Tensor loss = assembly_->task->Loss(step, 0);
      reducer_->Arm(step);
      loss.backward();
      double sums[] = {0.0};
      TW_RETURN_IF_ERROR(reducer_->Finish(sums).status());
      return Update(reducer_->views());
    }
    ForgetGradients();
    const Sketches& sketches = assembly_->sketches;
    assembly_->task->Loss(step, 0).backward();
    views_.clear();
    for (size_t i = 0; i < assembly_->parameters.size(); ++i) {
      const auto& [name, parameter] = assembly_->parameters[i];
      const auto sketch = sketches.find(name);
      views_.push_back({&assembly_->plan->parameters()[i].spec, ViewOf(parameter),
                        ViewOf(GradientLeaf(sketches, name, parameter).grad()),
                        sketch == sketches.end() ? nullptr : sketch->second.expansion});
    }
    return Update(views_);
  }

  void ForgetGradients() {
    for (const auto& [name, parameter] : assembly_->parameters) {
      at::Tensor leaf = GradientLeaf(assembly_->sketches, name, parameter);
      leaf.mutable_grad() = at::Tensor();
    }
  }

  Status Update(std::span<const ParameterView> views) {
    const DeviceScope scope(device_.training);
    return tw::Update(*assembly_->optimizer, views,
                      {.lr = settings_.optimizer.lr,
                       .update = update_,
                       .state = &state_,
                       .treatments = assembly_->treatments,
                       .scratch = &scratch_,
                       .seed = static_cast<uint64_t>(settings_.train.seed),
                       .masters = assembly_->masters});
  }

  const Settings& settings_;
  const RunDevice device_;
  const at::Device tensors_;
  std::unique_ptr<Assembly> assembly_;
  StateBag state_;
  Workspace scratch_;
  std::unique_ptr<GradientReducer> reducer_;
  std::vector<ParameterView> views_;
  int64_t update_ = 0;
  int64_t own_bytes_ = 0;  // tensors that stay
  int64_t peak_bytes_ = 0;
};

// Words without a dot are the bench's, but `name`, which is the run's.
Status SplitWords(const std::vector<std::string>& arguments, Config* own,
                  std::vector<std::string>* overrides, std::vector<std::string>* known) {
  for (const FieldInfo& field : BenchStepConfig::Fields().infos()) known->push_back(field.key);
  for (const std::string& argument : arguments) {
    const std::string key = argument.substr(0, argument.find('='));
    if (std::find(known->begin(), known->end(), key) == known->end()) {
      overrides->push_back(argument);
    } else {
      TW_RETURN_IF_ERROR(own->Override("bench." + argument));
    }
  }
  return OkStatus();
}

// Times of blocks, one a round, and what they are compared by.
struct Ratio {
  double median, low, high;
};
Ratio RatioOf(const std::vector<double>& a, const std::vector<double>& b) {
  std::vector<double> ratios;
  for (size_t i = 0; i < a.size(); ++i) ratios.push_back(a[i] / b[i]);
  const auto [low, high] = BootstrapInterval(ratios);
  return {Median(ratios), low, high};
}

Status Compare(const BenchStepConfig& bench, const LoadedConfig& loaded, World& world,
               const ChosenDevice& device, bool json, std::ostream& out) {
  TW_ASSIGN_OR_RETURN(auto reduced, Stepper::Create(loaded, world, device.tensors, true));
  TW_ASSIGN_OR_RETURN(auto plain, Stepper::Create(loaded, world, device.tensors, false));
  TW_ASSIGN_OR_RETURN(const auto peer, StartPeer(bench, loaded, plain->assembly()));
  std::vector<std::function<StatusOr<double>()>> ways = {
      [&] { return reduced->Block(bench.block_steps); },
      [&] { return plain->Block(bench.block_steps); }};
  if (peer) ways.push_back([&] { return peer->Turn(); });
  for (const auto& way : ways) TW_RETURN_IF_ERROR(way().status());  // warm: first steps allocate
  std::vector<std::vector<double>> times(ways.size());
  for (int64_t b = 0; b < bench.blocks; ++b) {
    // Each comes first in turn: drift of the machine favours none.
    for (size_t i = 0; i < ways.size(); ++i) {
      const size_t way = (i + static_cast<size_t>(b)) % ways.size();
      TW_ASSIGN_OR_RETURN(const double ms, ways[way]());
      times[way].push_back(ms);
    }
  }
  const Ratio ratio = RatioOf(times[0], times[1]);
  Ratio with_peer{}, plain_peer{};
  double peer_bytes = 0;
  if (peer) {
    with_peer = RatioOf(times[0], times[2]);
    plain_peer = RatioOf(times[1], times[2]);
    TW_ASSIGN_OR_RETURN(peer_bytes, peer->Turn("peak"));
  }
  const std::string& name = loaded.settings.compressor.name;
  const bool pure = loaded.settings.train.precision == "bf16_pure";
  const int threads = at::get_num_threads();
  if (json) {
    nlohmann::ordered_json j = {{"bench", "step"},
                                {"name", name},
                                {"ranks", 1},
                                {"threads", threads},
                                {"blocks", bench.blocks},
                                {"block_steps", bench.block_steps},
                                {"ms", Median(times[0])},
                                {"plain_ms", Median(times[1])},
                                {"ratio", ratio.median},
                                {"ratio_low", ratio.low},
                                {"ratio_high", ratio.high},
                                {"peak_bytes", reduced->peak_bytes()},
                                {"plain_peak_bytes", plain->peak_bytes()}};
    if (!device.name.empty()) j["device"] = device.name;
    if (peer) {
      j["peer"] = bench.peer;
      if (pure) j["peer_parameters"] = "bf16";
      j["peer_ms"] = Median(times[2]);
      j["peer_ratio"] = with_peer.median;
      j["plain_peer_ratio"] = plain_peer.median;
      j["plain_peer_ratio_low"] = plain_peer.low;
      j["plain_peer_ratio_high"] = plain_peer.high;
      if (peer_bytes > 0) j["peer_peak_bytes"] = static_cast<int64_t>(peer_bytes);
    }
    out << j.dump() << "\n";
    return OkStatus();
  }
  const auto mb = [](double bytes) { return absl::StrFormat("%.1f MB", bytes / (1 << 20)); };
  out << absl::StrFormat(
      "step with the reducer (%s) %.2f ms, without %.2f ms: ratio %.4f, 90 %% interval %.4f .. "
      "%.4f (%d alternating pairs of blocks of %d steps, %s)\n",
      name, Median(times[0]), Median(times[1]), ratio.median, ratio.low, ratio.high, bench.blocks,
      bench.block_steps,
      device.name.empty() ? absl::StrFormat("%d thread%s", threads, threads == 1 ? "" : "s")
                          : device.name);
  if (peer) {
    out << absl::StrFormat(
        "PyTorch%s %.2f ms: without the reducer over it %.4f, 90 %% interval %.4f .. %.4f; with it "
        "%.4f\n",
        pure ? " (model.to(torch.bfloat16), fused AdamW on bf16 parameters)" : "", Median(times[2]),
        plain_peer.median, plain_peer.low, plain_peer.high, with_peer.median);
  }
  out << "peak with the reducer " << mb(static_cast<double>(reduced->peak_bytes())) << ", without "
      << mb(static_cast<double>(plain->peak_bytes()));
  if (peer_bytes > 0) out << ", PyTorch " << mb(peer_bytes);
  out << "\n";
  return OkStatus();
}

}  // namespace

Status RunBenchStep(const std::vector<std::string>& arguments, bool json, std::ostream& out,
                    const DeviceModule* devices) {
  InstallTensorMemoryCounter();
  Config own;
  std::vector<std::string> overrides = {"data.path=synthetic"}, known;
  TW_RETURN_IF_ERROR(SplitWords(arguments, &own, &overrides, &known));
  TW_ASSIGN_OR_RETURN(const auto bench, ParseFields<BenchStepConfig>(own.section("bench")));
  for (const std::string& word : overrides) {
    if (word.starts_with("train.device=")) {
      return ConfigError("bench step: write device = cpu or cuda in place of train.device");
    }
  }
  overrides.push_back("train.device=" + bench.device);
  TW_ASSIGN_OR_RETURN(const LoadedConfig loaded, LoadedConfig::Load("", overrides, known));
  TW_ASSIGN_OR_RETURN(const auto world, World::Open("thread", 60));
  const DeviceModule& found = devices ? *devices : ThisMachinesDevices();
  std::string note;
  TW_RETURN_IF_ERROR(OpenChosenDevice(loaded, found, *world, &note));
  at::set_num_threads(static_cast<int>(std::max<int64_t>(1, loaded.settings.train.threads)));
  SetTensorQueue(world->device().training);
  const Status status = Compare(bench, loaded, *world, DeviceOf(found, *world), json, out);
  SetTensorQueue(nullptr);
  return status;
}

}  // namespace tw
