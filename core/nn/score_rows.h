#pragma once
// What a head's loss does to rows of scores, where they are: on the host softmax.h in LibTorch's
// threads, elsewhere kernels of the tensors' queue (core/api/tensor_scope.h). The two agree to
// rounding. What a row comes to is a double beside its scores; nothing is brought to the host.

#include <ATen/core/Tensor.h>

namespace tw {

// Some rows, of the classes first_class, first_class + 1, ...
struct ScoreBlock {
  at::Tensor scores;  // [rows, cols] fp32, contiguous
  at::Tensor
      labels;  // [rows] int64, contiguous; negative: the row has no part, loss and gradient 0
  int64_t first_class = 0;
};

// Of rows whose classes come in blocks.
struct ScoreSums {
  at::Tensor exponentials;  // [rows] kernels::LogSumExp, as bytes
  at::Tensor label_scores;  // [rows] fp64
};

// Stateless. Results are fp64 [rows], contiguous.
class ScoreRows {
 public:
  virtual ~ScoreRows() = default;
  // For tensors that are where this one is.
  static const ScoreRows& For(const at::Tensor& tensor);

  // All classes at once: losses, and scale * gradient in place of the scores.
  virtual void CrossEntropy(const ScoreBlock& block, float scale,
                            const at::Tensor& losses) const = 0;

  // Block by block: Begin, then Add of each block once, then Finish: log sum exp and loss of each
  // row. Then, of any block made again, scale * gradient in place of the scores.
  virtual ScoreSums Begin(const at::Tensor& labels) const = 0;
  virtual void Add(const ScoreBlock& block, const ScoreSums& sums) const = 0;
  virtual void Finish(const at::Tensor& labels, const ScoreSums& sums, const at::Tensor& lse,
                      const at::Tensor& losses) const = 0;
  virtual void Gradient(const ScoreBlock& block, const at::Tensor& lse, float scale) const = 0;

  // The sum of losses over `valid`, fp32 [].
  virtual at::Tensor Mean(const at::Tensor& losses, int64_t valid) const = 0;
};

}  // namespace tw
