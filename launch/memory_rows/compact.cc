// Row compact: what q, k, v, gate, up and down of a llama layer keep from forward to backward, with
// a codec (core/api/activation_codec.h) and without. Here the bytes are those kept, not a peak:
// whatever is alive after the six forward passes beside their outputs.

#include "core/engine/tensor_memory.h"
#include "core/nn/layers.h"
#include "core/nn/linear_input.h"
#include "core/nn/torch.h"
#include "launch/bench_memory.h"

namespace tw {
namespace {

struct CompactRowConfig {
  int64_t tokens = 4096;
  int64_t width = 256;
  int64_t hidden = 896;
  std::string codec = "compact";
  double compact_rank = 0.25;
  static FieldList<CompactRowConfig> Fields() {
    return FieldList<CompactRowConfig>()
        .Int("tokens", &CompactRowConfig::tokens, {1, 1 << 24}, "rows")
        .Int("width", &CompactRowConfig::width, {1, 1 << 20}, "features of a row")
        .Int("hidden", &CompactRowConfig::hidden, {1, 1 << 20}, "features inside the MLP")
        .Text("codec", &CompactRowConfig::codec, Registry<ActivationCodec>::Get().names(),
              "memory.activations")
        .Real("compact_rank", &CompactRowConfig::compact_rank, {0, 1, kOpenLow},
              "memory.compact_rank");
  }
};

double Median(std::vector<double> v) {
  std::sort(v.begin(), v.end());
  return v[v.size() / 2];
}

class CompactRow : public MemoryRow {
 public:
  explicit CompactRow(const CompactRowConfig& config) : c_(config) {}

  StatusOr<Result> Measure(int64_t repetitions, const BenchDevice& device) const override {
    ConfigSection section;
    section.Set("compact_rank", c_.compact_rank);
    TW_ASSIGN_OR_RETURN(auto made, Registry<ActivationCodec>::Get().Find(c_.codec)->make(section));
    const Layer ours(c_, std::move(made), device), plain(c_, nullptr, device);
    std::vector<double> our_times, plain_times;
    Result result;
    for (int64_t i = 0; i <= repetitions; ++i) {
      TW_ASSIGN_OR_RETURN(result.ours, ours.Run());
      TW_ASSIGN_OR_RETURN(result.plain, plain.Run());
      if (i == 0) continue;
      our_times.push_back(result.ours.ms);
      plain_times.push_back(result.plain.ms);
    }
    result.ours.ms = Median(our_times);
    result.plain.ms = Median(plain_times);
    result.more = {{"tokens", c_.tokens},
                   {"width", c_.width},
                   {"hidden", c_.hidden},
                   {"codec", c_.codec},
                   {"compact_rank", c_.compact_rank}};
    return result;
  }

 private:
  // Linear layers in groups that share an input.
  struct Layer {
    struct Group {
      int64_t features;
      std::vector<std::shared_ptr<Linear>> layers;
      std::shared_ptr<const LinearInput> input;
    };
    Layer(const CompactRowConfig& c, std::shared_ptr<const ActivationCodec> codec,
          const BenchDevice& on)
        : tokens(c.tokens), device(on) {
      LinearInputs inputs(std::move(codec), 1);
      const auto group = [&](int64_t in, std::initializer_list<int64_t> outs) {
        Group g{in, {}, inputs.Make(in)};
        for (const int64_t out : outs) {
          g.layers.push_back(std::make_shared<Linear>(in, out, false));
          g.layers.back()->weight.data().fill_(0.01);
          g.layers.back()->to(device.tensors());
          g.layers.back()->KeepInputAs(g.input);
        }
        groups.push_back(std::move(g));
      };
      group(c.width, {c.width, c.width, c.width});
      group(c.width, {c.hidden, c.hidden});
      group(c.hidden, {c.width});
    }
    StatusOr<MemoryUse> Run() const {
      MemoryUse use;
      TW_ASSIGN_OR_RETURN(use.ms, device.Time(1, [&] {
        use.extra_peak_bytes = KeptBytes();
        return OkStatus();
      }));
      return use;
    }
    // Of forward passes, whose backward then runs.
    int64_t KeptBytes() const {
      const at::Device where = device.tensors();
      const int64_t before = LiveTensorBytes(where);
      int64_t outputs = 0;
      std::vector<at::Tensor> ys;
      for (const Group& g : groups) {
        // Not a leaf, whose own node would keep it: made of one number, and kept by the layers
        // only.
        const at::Tensor x =
            torch::ones({1}).to(where).requires_grad_().expand({tokens, g.features}) * 0.5;
        const PackedInput in = PackInput(g.input, x);
        for (const auto& layer : g.layers) {
          ys.push_back(layer->Forward(in));
          outputs += static_cast<int64_t>(ys.back().nbytes());
        }
      }
      const int64_t kept = LiveTensorBytes(where) - before - outputs;
      at::Tensor loss = torch::zeros({}).to(where);
      for (const at::Tensor& y : ys) loss = loss + y.sum();
      loss.backward();
      return kept;
    }
    const int64_t tokens;
    const BenchDevice& device;
    std::vector<Group> groups;
  };

  CompactRowConfig c_;
};

StatusOr<std::unique_ptr<MemoryRow>> Create(const CompactRowConfig& config) {
  return std::make_unique<CompactRow>(config);
}

TW_REGISTER(MemoryRow, compact, 0, CompactRowConfig, Create,
            "what q, k, v, gate, up and down keep of their inputs");

}  // namespace
}  // namespace tw
