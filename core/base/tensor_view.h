#pragma once
// A span with a dtype: how codecs, feedback, exchanges and optimizers see a parameter, its gradient
// or a state slot. Nothing below the engine includes LibTorch; the engine makes these views of
// at::Tensor storage. Always contiguous, never owning.

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/base/bytes.h"

namespace tw {

enum class DType : uint8_t { kF32 = 0, kF64 = 1, kF16 = 2, kBF16 = 3, kU8 = 4, kI32 = 5, kI64 = 6 };

int64_t DTypeBytes(DType dtype);
const char* DTypeName(DType dtype);  // "fp32", "fp64", "fp16", "bf16", "uint8", ...

struct TensorView {
  void* data = nullptr;
  DType dtype = DType::kF32;
  int64_t numel = 0;

  int64_t bytes() const { return numel * DTypeBytes(dtype); }
  // REQUIRES: dtype == kF32.
  std::span<float> f32() const { return {static_cast<float*>(data), static_cast<size_t>(numel)}; }
  ByteSpan raw() const { return {static_cast<const uint8_t*>(data), static_cast<size_t>(bytes())}; }
  MutableByteSpan mutable_raw() const {
    return {static_cast<uint8_t*>(data), static_cast<size_t>(bytes())};
  }
};

inline TensorView ViewOf(std::span<float> s) {
  return {s.data(), DType::kF32, static_cast<int64_t>(s.size())};
}

// What ranks agree on about a parameter before step 1. `id` is its position in registration order.
struct TensorSpec {
  uint32_t id = 0;
  std::string name;
  std::vector<int64_t> shape;
  DType dtype = DType::kF32;

  int64_t numel() const {
    int64_t n = 1;
    for (int64_t d : shape) n *= d;
    return n;
  }
  // The matrix a low-rank codec sees: rows = shape[0], cols = the rest; {numel, 1} below two
  // dimensions.
  int64_t rows() const { return shape.size() < 2 ? numel() : shape[0]; }
  int64_t cols() const { return shape.size() < 2 ? 1 : (shape[0] ? numel() / shape[0] : 0); }
  bool is_matrix() const { return rows() > 1 && cols() > 1; }
};

}  // namespace tw
