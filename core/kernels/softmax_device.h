#pragma once
// softmax.h on a GPU, a thread block a row. Exponentials are good to 2 ulp and sums run over other
// lanes than the CPU's: losses and gradients agree to rounding, not to the bit; they are the same
// in every run. Losses and sums are doubles in device memory.

#include "core/kernels/device.h"
#include "core/kernels/softmax.h"

namespace tw::kernels::device {

// Scores of the classes first_class .. first_class + cols - 1. A row whose label is negative is
// left out: loss 0, gradient 0.
struct ScoreRows {
  float* scores = nullptr;          // [rows, cols], rows `stride` apart
  const int64_t* labels = nullptr;  // [rows]
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t stride = 0;
  int64_t first_class = 0;
};

// Rows that are there as a whole: losses [rows], scale * gradient in place.
void CrossEntropyInPlace(const ScoreRows& rows, float scale, double* losses, Stream stream);

// Rows in pieces of the classes, each piece once. Before the first one BeginScores.
void BeginScores(int64_t rows, LogSumExp* sums, double* label_scores, Stream stream);
void AddScores(const ScoreRows& rows, LogSumExp* sums, double* label_scores, Stream stream);
// lse [rows] and losses [rows]; of `rows` only the labels count.
void FinishScores(const ScoreRows& rows, const LogSumExp* sums, const double* label_scores,
                  double* lse, double* losses, Stream stream);
// A piece's scale * gradient in place.
void SoftmaxGradient(const ScoreRows& rows, const double* lse, float scale, Stream stream);

}  // namespace tw::kernels::device
