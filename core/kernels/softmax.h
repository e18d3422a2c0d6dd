#pragma once
// The softmax cross entropy of one row of scores, and its gradient in the row's own place: what a
// chunked LM head needs, without the three copies of the scores that log_softmax, nll_loss and
// their backward keep.
//
//   lse = log sum_j exp(x_j);   loss = lse - x_label;   d loss / d x_j = exp(x_j - lse) - [j =
//   label]
//
// A row may be seen in pieces (LogSumExp::Add), each piece once. Exponentials are good to 2 ulp;
// sums are fp32 lanes, so their last bits depend on the vector width. -Inf scores are classes that
// cannot be; a NaN, a +Inf or a row of nothing but -Inf makes loss and gradient NaN, as in
// PyTorch. Thread safe.

#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>

namespace tw::kernels {

// log sum exp of what was added so far: max + log(sum).
struct LogSumExp {
  float max = -std::numeric_limits<float>::infinity();
  float sum = 0;  // of exp(x - max); NaN when there is no such number

  void Add(std::span<const float> scores);
  double value() const;  // -Inf for nothing
};

// x_j = scale * exp(x_j - lse). One pass.
void SoftmaxGradient(std::span<float> scores, double lse, float scale);

// Both for a row that is there as a whole: returns its loss, leaves scale * gradient. REQUIRES:
// 0 <= label < size.
double CrossEntropyInPlace(std::span<float> scores, int64_t label, float scale);

// The same without Highway, for tests.
namespace reference {
double CrossEntropyInPlace(std::span<float> scores, int64_t label, float scale);
}  // namespace reference

}  // namespace tw::kernels
