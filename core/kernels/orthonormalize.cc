// Gram-Schmidt and the scalar references of lowrank.h. Compiled for one target only, with a fixed
// order of additions: the basis is what all ranks must agree on.
#include <algorithm>
#include <cmath>

#include "core/kernels/device_kernels.h"
#include "core/kernels/lowrank.h"

namespace tw::kernels {
namespace {

constexpr double kDependent = 1e-6;  // the noise of an fp32 sum of products

// Sixteen lanes, then a tree.
double DotOfPiece(const double* a, const double* b, int64_t n) {
  double lanes[16] = {};
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) {
    for (int l = 0; l < 16; ++l) lanes[l] += a[i + l] * b[i + l];
  }
  for (int l = 0; i < n; ++i, ++l) lanes[l] += a[i] * b[i];
  for (int width = 8; width > 0; width /= 2) {
    for (int l = 0; l < width; ++l) lanes[l] += lanes[l + width];
  }
  return lanes[0];
}

// In the shape that lowrank.h names: what a GPU's warps share.
double Dot(const double* a, const double* b, int64_t n) {
  constexpr int64_t kPiece = 1024;
  double parts[kDotParts] = {};
  for (int64_t at = 0; at < n; at += kPiece) {
    parts[at / kPiece % kDotParts] += DotOfPiece(a + at, b + at, std::min(kPiece, n - at));
  }
  double sum = parts[0];
  for (int part = 1; part < kDotParts; ++part) sum += parts[part];
  return sum;
}

}  // namespace

void Orthonormalize(std::span<float> p, int64_t rows, int64_t rank, std::span<double> scratch) {
  if (DeviceKernels* device = OnDevice()) return device->Orthonormalize(p, rows, rank, scratch);
  double* columns = scratch.data();  // [rank, rows]
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t k = 0; k < rank; ++k) columns[k * rows + i] = p[i * rank + k];
  }
  for (int64_t k = 0; k < rank; ++k) {
    double* column = columns + k * rows;
    const double before = std::sqrt(Dot(column, column, rows));
    for (int pass = 0; pass < 2; ++pass) {
      for (int64_t j = 0; j < k; ++j) {
        const double* basis = columns + j * rows;
        const double along = Dot(basis, column, rows);
        for (int64_t i = 0; i < rows; ++i) column[i] -= along * basis[i];
      }
    }
    const double after = std::sqrt(Dot(column, column, rows));
    const bool keep = after > kDependent * before && std::isfinite(after);
    for (int64_t i = 0; i < rows; ++i) column[i] = keep ? column[i] / after : 0.0;
  }
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t k = 0; k < rank; ++k) p[i * rank + k] = static_cast<float>(columns[k * rows + i]);
  }
}

void MaterializeTimesQReference(const MessageView& message, const LowRankShape& shape,
                                const float* qt, float* p) {
  for (int64_t i = 0; i < shape.rows; ++i) {
    float* m = message.buffer.data() + i * shape.cols;
    for (int64_t j = 0; message.addend && j < shape.cols; ++j) {
      m[j] = m[j] + message.scale * message.addend[i * shape.cols + j];
    }
    for (int64_t k = 0; k < shape.rank; ++k) {
      double sum = 0;
      for (int64_t j = 0; j < shape.cols; ++j) sum += double{m[j]} * qt[k * shape.cols + j];
      p[i * shape.rank + k] = static_cast<float>(sum);
    }
  }
}

void TransposeTimesMReference(const float* m, const LowRankShape& shape, const float* p,
                              float* qt) {
  for (int64_t k = 0; k < shape.rank; ++k) {
    for (int64_t j = 0; j < shape.cols; ++j) {
      double sum = 0;
      for (int64_t i = 0; i < shape.rows; ++i) {
        sum += double{p[i * shape.rank + k]} * m[i * shape.cols + j];
      }
      qt[k * shape.cols + j] = static_cast<float>(sum);
    }
  }
}

void OuterAddReference(float* out, const LowRankShape& shape, const float* p, const float* qt,
                       float scale) {
  for (int64_t i = 0; i < shape.rows; ++i) {
    for (int64_t j = 0; j < shape.cols; ++j) {
      float value = 0.0f;
      for (int64_t k = 0; k < shape.rank; ++k) {
        value = value + p[i * shape.rank + k] * qt[k * shape.cols + j];
      }
      out[i * shape.cols + j] += scale * value;
    }
  }
}

}  // namespace tw::kernels
