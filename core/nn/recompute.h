#pragma once
// Activations computed twice instead of kept: activation checkpointing (Chen et al., arXiv
// 1604.06174) and the tiled MLP of Mini-Sequence Transformer (Luo et al., arXiv 2407.15892) are one
// autograd function.
//
//   forward    y_i = body(x_i) without a graph, for each tile x_i of rows; kept: x
//   backward   per tile: y_i = body(x_i) again with a graph, then
//              dx_i = d y_i / d x_i ^T dy_i,   dW += d y_i / d W ^T dy_i
//   returned   dx, and dW once: a parameter's hook fires once a backward whatever the tiles
//
// Equal to body(x) up to the order in which tiles add to dW (one tile: to the last bit). dW is
// added in the parameter's own type. The second run is under the autocast of the first. body must
// be a function of x and `parameters` alone, and draw no random numbers. Backward twice through
// one forward (retain_graph) is fine; gradients of gradients are not there.

#include "core/api/activations.h"

namespace tw {

// body(x), x and y of any shape: one tile.
at::Tensor Recompute(const TensorFn& body, const at::Tensor& x,
                     const std::vector<at::Tensor>& parameters);

// body on `tiles` pieces of x's rows, nearly equal; at most one piece a row. REQUIRES: body maps
// rows [N, in] to rows [N, out], each row by itself. x [..., in] -> [..., out].
at::Tensor RecomputeTiled(const TensorFn& body, const at::Tensor& x,
                          const std::vector<at::Tensor>& parameters, int64_t tiles);

}  // namespace tw
