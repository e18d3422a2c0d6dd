#include "core/nn/model/block_runner.h"

#include <algorithm>

#include "core/nn/head_loss.h"
#include "core/nn/recompute.h"
#include "core/nn/tiles.h"

namespace tw {
namespace {

constexpr int64_t kLeastTileRows = 512;   // shorter pieces feed the processor badly
constexpr int64_t kLeastChunkRows = 256;  // of the head: its products are wide
constexpr int64_t kFloat = 4;

}  // namespace

StatusOr<std::shared_ptr<const BlockRunner>> BlockRunner::Create(const MemoryConfig& memory,
                                                                 const LmSizes& sizes) {
  std::shared_ptr<BlockRunner> runner(new BlockRunner(memory, sizes));
  TW_ASSIGN_OR_RETURN(runner->policy_, MakeActivationPolicy(memory));
  return std::shared_ptr<const BlockRunner>(std::move(runner));
}

at::Tensor BlockRunner::RunBlock(const TensorFn& body, const at::Tensor& x,
                                 const std::vector<at::Tensor>& parameters) const {
  return policy_->RunBlock(body, x, parameters);
}

at::Tensor BlockRunner::RunMlp(const TensorFn& body, const at::Tensor& x,
                               const std::vector<at::Tensor>& parameters) const {
  const int64_t tiles = MlpTiles(x.size(0) * x.size(1));
  return tiles == 1 ? body(x) : RecomputeTiled(body, x, parameters, tiles);
}

// A piece may take an eighth of what the blocks keep anyway.
int64_t BlockRunner::MlpTiles(int64_t rows) const {
  if (memory_.mlp_chunks != 0) return ClampTiles(rows, memory_.mlp_chunks);
  if (rows < 2 * kLeastTileRows) return 1;
  const int64_t kept = 8 * sizes_.layers * rows * sizes_.width * kFloat;
  const int64_t per_row = (sizes_.mlp_kept + sizes_.mlp_temporaries) * sizes_.hidden * kFloat;
  return std::max<int64_t>(2, TilesWithin(rows, per_row, kept / 8, kLeastTileRows));
}

// A piece may take a sixteenth of what the blocks keep; the plain way is left alone where its three
// copies of the scores are no more than an eighth.
int64_t BlockRunner::HeadTiles(int64_t rows) const {
  if (memory_.head_chunks != 0) return ClampTiles(rows, memory_.head_chunks);
  const int64_t kept = 8 * sizes_.layers * rows * sizes_.width * kFloat;
  const int64_t scores = rows * sizes_.vocab * kFloat;
  if (3 * scores <= kept / 8) return 1;
  return std::max<int64_t>(2, TilesWithin(rows, sizes_.vocab * kFloat, kept / 16, kLeastChunkRows));
}

// Counted from the models' forward pass: who saves what for backward. Under autocast to bf16 the
// residual stream and what norms keep stay fp32, products and their inputs are bf16, and so is a
// copy of each matrix while the forward pass lasts, or until backward where a graph holds it. Pure
// bf16 has the stream, the matrices and their gradients in two bytes, keeps of norms their input
// only, and copies a tied head.
ActivationEstimate BlockRunner::Estimate(int64_t rows, Precision precision) const {
  const LmSizes& s = sizes_;
  const bool autocast = precision == Precision::kBf16, pure = precision == Precision::kBf16Pure;
  const int64_t half = autocast || pure ? 2 : 4;  // bytes of what goes through a product
  const int64_t stream = pure ? 2 : 4;
  const int64_t row = rows * s.width * stream, typed_row = rows * s.width * half;
  const int64_t mlp_tiles = MlpTiles(rows), head_tiles = HeadTiles(rows);
  const auto norm_for = [&](int64_t readers) {
    return (pure ? 0 : s.norm_kept - 1) * row + (autocast ? readers : 1) * typed_row;
  };
  const int64_t statistics = 8 * rows * s.norm_kept;

  // Input, norm, q, k, v, what attention returns and one number a head; then the same for the MLP.
  const int64_t attention =
      row + norm_for(s.attention_readers) + 4 * typed_row + rows * s.heads * kFloat + statistics;
  const int64_t mlp_input = row;
  const int64_t mlp = norm_for(s.mlp_readers) + rows * s.mlp_kept * s.hidden * half + statistics;
  const int64_t mlp_backward = rows * s.mlp_temporaries * s.hidden * half;
  const bool tiled = mlp_tiles > 1;
  const int64_t body = attention + mlp_input + (tiled ? 0 : mlp);
  const int64_t block = policy_->KeptBytes(body, row);
  const int64_t final_norm = row + norm_for(1) + statistics;
  const int64_t ids = 16 * rows;

  // When blocks go backward: what runs again, with its output and the gradients of its matrices,
  // which arrive together; of tiles their sums too.
  const int64_t again = body - block;
  const int64_t mlp_gradients = s.mlp_matrices * s.width * s.hidden * stream;
  int64_t backward =
      row + (tiled ? (mlp + mlp_backward) / mlp_tiles + row + 2 * mlp_gradients : mlp_backward);
  if (again > 0) backward += again + row + s.matrix_numel * stream;
  const int64_t typed_weights = autocast ? s.matrix_numel * half : 0;
  const int64_t held_weights = typed_weights * (again > 0 || tiled ? 1 : s.layers);

  const int64_t head_matrix = s.vocab * s.width * kFloat;
  const int64_t typed_head = autocast || (pure && s.tied) ? head_matrix / 2 : 0;
  const int64_t scores = rows * s.vocab * kFloat;
  ActivationEstimate out;
  int64_t head_kept = scores, head_peak = 3 * scores + typed_head;
  if (head_tiles > 1) {
    const bool recompute = memory_.head_form == "recompute";
    const int64_t columns = recompute ? std::min(s.vocab, kVocabBlock) : s.vocab;
    const int64_t piece = (rows + head_tiles - 1) / head_tiles * columns * kFloat;
    int64_t typed = half == kFloat ? 0 : piece / 2;
    // The product for the head's gradient; pure, nothing else hides its fp32 copy.
    if (typed > 0 && !recompute) typed += head_matrix + (pure ? head_matrix / 2 : 0);
    head_kept = recompute ? 8 * rows : row + head_matrix;
    head_peak = (recompute ? head_kept : 0) + row + head_matrix + piece + typed;
  } else {
    head_peak = std::max(head_peak, scores + head_matrix + row);
  }
  out.layers.push_back({"token ids", ids});
  for (int64_t i = 0; i < s.layers; ++i) {
    out.layers.push_back({"block " + std::to_string(i), block});
  }
  out.layers.push_back({"last norm", final_norm});
  out.layers.push_back({"head and loss", head_kept});

  const int64_t kept = ids + s.layers * block + final_norm;
  const int64_t tied_gradient = s.tied ? head_matrix : 0;
  const int64_t at_head =
      kept + (head_tiles > 1 ? s.layers * typed_weights : held_weights) + head_peak;
  const int64_t at_block = kept - final_norm + held_weights + tied_gradient + backward;
  const int64_t at_table =
      ids + rows * s.width * (kFloat + (pure ? stream : 0)) + head_matrix + tied_gradient;
  out.peak = std::max({at_head, at_block, at_table});
  return out;
}

}  // namespace tw
