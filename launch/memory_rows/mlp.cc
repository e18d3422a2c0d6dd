// Row mlp: a SwiGLU MLP in tiles that run again in backward (core/nn/recompute.h) against the same
// MLP as it is.

#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/zeros_like.h>

#include "core/nn/recompute.h"
#include "launch/bench_memory.h"

namespace tw {
namespace {

struct MlpRowConfig {
  int64_t tokens = 8192;
  int64_t width = 256;
  int64_t hidden = 896;
  int64_t tiles = 4;
  int64_t layers = 1;
  static FieldList<MlpRowConfig> Fields() {
    return FieldList<MlpRowConfig>()
        .Int("tokens", &MlpRowConfig::tokens, {1, 1 << 24}, "rows")
        .Int("width", &MlpRowConfig::width, {1, 1 << 20}, "features of a row")
        .Int("hidden", &MlpRowConfig::hidden, {1, 1 << 20}, "features inside")
        .Int("tiles", &MlpRowConfig::tiles, {1, 1 << 20}, "memory.mlp_chunks")
        .Int("layers", &MlpRowConfig::layers, {1, 1024}, "MLPs one after the other");
  }
};

class MlpRow : public MemoryRow {
 public:
  explicit MlpRow(const MlpRowConfig& config) : c_(config) {}

  StatusOr<Result> Measure(int64_t repetitions, const BenchDevice& device) const override {
    at::manual_seed(1);
    const at::Device where = device.tensors();
    at::Tensor x = at::randn({c_.tokens, c_.width}).to(where).requires_grad_();
    const auto weight = [where](int64_t out, int64_t in) {
      at::Tensor w = (at::randn({out, in}) / std::sqrt(static_cast<double>(in))).to(where);
      w.requires_grad_();
      w.mutable_grad() = at::zeros_like(w);
      return w;
    };
    const at::Tensor gate = weight(c_.hidden, c_.width), up = weight(c_.hidden, c_.width),
                     down = weight(c_.width, c_.hidden);
    const auto body = [&](const at::Tensor& rows) {
      return at::linear(at::silu(at::linear(rows, gate)) * at::linear(rows, up), down);
    };
    at::Tensor dx[2];
    const auto way = [&](int i, const TensorFn& layer) {
      return [&, i, layer] {
        at::Tensor y = x;
        for (int64_t l = 0; l < c_.layers; ++l) y = layer(y);
        y.sum().backward();
        dx[i] = x.grad();
        x.mutable_grad() = at::Tensor();
      };
    };
    const auto tiled = [&](const at::Tensor& rows) {
      return RecomputeTiled(body, rows, {gate, up, down}, c_.tiles);
    };
    TW_ASSIGN_OR_RETURN(const auto uses,
                        MeasureWays({way(0, tiled), way(1, body)}, repetitions, device));
    Result result;
    result.ours = uses[0];
    result.plain = uses[1];
    result.more = {
        {"tokens", c_.tokens},
        {"width", c_.width},
        {"hidden", c_.hidden},
        {"tiles", c_.tiles},
        {"layers", c_.layers},
        {"input_gradient_error", ((dx[0] - dx[1]).norm() / dx[1].norm()).item<double>()}};
    return result;
  }

 private:
  MlpRowConfig c_;
};

StatusOr<std::unique_ptr<MemoryRow>> Create(const MlpRowConfig& config) {
  return std::make_unique<MlpRow>(config);
}

TW_REGISTER(MemoryRow, mlp, 0, MlpRowConfig, Create, "SwiGLU MLP in tiles");

}  // namespace
}  // namespace tw
