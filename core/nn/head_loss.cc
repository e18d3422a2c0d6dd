#include "core/nn/head_loss.h"

#include <ATen/Parallel.h>

#include "core/kernels/softmax.h"
#include "core/nn/precision.h"
#include "core/nn/tiles.h"

namespace tw {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Variable;
using torch::autograd::variable_list;

constexpr int64_t kRowsPerTask = 4;

std::span<float> RowOf(const at::Tensor& scores, int64_t row) {
  const auto columns = static_cast<size_t>(scores.size(1));
  return {scores.data_ptr<float>() + row * scores.size(1), columns};
}

// One call's tensors, in the types the products want.
class Head {
 public:
  Head(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& labels, bool bf16)
      : hidden_(hidden),
        weight_(weight),
        labels_(labels.data_ptr<int64_t>()),
        type_(bf16 ? at::kBFloat16 : at::kFloat) {}

  // `rows` of hidden times the rows `columns` of the weight, fp32, in the front of `buffer`.
  at::Tensor Scores(Tile rows, Tile columns, const at::Tensor& buffer) const {
    at::Tensor out =
        buffer.narrow(0, 0, rows.count * columns.count).view({rows.count, columns.count});
    const at::Tensor h = HiddenOf(rows), w = WeightOf(columns);
    if (type_ == at::kFloat) return at::mm_out(out, h, w.t());
    return out.copy_(at::mm(h, w.t()));
  }

  // dh and dW of a block of score gradients; `first` in its row of blocks, or its column.
  void AddGradients(const at::Tensor& g, Tile rows, Tile columns, bool first_of_row,
                    bool first_of_column, const at::Tensor& dh, const at::Tensor& dw) const {
    const at::Tensor g_typed = g.to(type_);
    if (dh.defined()) {
      AddProduct(g_typed, WeightOf(columns), first_of_row, dh.narrow(0, rows.from, rows.count));
    }
    if (dw.defined()) {
      AddProduct(g_typed.t(), HiddenOf(rows), first_of_column,
                 dw.narrow(0, columns.from, columns.count));
    }
  }

  int64_t rows() const { return hidden_.size(0); }
  int64_t vocab() const { return weight_.size(0); }
  int64_t label(int64_t row) const { return labels_[row]; }

 private:
  at::Tensor HiddenOf(Tile rows) const {
    return hidden_.narrow(0, rows.from, rows.count).to(type_);
  }
  at::Tensor WeightOf(Tile columns) const {
    return weight_.narrow(0, columns.from, columns.count).to(type_);
  }
  void AddProduct(const at::Tensor& a, const at::Tensor& b, bool first, at::Tensor out) const {
    if (type_ == at::kFloat && out.scalar_type() == at::kFloat) {
      at::addmm_out(out, out, a, b, /*beta=*/first ? 0 : 1);
    } else if (first) {
      out.copy_(at::mm(a, b));
    } else {
      out.add_(at::mm(a, b));
    }
  }

  at::Tensor hidden_, weight_;
  const int64_t* labels_;
  at::ScalarType type_;
};

// The labels that count; refuses others than those allowed.
int64_t CountLabels(const at::Tensor& labels, int64_t vocab) {
  int64_t valid = 0;
  const int64_t* label = labels.data_ptr<int64_t>();
  for (int64_t i = 0; i < labels.numel(); ++i) {
    if (label[i] == kIgnoredLabel) continue;
    TORCH_CHECK(label[i] >= 0 && label[i] < vocab, "label ", label[i], " is not in 0 .. ",
                vocab - 1);
    ++valid;
  }
  return valid;
}

at::Tensor Buffer(const Head& head, int64_t chunks, int64_t columns) {
  const int64_t rows = (head.rows() + chunks - 1) / chunks;
  return at::empty({rows * std::min(columns, head.vocab())}, at::kFloat);
}

double Sum(const std::vector<double>& values) {
  double sum = 0;
  for (const double v : values) sum += v;
  return sum;
}

// The fused form: summed loss; dh and dw are written, both times 1 / valid.
double LossAndGradients(const Head& head, int64_t chunks, int64_t valid, const at::Tensor& dh,
                        const at::Tensor& dw) {
  const at::Tensor buffer = Buffer(head, chunks, head.vocab());
  const Tile all{0, head.vocab()};
  const float scale = valid ? 1.0f / static_cast<float>(valid) : 0.0f;
  std::vector<double> losses(static_cast<size_t>(head.rows()));
  for (int64_t c = 0; c < chunks; ++c) {
    const Tile rows = TileOf(head.rows(), c, chunks);
    const at::Tensor scores = head.Scores(rows, all, buffer);
    at::parallel_for(0, rows.count, kRowsPerTask, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const std::span<float> row = RowOf(scores, r);
        const int64_t label = head.label(rows.from + r);
        if (label == kIgnoredLabel) {
          std::fill(row.begin(), row.end(), 0.0f);
        } else {
          losses[static_cast<size_t>(rows.from + r)] =
              kernels::CrossEntropyInPlace(row, label, scale);
        }
      }
    });
    head.AddGradients(scores, rows, all, true, c == 0, dh, dw);
  }
  return Sum(losses);
}

int64_t NumBlocks(const Head& head) { return (head.vocab() + kVocabBlock - 1) / kVocabBlock; }

// The recompute form, forward: summed loss, and lse [N] of the rows.
double LossOnly(const Head& head, int64_t chunks, double* lse) {
  const at::Tensor buffer = Buffer(head, chunks, kVocabBlock);
  std::vector<double> losses(static_cast<size_t>(head.rows()));
  for (int64_t c = 0; c < chunks; ++c) {
    const Tile rows = TileOf(head.rows(), c, chunks);
    std::vector<kernels::LogSumExp> sums(static_cast<size_t>(rows.count));
    for (int64_t b = 0; b < NumBlocks(head); ++b) {
      const Tile columns = TileOf(head.vocab(), b, NumBlocks(head));
      const at::Tensor scores = head.Scores(rows, columns, buffer);
      at::parallel_for(0, rows.count, kRowsPerTask, [&](int64_t begin, int64_t end) {
        for (int64_t r = begin; r < end; ++r) {
          const int64_t at = head.label(rows.from + r) - columns.from;
          if (head.label(rows.from + r) == kIgnoredLabel) continue;
          const std::span<float> row = RowOf(scores, r);
          sums[static_cast<size_t>(r)].Add(row);
          if (at >= 0 && at < columns.count) {
            losses[static_cast<size_t>(rows.from + r)] =
                -static_cast<double>(row[static_cast<size_t>(at)]);
          }
        }
      });
    }
    for (int64_t r = 0; r < rows.count; ++r) {
      if (head.label(rows.from + r) == kIgnoredLabel) continue;
      const double value = sums[static_cast<size_t>(r)].value();
      losses[static_cast<size_t>(rows.from + r)] += value;
      if (lse) lse[rows.from + r] = value;
    }
  }
  return Sum(losses);
}

// The recompute form, backward.
void Gradients(const Head& head, int64_t chunks, const double* lse, float scale,
               const at::Tensor& dh, const at::Tensor& dw) {
  const at::Tensor buffer = Buffer(head, chunks, kVocabBlock);
  for (int64_t c = 0; c < chunks; ++c) {
    const Tile rows = TileOf(head.rows(), c, chunks);
    for (int64_t b = 0; b < NumBlocks(head); ++b) {
      const Tile columns = TileOf(head.vocab(), b, NumBlocks(head));
      const at::Tensor scores = head.Scores(rows, columns, buffer);
      at::parallel_for(0, rows.count, kRowsPerTask, [&](int64_t begin, int64_t end) {
        for (int64_t r = begin; r < end; ++r) {
          const std::span<float> row = RowOf(scores, r);
          const int64_t label = head.label(rows.from + r), at = label - columns.from;
          if (label == kIgnoredLabel) {
            std::fill(row.begin(), row.end(), 0.0f);
            continue;
          }
          kernels::SoftmaxGradient(row, lse[rows.from + r], scale);
          if (at >= 0 && at < columns.count) row[static_cast<size_t>(at)] -= scale;
        }
      });
      head.AddGradients(scores, rows, columns, b == 0, c == 0, dh, dw);
    }
  }
}

at::Tensor MeanOf(double sum, int64_t valid) {
  return at::scalar_tensor(sum / static_cast<double>(valid), at::kFloat);
}

// Where the weight's gradient is added up: in fp32, whatever the weight is. Autograd casts it.
at::Tensor SumOfGradients(const at::Tensor& weight) {
  return at::empty(weight.sizes(), at::kFloat);
}

struct Call {
  int64_t chunks;
  bool bf16;
};

class FusedHeadLoss : public torch::autograd::Function<FusedHeadLoss> {
 public:
  static Variable forward(AutogradContext* context, const Variable& hidden, const Variable& weight,
                          const at::Tensor& labels, const Call& call) {
    const c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::DispatchKey::AutocastCPU);
    const int64_t valid = CountLabels(labels, weight.size(0));
    at::Tensor dh, dw;
    if (hidden.requires_grad()) dh = at::empty_like(hidden, at::MemoryFormat::Contiguous);
    if (weight.requires_grad()) dw = SumOfGradients(weight);
    const Head head(hidden, weight, labels, call.bf16);
    const double loss = LossAndGradients(head, call.chunks, valid, dh, dw);
    context->saved_data["dh"] = dh;
    context->saved_data["dw"] = dw;
    return MeanOf(loss, valid);
  }

  static variable_list backward(AutogradContext* context, variable_list dy) {
    const auto kept = context->saved_data.find("dh");
    TORCH_CHECK(kept != context->saved_data.end(),
                "a fused head loss goes backward once: memory.head_form = \"recompute\" may do so "
                "again");
    at::Tensor dh = kept->second.toTensor(), dw = context->saved_data["dw"].toTensor();
    context->saved_data.clear();
    const torch::NoGradGuard no_graph;
    if (dy[0].item<float>() != 1.0f) {
      if (dh.defined()) dh.mul_(dy[0]);
      if (dw.defined()) dw.mul_(dy[0]);
    }
    return {dh, dw, {}, {}};
  }
};

class RecomputedHeadLoss : public torch::autograd::Function<RecomputedHeadLoss> {
 public:
  static Variable forward(AutogradContext* context, const Variable& hidden, const Variable& weight,
                          const at::Tensor& labels, const Call& call) {
    const c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::DispatchKey::AutocastCPU);
    const int64_t valid = CountLabels(labels, weight.size(0));
    const at::Tensor lse = at::empty({hidden.size(0)}, at::kDouble);
    const Head head(hidden, weight, labels, call.bf16);
    const double loss = LossOnly(head, call.chunks, lse.data_ptr<double>());
    context->save_for_backward({hidden, weight, labels, lse});
    context->saved_data["valid"] = valid;
    context->saved_data["chunks"] = call.chunks;
    context->saved_data["bf16"] = call.bf16;
    return MeanOf(loss, valid);
  }

  static variable_list backward(AutogradContext* context, variable_list dy) {
    const torch::NoGradGuard no_graph;
    const variable_list saved = context->get_saved_variables();
    const int64_t valid = context->saved_data["valid"].toInt();
    at::Tensor dh, dw;
    if (context->needs_input_grad(0)) {
      dh = at::empty_like(saved[0], at::MemoryFormat::Contiguous);
    }
    if (context->needs_input_grad(1)) {
      dw = SumOfGradients(saved[1]);
    }
    const float scale = valid ? dy[0].item<float>() / static_cast<float>(valid) : 0.0f;
    Gradients({saved[0], saved[1], saved[2], context->saved_data["bf16"].toBool()},
              context->saved_data["chunks"].toInt(), saved[3].data_ptr<double>(), scale, dh, dw);
    return {dh, dw, {}, {}};
  }
};

}  // namespace

at::Tensor HeadLoss(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& labels,
                    const HeadLossOptions& options) {
  TORCH_CHECK(hidden.dim() == 2 && weight.dim() == 2 && hidden.size(1) == weight.size(1) &&
                  labels.dim() == 1 && labels.size(0) == hidden.size(0),
              "hidden ", hidden.sizes(), ", weight ", weight.sizes(), " and labels ",
              labels.sizes(), " do not fit together");
  const auto fits = [](const at::Tensor& t) {
    return t.scalar_type() == at::kFloat || t.scalar_type() == at::kBFloat16;
  };
  TORCH_CHECK(fits(hidden) && fits(weight) && labels.scalar_type() == at::kLong,
              "hidden and weight are fp32 or bf16, labels int64");
  const at::Tensor label = labels.contiguous(), rows = hidden.contiguous();
  const Call call{ClampTiles(rows.size(0), options.chunks), InBf16Scope()};
  if (!at::GradMode::is_enabled()) {
    const c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::DispatchKey::AutocastCPU);
    const int64_t valid = CountLabels(label, weight.size(0));
    return MeanOf(LossOnly({rows, weight, label, call.bf16}, call.chunks, nullptr), valid);
  }
  return options.recompute ? RecomputedHeadLoss::apply(rows, weight, label, call)
                           : FusedHeadLoss::apply(rows, weight, label, call);
}

}  // namespace tw
