// Row head: LM head and cross entropy in pieces (core/nn/head_loss.h) against linear and
// cross_entropy, forward and backward into gradients that are there.

#include "core/nn/head_loss.h"
#include "core/nn/torch.h"
#include "launch/bench_memory.h"

namespace tw {
namespace {

struct HeadConfig {
  int64_t tokens = 4096;
  int64_t width = 256;
  int64_t vocab = 32000;
  int64_t chunks = 8;
  std::string form = "recompute";
  static FieldList<HeadConfig> Fields() {
    return FieldList<HeadConfig>()
        .Int("tokens", &HeadConfig::tokens, {1, 1 << 24}, "rows")
        .Int("width", &HeadConfig::width, {1, 1 << 20}, "features of a row")
        .Int("vocab", &HeadConfig::vocab, {1, 1 << 24}, "classes")
        .Int("chunks", &HeadConfig::chunks, {1, 1 << 20}, "memory.head_chunks")
        .Text("form", &HeadConfig::form, {"fused", "recompute"}, "memory.head_form");
  }
};

// ||a - b|| / ||b||
double RelativeError(const at::Tensor& a, const at::Tensor& b) {
  return ((a - b).norm() / b.norm()).item<double>();
}

class HeadRow : public MemoryRow {
 public:
  explicit HeadRow(const HeadConfig& config) : c_(config) {}

  StatusOr<Result> Measure(int64_t repetitions, const BenchDevice& device) const override {
    torch::manual_seed(1);
    const at::Device where = device.tensors();
    at::Tensor hidden = torch::randn({c_.tokens, c_.width}).to(where).requires_grad_();
    at::Tensor weight =
        (torch::randn({c_.vocab, c_.width}) / std::sqrt(static_cast<double>(c_.width)))
            .to(where)
            .requires_grad_();
    const at::Tensor labels = torch::randint(c_.vocab, {c_.tokens}, torch::kLong).to(where);
    weight.mutable_grad() = torch::zeros_like(weight);
    double losses[2] = {};
    at::Tensor dh[2], dw[2];
    const auto way = [&](int i, const std::function<at::Tensor()>& loss) {
      return [&, i, loss] {
        weight.grad().zero_();
        const at::Tensor value = loss();
        losses[i] = value.item<double>();
        value.backward();
        dh[i] = hidden.grad();
        hidden.mutable_grad() = at::Tensor();
      };
    };
    const auto ours = way(0, [&] {
      return HeadLoss(hidden, weight, labels, {c_.chunks, c_.form == "recompute"});
    });
    const auto plain =
        way(1, [&] { return at::cross_entropy_loss(at::linear(hidden, weight), labels); });
    Result result;
    TW_ASSIGN_OR_RETURN(const auto uses, MeasureWays({ours, plain}, repetitions, device));
    result.ours = uses[0];
    result.plain = uses[1];
    const std::function<void()> runs[] = {ours, plain};
    for (int i = 0; i < 2; ++i) {
      runs[i]();
      dw[i] = weight.grad().clone();
    }
    result.more = {{"tokens", c_.tokens},
                   {"width", c_.width},
                   {"vocab", c_.vocab},
                   {"chunks", c_.chunks},
                   {"form", c_.form},
                   {"loss_error", std::abs(losses[0] - losses[1]) / losses[1]},
                   {"hidden_gradient_error", RelativeError(dh[0], dh[1])},
                   {"weight_gradient_error", RelativeError(dw[0], dw[1])}};
    return result;
  }

 private:
  HeadConfig c_;
};

StatusOr<std::unique_ptr<MemoryRow>> Create(const HeadConfig& config) {
  return std::make_unique<HeadRow>(config);
}

TW_REGISTER(MemoryRow, head, 0, HeadConfig, Create, "LM head and cross entropy in pieces");

}  // namespace
}  // namespace tw
