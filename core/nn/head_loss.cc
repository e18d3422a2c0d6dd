#include "core/nn/head_loss.h"

#include "core/nn/precision.h"
#include "core/nn/score_rows.h"
#include "core/nn/tiles.h"
#include "core/nn/to_device.h"

namespace tw {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Variable;
using torch::autograd::variable_list;

// One call's tensors, in the types the products want.
class Head {
 public:
  Head(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& labels, bool bf16)
      : hidden_(hidden),
        weight_(weight),
        labels_(labels),
        type_(bf16 ? at::kBFloat16 : at::kFloat) {}

  // `rows` of hidden times the rows `columns` of the weight, fp32, in the front of `buffer`.
  at::Tensor Scores(Tile rows, Tile columns, const at::Tensor& buffer) const {
    at::Tensor out =
        buffer.narrow(0, 0, rows.count * columns.count).view({rows.count, columns.count});
    const at::Tensor h = HiddenOf(rows), w = WeightOf(columns);
    if (type_ == at::kFloat) return at::mm_out(out, h, w.t());
    return out.copy_(at::mm(h, w.t()));
  }

  // dh of these rows and dW of a block of score gradients; `first` in its row of blocks, or its
  // column.
  void AddGradients(const at::Tensor& g, Tile rows, Tile columns, bool first_of_row,
                    bool first_of_column, const at::Tensor& dh_rows, const at::Tensor& dw) const {
    const at::Tensor g_typed = g.to(type_);
    if (dh_rows.defined()) AddProduct(g_typed, WeightOf(columns), first_of_row, dh_rows);
    if (dw.defined()) {
      AddProduct(g_typed.t(), HiddenOf(rows), first_of_column,
                 dw.narrow(0, columns.from, columns.count));
    }
  }

  int64_t rows() const { return hidden_.size(0); }
  int64_t vocab() const { return weight_.size(0); }
  at::Tensor Labels(Tile rows) const { return labels_.narrow(0, rows.from, rows.count); }
  // A number a row, as ScoreRows leaves them.
  at::Tensor RowNumbers() const {
    return at::empty({rows()}, labels_.options().dtype(at::kDouble));
  }
  const ScoreRows& score_rows() const { return ScoreRows::For(hidden_); }
  at::TensorOptions options() const { return hidden_.options().dtype(at::kFloat); }

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

  at::Tensor hidden_, weight_, labels_;
  at::ScalarType type_;
};

// The labels that count; refuses others than those allowed.
int64_t CountLabels(const at::Tensor& labels, int64_t vocab) {
  int64_t valid = 0;
  const auto* label = labels.const_data_ptr<int64_t>();
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
  return at::empty({rows * std::min(columns, head.vocab())}, head.options());
}

float ScaleOf(int64_t valid, float factor = 1.0f) {
  return valid ? factor / static_cast<float>(valid) : 0.0f;
}

// The fused form: the mean loss; dh and dw are written.
at::Tensor LossAndGradients(const Head& head, int64_t chunks, int64_t valid, const at::Tensor& dh,
                            const at::Tensor& dw) {
  const ScoreRows& score_rows = head.score_rows();
  const at::Tensor buffer = Buffer(head, chunks, head.vocab()), losses = head.RowNumbers();
  const Tile all{0, head.vocab()};
  for (int64_t c = 0; c < chunks; ++c) {
    const Tile rows = TileOf(head.rows(), c, chunks);
    const at::Tensor scores = head.Scores(rows, all, buffer);
    score_rows.CrossEntropy({scores, head.Labels(rows)}, ScaleOf(valid),
                            losses.narrow(0, rows.from, rows.count));
    head.AddGradients(scores, rows, all, true, c == 0,
                      dh.defined() ? dh.narrow(0, rows.from, rows.count) : dh, dw);
  }
  return score_rows.Mean(losses, valid);
}

int64_t NumBlocks(const Head& head) { return (head.vocab() + kVocabBlock - 1) / kVocabBlock; }

// The recompute form, forward: the mean loss, and lse [N] of the rows.
at::Tensor LossOnly(const Head& head, int64_t chunks, int64_t valid, const at::Tensor& lse) {
  const ScoreRows& score_rows = head.score_rows();
  const at::Tensor buffer = Buffer(head, chunks, kVocabBlock), losses = head.RowNumbers();
  for (int64_t c = 0; c < chunks; ++c) {
    const Tile rows = TileOf(head.rows(), c, chunks);
    const at::Tensor labels = head.Labels(rows);
    const ScoreSums sums = score_rows.Begin(labels);
    for (int64_t b = 0; b < NumBlocks(head); ++b) {
      const Tile columns = TileOf(head.vocab(), b, NumBlocks(head));
      score_rows.Add({head.Scores(rows, columns, buffer), labels, columns.from}, sums);
    }
    score_rows.Finish(labels, sums, lse.narrow(0, rows.from, rows.count),
                      losses.narrow(0, rows.from, rows.count));
  }
  return score_rows.Mean(losses, valid);
}

// The recompute form, backward.
void Gradients(const Head& head, int64_t chunks, const at::Tensor& lse, float scale,
               const at::Tensor& dh, const at::Tensor& dw) {
  const at::Tensor buffer = Buffer(head, chunks, kVocabBlock);
  for (int64_t c = 0; c < chunks; ++c) {
    const Tile rows = TileOf(head.rows(), c, chunks);
    at::Tensor dh_rows = dh.defined() ? dh.narrow(0, rows.from, rows.count) : dh;
    const bool narrow = dh.defined() && dh.scalar_type() != at::kFloat;
    if (narrow) dh_rows = at::empty(dh_rows.sizes(), head.options());
    for (int64_t b = 0; b < NumBlocks(head); ++b) {
      const Tile columns = TileOf(head.vocab(), b, NumBlocks(head));
      const at::Tensor scores = head.Scores(rows, columns, buffer);
      head.score_rows().Gradient({scores, head.Labels(rows), columns.from},
                                 lse.narrow(0, rows.from, rows.count), scale);
      head.AddGradients(scores, rows, columns, b == 0, c == 0, dh_rows, dw);
    }
    if (narrow) dh.narrow(0, rows.from, rows.count).copy_(dh_rows);
  }
}

// Where the weight's gradient is added up: in fp32, whatever the weight is. Autograd casts it.
at::Tensor SumOfGradients(const at::Tensor& weight) {
  return at::empty(weight.sizes(), weight.options().dtype(at::kFloat));
}

void MultiplyBoth(const at::Tensor& dh, const at::Tensor& dw, const at::Tensor& by) {
  if (dh.defined()) dh.mul_(by);
  if (dw.defined()) dw.mul_(by);
}

// Products below are in the types that Head gives them.
using NoAutocast = c10::impl::ExcludeDispatchKeyGuard;

struct Call {
  int64_t chunks;
  int64_t valid;  // labels
  bool bf16;
};

class FusedHeadLoss : public torch::autograd::Function<FusedHeadLoss> {
 public:
  static Variable forward(AutogradContext* context, const Variable& hidden, const Variable& weight,
                          const at::Tensor& labels, const Call& call) {
    const NoAutocast no_autocast(c10::autocast_dispatch_keyset);
    at::Tensor dh, dw;
    if (hidden.requires_grad()) dh = at::empty_like(hidden, at::MemoryFormat::Contiguous);
    if (weight.requires_grad()) dw = SumOfGradients(weight);
    const Head head(hidden, weight, labels, call.bf16);
    const at::Tensor loss = LossAndGradients(head, call.chunks, call.valid, dh, dw);
    context->saved_data["dh"] = dh;
    context->saved_data["dw"] = dw;
    return loss;
  }

  static variable_list backward(AutogradContext* context, variable_list dy) {
    const auto kept = context->saved_data.find("dh");
    TORCH_CHECK(kept != context->saved_data.end(),
                "a fused head loss goes backward once: memory.head_form = \"recompute\" may do so "
                "again");
    at::Tensor dh = kept->second.toTensor(), dw = context->saved_data["dw"].toTensor();
    context->saved_data.clear();
    const torch::NoGradGuard no_graph;
    // Whether a device's number is 1 is not known without waiting for it.
    if (!dy[0].is_cpu() || dy[0].item<float>() != 1.0f) MultiplyBoth(dh, dw, dy[0]);
    return {dh, dw, {}, {}};
  }
};

class RecomputedHeadLoss : public torch::autograd::Function<RecomputedHeadLoss> {
 public:
  static Variable forward(AutogradContext* context, const Variable& hidden, const Variable& weight,
                          const at::Tensor& labels, const Call& call) {
    const NoAutocast no_autocast(c10::autocast_dispatch_keyset);
    const Head head(hidden, weight, labels, call.bf16);
    const at::Tensor lse = head.RowNumbers();
    const at::Tensor loss = LossOnly(head, call.chunks, call.valid, lse);
    context->save_for_backward({hidden, weight, labels, lse});
    context->saved_data["valid"] = call.valid;
    context->saved_data["chunks"] = call.chunks;
    context->saved_data["bf16"] = call.bf16;
    return loss;
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
    const bool on_host = dy[0].is_cpu();
    Gradients({saved[0], saved[1], saved[2], context->saved_data["bf16"].toBool()},
              context->saved_data["chunks"].toInt(), saved[3],
              ScaleOf(valid, on_host ? dy[0].item<float>() : 1.0f), dh, dw);
    if (!on_host) MultiplyBoth(dh, dw, dy[0]);
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
  const at::Tensor on_host = labels.cpu().contiguous();
  const Call call{ClampTiles(hidden.size(0), options.chunks), CountLabels(on_host, weight.size(0)),
                  InBf16Scope(hidden.device().type()) || hidden.scalar_type() == at::kBFloat16};
  const at::Tensor label =
      labels.device() == hidden.device() ? labels.contiguous() : ToDevice(on_host, hidden.device());
  const at::Tensor rows = hidden.contiguous();
  if (!at::GradMode::is_enabled()) {
    const NoAutocast no_autocast(c10::autocast_dispatch_keyset);
    const Head head(rows, weight, label, call.bf16);
    return LossOnly(head, call.chunks, call.valid, head.RowNumbers());
  }
  return options.recompute ? RecomputedHeadLoss::apply(rows, weight, label, call)
                           : FusedHeadLoss::apply(rows, weight, label, call);
}

}  // namespace tw
