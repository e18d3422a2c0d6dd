#include "core/nn/recompute.h"

#include "core/nn/precision.h"
#include "core/nn/tiles.h"
#include "core/nn/torch.h"

namespace tw {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Variable;
using torch::autograd::variable_list;

struct Work : torch::CustomClassHolder {
  Work(TensorFn body, int64_t tiles, bool bf16) : body(std::move(body)), tiles(tiles), bf16(bf16) {}
  TensorFn body;
  int64_t tiles;
  bool bf16;
};

class RecomputeFunction : public torch::autograd::Function<RecomputeFunction> {
 public:
  static Variable forward(AutogradContext* context, const Variable& x, at::TensorList parameters,
                          const c10::intrusive_ptr<Work>& work) {
    variable_list saved{x};
    saved.insert(saved.end(), parameters.begin(), parameters.end());
    context->save_for_backward(saved);
    context->saved_data["work"] = at::IValue::make_capsule(work);
    if (work->tiles == 1) return work->body(x);
    at::Tensor y;
    for (int64_t i = 0; i < work->tiles; ++i) {
      const Tile rows = TileOf(x.size(0), i, work->tiles);
      const at::Tensor piece = work->body(x.narrow(0, rows.from, rows.count));
      if (i == 0) y = at::empty({x.size(0), piece.size(1)}, piece.options());
      y.narrow(0, rows.from, rows.count).copy_(piece);
    }
    return y;
  }

  static variable_list backward(AutogradContext* context, variable_list dy) {
    const auto work =
        c10::static_intrusive_pointer_cast<Work>(context->saved_data["work"].toCapsule());
    const variable_list saved = context->get_saved_variables();
    const at::Tensor& x = saved[0];
    const bool needs_dx = context->needs_input_grad(0);
    variable_list gradients(saved.size() + 1);  // the last one: of `work`, which has none
    for (int64_t i = 0; i < work->tiles; ++i) {
      const Tile rows = work->tiles == 1 ? Tile{} : TileOf(x.size(0), i, work->tiles);
      const auto piece = [&](const at::Tensor& t) {
        return work->tiles == 1 ? t : t.narrow(0, rows.from, rows.count);
      };
      variable_list inputs;
      std::vector<size_t> slots;
      const torch::AutoGradMode with_graph(true);
      const at::Tensor x_i = piece(x).detach().requires_grad_(needs_dx);
      if (needs_dx) {
        inputs.push_back(x_i);
        slots.push_back(0);
      }
      for (size_t p = 1; p < saved.size(); ++p) {
        if (!context->needs_input_grad(p)) continue;
        inputs.push_back(saved[p]);
        slots.push_back(p);
      }
      at::Tensor y_i;
      {
        // Closed before the pieces' own backward, which may open one itself: a cache of bf16
        // weights made without a graph must not be seen by a run that needs one.
        const PrecisionScope precision(work->bf16, x.device().type());
        y_i = work->body(x_i);
      }
      const variable_list d_i =
          torch::autograd::grad({y_i}, inputs, {piece(dy[0])}, /*retain_graph=*/false,
                                /*create_graph=*/false, /*allow_unused=*/true);
      const torch::NoGradGuard no_graph;
      for (size_t k = 0; k < slots.size(); ++k) {
        if (!d_i[k].defined()) continue;
        at::Tensor& sum = gradients[slots[k]];
        if (work->tiles == 1) {
          sum = d_i[k];
        } else if (slots[k] == 0) {
          if (!sum.defined()) sum = at::empty(x.sizes(), d_i[k].options());
          piece(sum).copy_(d_i[k]);
        } else if (sum.defined()) {
          sum.add_(d_i[k]);
        } else {
          sum = d_i[k];
        }
      }
    }
    return gradients;
  }
};

at::Tensor Apply(const TensorFn& body, const at::Tensor& x,
                 const std::vector<at::Tensor>& parameters, int64_t tiles) {
  return RecomputeFunction::apply(
      x, at::TensorList(parameters),
      c10::make_intrusive<Work>(body, tiles, InBf16Scope(x.device().type())));
}

}  // namespace

at::Tensor Recompute(const TensorFn& body, const at::Tensor& x,
                     const std::vector<at::Tensor>& parameters) {
  return Apply(body, x, parameters, 1);
}

at::Tensor RecomputeTiled(const TensorFn& body, const at::Tensor& x,
                          const std::vector<at::Tensor>& parameters, int64_t tiles) {
  const at::Tensor rows = x.reshape({-1, x.size(-1)});
  const at::Tensor y = Apply(body, rows, parameters, ClampTiles(rows.size(0), tiles));
  std::vector<int64_t> shape = x.sizes().vec();
  shape.back() = y.size(1);
  return y.view(shape);
}

}  // namespace tw
