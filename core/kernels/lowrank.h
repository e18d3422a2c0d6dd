#pragma once
// The products of a tall matrix with thin factors that PowerSGD is made of.
//
// M is [rows, cols] row-major; P is [rows, rank] row-major; Q is kept transposed, qt [rank, cols]
// row-major, so that every inner loop runs along rows of M (P^T M streams M, where M^T P would
// gather columns). Each function passes over M once.
//
// Determinism: OuterAdd, OuterResidual and Orthonormalize give the same bits on every SIMD target:
// what ranks compute from exchanged factors must agree. The two products feed the exchange and
// differ in the last bits between targets (their sums run over vector lanes). Thread safe.

#include <cstdint>
#include <span>
#include <vector>

#include "core/kernels/message_view.h"

namespace tw::kernels {

struct LowRankShape {
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t rank = 0;
};

// Performs the pending addition (the sum stays in message.buffer) and p = M Q.
void MaterializeTimesQ(const MessageView& message, const LowRankShape& shape, const float* qt,
                       float* p);
// qt = P^T M.
void TransposeTimesM(const float* m, const LowRankShape& shape, const float* p, float* qt);
// m -= P Q^T, and out += scale * (P Q^T), both from the same value sum_k p[i][k] * qt[k][j].
void OuterResidual(float* m, const LowRankShape& shape, const float* p, const float* qt);
void OuterAdd(float* out, const LowRankShape& shape, const float* p, const float* qt, float scale);

// Modified Gram-Schmidt over the columns of p [rows, rank], twice, in fp64 and a fixed order. A
// column that depends on the ones before it (what is left is below 1e-6 of it), is zero or is not
// finite becomes zero. `scratch` holds rows * rank doubles. Products are summed in pieces of 1024
// (sixteen lanes, then a tree), piece p to part p % kDotParts, parts in order.
inline constexpr int kDotParts = 16;
void Orthonormalize(std::span<float> p, int64_t rows, int64_t rank, std::span<double> scratch);

// Rows of length one. Each row k of `from` [rows, cols], divided by its length, goes to row k of
// `to`; a row whose length is 0 or NaN, and every row where `from` is null, is drawn instead:
// CentredUniform of numbers k * cols + j of the stream, then divided by its length. The same bits
// on every SIMD target. `to` may be `from`.
void UnitRows(const float* from, int64_t rows, int64_t cols, uint64_t key, float* to);
// x[i] = CentredUniform of number first + i of the stream.
void DrawUniform(std::span<float> x, uint64_t key, uint64_t first);
// to[j][i] = factor * from[i][j]; from [rows, cols], to [cols, rows].
void TransposeScaled(const float* from, int64_t rows, int64_t cols, float factor, float* to);

// One element at a time, for the tests.
void MaterializeTimesQReference(const MessageView& message, const LowRankShape& shape,
                                const float* qt, float* p);
void TransposeTimesMReference(const float* m, const LowRankShape& shape, const float* p, float* qt);
void OuterAddReference(float* out, const LowRankShape& shape, const float* p, const float* qt,
                       float scale);

}  // namespace tw::kernels
