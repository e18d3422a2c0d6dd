#pragma once
// How the blocks of a language model run and what they keep, after [memory]: one object a model,
// made before its first block. Also what that will take, by formula, which is what `explain` prints
// and what chooses the pieces where a setting is 0.

#include <memory>
#include <string>
#include <vector>

#include "core/api/activations.h"
#include "core/nn/precision.h"

namespace tw {

// The shapes that decide; numbers of elements.
struct LmSizes {
  int64_t layers = 0;
  int64_t width = 0;
  int64_t heads = 0;
  int64_t hidden = 0;  // inside the MLP
  int64_t vocab = 0;
  int64_t norm_kept = 1;          // rows of `width` a norm keeps beside its input
  int64_t attention_readers = 1;  // products that read the norm's output, each its own bf16 copy
  int64_t mlp_readers = 1;
  int64_t mlp_matrices = 2;     // of width x hidden
  int64_t mlp_kept = 2;         // rows of `hidden` an MLP keeps
  int64_t mlp_temporaries = 1;  // rows of `hidden` that its backward has at once beside them
  int64_t matrix_numel = 0;     // of a block's matrices
  bool tied = false;            // the head is the token table
};

class BlockRunner {
 public:
  // ConfigError for what memory.activations does not know.
  static StatusOr<std::shared_ptr<const BlockRunner>> Create(const MemoryConfig& memory,
                                                             const LmSizes& sizes);

  // x [B, T, width] -> body(x), kept as memory.activations says.
  at::Tensor RunBlock(const TensorFn& body, const at::Tensor& x,
                      const std::vector<at::Tensor>& parameters) const;
  // x [B, T, width] -> body(x) in memory.mlp_chunks pieces; body maps each token by itself.
  at::Tensor RunMlp(const TensorFn& body, const at::Tensor& x,
                    const std::vector<at::Tensor>& parameters) const;
  // Pieces of a batch of so many tokens, 1 for the plain way.
  int64_t MlpTiles(int64_t rows) const;
  int64_t HeadTiles(int64_t rows) const;

  ActivationEstimate Estimate(int64_t rows, Precision precision) const;
  const MemoryConfig& memory() const { return memory_; }

 private:
  BlockRunner(const MemoryConfig& memory, const LmSizes& sizes) : memory_(memory), sizes_(sizes) {}

  MemoryConfig memory_;
  LmSizes sizes_;
  std::shared_ptr<const ActivationPolicy> policy_;
};

}  // namespace tw
