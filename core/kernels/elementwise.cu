#include "core/kernels/elementwise_device.h"

#include "core/kernels/float16.h"
#include "core/kernels/launch.cuh"

namespace tw::kernels::device {
namespace {

struct Bf16 {
  __device__ static float Widen(uint16_t bits) { return Bf16ToFloat(bits); }
  __device__ static uint16_t Narrow(float value) { return FloatToBf16(value); }
  __device__ static uint16_t Saturated(float value) { return FloatToBf16Saturated(value); }
};
struct Half {
  __device__ static float Widen(uint16_t bits) { return HalfToFloat(bits); }
  __device__ static uint16_t Narrow(float value) { return FloatToHalfSaturated(value); }
  __device__ static uint16_t Saturated(float value) { return FloatToHalfSaturated(value); }
};

template <class Number>
__device__ Number NumberAt(const void* numbers, int64_t i) {
  return LoadAny<Number>(static_cast<const uint8_t*>(numbers) + i * int64_t{sizeof(Number)});
}

struct AddFloats {
  __device__ void operator()(const AddSegment& s, int64_t i) const {
    s.a[i] += s.s * NumberAt<float>(s.b, i);
  }
};
template <class Type>
struct AddNarrow {
  __device__ void operator()(const AddSegment& s, int64_t i) const {
    s.a[i] += s.s * Type::Widen(NumberAt<uint16_t>(s.b, i));
  }
};
struct Multiply {
  __device__ void operator()(const AddSegment& s, int64_t i) const { s.a[i] *= s.s; }
};

struct Larger {
  __device__ void operator()(const AddSegment& s, int64_t i) const {
    const float b = NumberAt<float>(s.b, i);
    if (s.a[i] < b) s.a[i] = b;
  }
};
struct Clear {
  __device__ void operator()(const AddSegment& s, int64_t i) const {
    if (NumberAt<float>(s.b, i) != 0) s.a[i] = 0;
  }
};
struct AddByte {
  __device__ void operator()(const AddBytesSegment& s, int64_t i) const {
    s.a[i] = static_cast<uint8_t>(s.a[i] + s.b[i]);
  }
};

__device__ float WideAt(DType type, const void* numbers, int64_t i) {
  if (type == DType::kF32) return NumberAt<float>(numbers, i);
  const uint16_t bits = NumberAt<uint16_t>(numbers, i);
  return type == DType::kBF16 ? Bf16ToFloat(bits) : HalfToFloat(bits);
}
struct NarrowSum {
  __device__ void operator()(const NarrowSumSegment& s, int64_t i) const {
    const float sum = WideAt(s.to_type, s.to, i) + s.s * WideAt(s.from_type, s.from, i);
    const uint16_t bits = s.to_type == DType::kBF16 ? FloatToBf16(sum) : FloatToHalfSaturated(sum);
    StoreAny(static_cast<uint8_t*>(s.to) + i * 2, bits);
  }
};

struct Move {
  __device__ void operator()(const MessageSegment& s, int64_t i) const {
    StoreAny(s.to + i * 4, MessageAt({s.buffer, s.addend, s.scale}, i));
    s.buffer[i] = 0;
  }
};
template <class Type>
struct Cast {
  float pre, post;
  __device__ void operator()(const MessageSegment& s, int64_t i) const {
    const float m = MessageAt({s.buffer, s.addend, s.scale}, i);
    const uint16_t bits = Type::Saturated(m * pre);
    StoreAny(s.to + i * 2, bits);
    s.buffer[i] = m - post * Type::Widen(bits);
  }
};

template <class Type>
struct ToNarrow {
  __device__ void operator()(const ConvertSegment& s, int64_t i) const {
    s.narrow[i] = Type::Narrow(s.wide[i]);
  }
};
template <class Type>
struct ToWide {
  __device__ void operator()(const ConvertSegment& s, int64_t i) const {
    s.wide[i] = Type::Widen(s.narrow[i]);
  }
};

}  // namespace

void AddInPlace(Table<AddSegment> table, Stream stream) {
  LaunchForEach(table, stream, AddFloats());
}
void AddFromBf16(Table<AddSegment> table, Stream stream) {
  LaunchForEach(table, stream, AddNarrow<Bf16>());
}
void AddFromHalf(Table<AddSegment> table, Stream stream) {
  LaunchForEach(table, stream, AddNarrow<Half>());
}
void Scale(Table<AddSegment> table, Stream stream) { LaunchForEach(table, stream, Multiply()); }

void TakeLarger(Table<AddSegment> table, Stream stream) { LaunchForEach(table, stream, Larger()); }
void ZeroWhere(Table<AddSegment> table, Stream stream) { LaunchForEach(table, stream, Clear()); }
void AddBytes(Table<AddBytesSegment> table, Stream stream) {
  LaunchForEach(table, stream, AddByte());
}

void AddToNarrow(Table<NarrowSumSegment> table, Stream stream) {
  LaunchForEach(table, stream, NarrowSum());
}

void MoveOut(Table<MessageSegment> table, Stream stream) { LaunchForEach(table, stream, Move()); }
void CastResidualBf16(Table<MessageSegment> table, float pre, float post, Stream stream) {
  LaunchForEach(table, stream, Cast<Bf16>{pre, post});
}
void CastResidualHalf(Table<MessageSegment> table, float pre, float post, Stream stream) {
  LaunchForEach(table, stream, Cast<Half>{pre, post});
}

void ConvertToBf16(Table<ConvertSegment> table, Stream stream) {
  LaunchForEach(table, stream, ToNarrow<Bf16>());
}
void ConvertFromBf16(Table<ConvertSegment> table, Stream stream) {
  LaunchForEach(table, stream, ToWide<Bf16>());
}
void ConvertToHalf(Table<ConvertSegment> table, Stream stream) {
  LaunchForEach(table, stream, ToNarrow<Half>());
}
void ConvertFromHalf(Table<ConvertSegment> table, Stream stream) {
  LaunchForEach(table, stream, ToWide<Half>());
}

}  // namespace tw::kernels::device
