#pragma once
// LM head and cross entropy in pieces of the sequence, exact: the scores of all tokens never exist
// (Mini-Sequence Transformer, Luo et al., arXiv 2407.15892; the fused form is that of Liger's
// FusedLinearCrossEntropy, the blocks of the vocabulary those of Cut Cross-Entropy, Wijmans et al.,
// arXiv 2411.09009).
//
//   loss = 1/n sum_t [ lse_t - s_t,label ],   s_t = W h_t,   n = labels that are not kIgnoredLabel
//   g_t  = (softmax(s_t) - onehot(label_t)) / n;   dh_t = W^T g_t;   dW = sum_t g_t h_t^T
//
//   fused       forward, a piece of c tokens at a time: scores [c, V], turned into g in their own
//               place, dh of the piece, dW += . Kept: dh, dW. Backward only scales them. Three
//               products, as many as the plain loss; beside dh and dW one piece of scores is alive
//   recompute   forward: lse only, a block [c, kVocabBlock] of scores at a time. Kept: h, one lse a
//               token. Backward computes each block again, and from it dh and dW. Four products;
//               beside dh and dW one block is alive
//
// dW is returned once. Under autocast to bf16, and of a bf16 hidden, products take bf16 factors;
// scores, softmax and the sums over pieces are fp32. Without gradients (evaluation) both forms only
// compute lse. No valid label: the loss is NaN and gradients 0, as in PyTorch. On a device nothing
// waits, but for labels that are there. Not thread safe against changes of its inputs.

#include <ATen/core/Tensor.h>
namespace tw {

inline constexpr int64_t kIgnoredLabel = -100;
// Columns of a block of scores in the recompute form: with 512 tokens it is 1 MB, which stays in
// the cache between the products that make and use it.
inline constexpr int64_t kVocabBlock = 512;

struct HeadLossOptions {
  int64_t chunks = 8;  // pieces of the tokens; more than there are tokens: one each
  bool recompute = false;
};

// hidden [N, D] and weight [V, D] fp32 or bf16, labels int64 [N], each 0 .. V - 1 or
// kIgnoredLabel, on the host or where the others are -> the mean loss in nats, fp32 []. Throws
// c10::Error for other labels, other types, and for a second backward through one fused forward.
at::Tensor HeadLoss(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& labels,
                    const HeadLossOptions& options);

}  // namespace tw
