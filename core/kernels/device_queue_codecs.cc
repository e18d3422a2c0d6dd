// Kernels of compressors.
#include <algorithm>

#include "core/kernels/device_queue_cuda.h"
#include "core/kernels/index_pack.h"
#include "core/kernels/index_pack_device.h"
#include "core/kernels/lowrank_device.h"
#include "core/kernels/natural_device.h"
#include "core/kernels/quantize_device.h"
#include "core/kernels/shared_scale_device.h"
#include "core/kernels/signs_device.h"
#include "core/kernels/subset_device.h"
#include "core/kernels/topk_device.h"

namespace tw::kernels {
namespace {

using device::DequantizeSegment;
using device::GridSegment;
using device::IndexSegment;
using device::LevelSegment;
using device::LowRankSegment;
using device::MarkedSegment;
using device::NaturalSegment;
using device::QuantizeSegment;
using device::RotateSegment;
using device::SignSegment;
using device::TopKSegment;
using device::UnitRowsSegment;

size_t SelectionScratch(std::span<const TopKSegment> segments, int64_t tiles) {
  return static_cast<size_t>(device::TopKScratchBytes(static_cast<int32_t>(segments.size()), tiles,
                                                      device::TopKRoom(segments)));
}

struct TopKOp : OpBase<TopKSegment, None> {
  static bool Short(std::span<const TopKSegment> segments) {
    return std::all_of(segments.begin(), segments.end(),
                       [](const TopKSegment& s) { return s.numel <= device::kTile; });
  }
  static size_t Scratch(std::span<const TopKSegment> segments, int64_t tiles, const None&) {
    return Short(segments) ? 0 : SelectionScratch(segments, tiles);
  }
  static void Launch(const LaunchOf<TopKSegment, None>& of) {
    if (Short(of.segments)) return device::TakeTopKShort(of.table, of.stream);
    device::TakeTopK(of.table, device::TopKRoom(of.segments), of.scratch, of.stream);
  }
};

// How many there are is at the start of the scratch.
struct AboveOp : OpBase<TopKSegment, float> {
  static constexpr size_t kFound = 8;
  static size_t Scratch(std::span<const TopKSegment> segments, int64_t tiles, float) {
    return kFound + SelectionScratch(segments, tiles);
  }
  static void UseScratch(std::span<TopKSegment> segments, uint8_t* scratch) {
    segments[0].found = reinterpret_cast<uint32_t*>(scratch);
  }
  static void Launch(const LaunchOf<TopKSegment, float>& of) {
    device::TakeAbove(of.table, of.parameters, device::TopKRoom(of.segments), of.scratch + kFound,
                      of.stream);
  }
};

template <auto kKernel>
struct GridOp : OpBase<GridSegment, None> {
  static int64_t Place(std::span<GridSegment> segments, const None&) {
    return device::PlaceGrids(segments);
  }
  static void Launch(const LaunchOf<GridSegment, None>& of) { kKernel(of.table, of.stream); }
};

template <class Segment>
struct QuantizedOp : OpBase<Segment, QuantizeSpec> {
  static int64_t Place(std::span<Segment> segments, const QuantizeSpec& spec) {
    return device::PlaceQuantized(segments, spec);
  }
};
struct QuantizeOp : QuantizedOp<QuantizeSegment> {
  static size_t Scratch(std::span<const QuantizeSegment>, int64_t tiles, const QuantizeSpec& spec) {
    return static_cast<size_t>(device::QuantizeScratch(tiles, spec)) * sizeof(double);
  }
  static void Launch(const LaunchOf<QuantizeSegment, QuantizeSpec>& of) {
    device::Quantize(of.table, of.parameters, reinterpret_cast<double*>(of.scratch), of.stream);
  }
};
struct DequantizeOp : QuantizedOp<DequantizeSegment> {
  static void Launch(const LaunchOf<DequantizeSegment, QuantizeSpec>& of) {
    device::DequantizeAdd(of.table, of.parameters, of.stream);
  }
};

struct EncodeSignsOp : OpBase<SignSegment, SignMeans> {
  static size_t Scratch(std::span<const SignSegment>, int64_t tiles, SignMeans) {
    return static_cast<size_t>(device::SignScratch(tiles));
  }
  static void Launch(const LaunchOf<SignSegment, SignMeans>& of) {
    device::PackSigns(of.table, of.parameters, of.scratch, of.stream);
    device::SubtractBySign(of.table, of.parameters, of.stream);
  }
};

template <void (*kKernel)(device::Table<MarkedSegment>, uint64_t*, device::Stream)>
struct MarkedOp : OpBase<MarkedSegment, None> {
  static size_t Scratch(std::span<const MarkedSegment>, int64_t tiles, const None&) {
    return static_cast<size_t>(device::MarkedScratch(tiles)) * sizeof(uint64_t);
  }
  static void Launch(const LaunchOf<MarkedSegment, None>& of) {
    kKernel(of.table, reinterpret_cast<uint64_t*>(of.scratch), of.stream);
  }
};

struct TransposeTimesOp : OpBase<LowRankSegment, None> {
  static size_t Partial(const LowRankSegment& segment) {
    return static_cast<size_t>(device::LowRankPartial(segment.shape)) * sizeof(float);
  }
  static size_t Scratch(std::span<const LowRankSegment> segments, int64_t, const None&) {
    size_t bytes = 0;
    for (const LowRankSegment& segment : segments) bytes += Partial(segment);
    return bytes;
  }
  static void UseScratch(std::span<LowRankSegment> segments, uint8_t* scratch) {
    for (LowRankSegment& segment : segments) {
      segment.partial = reinterpret_cast<float*>(scratch);
      scratch += Partial(segment);
    }
  }
  static void Launch(const LaunchOf<LowRankSegment, None>& of) {
    device::TransposeTimesM(of.table, of.stream);
  }
};

struct UnitRowsOp : OpBase<UnitRowsSegment, None> {
  static int64_t Place(std::span<UnitRowsSegment> segments, const None&) {
    return device::PlaceUnitRows(segments);
  }
  static void Launch(const LaunchOf<UnitRowsSegment, None>& of) {
    device::UnitRows(of.table, of.stream);
  }
};

template <auto kKernel>
struct RotateOp : OpBase<RotateSegment, None> {
  static int64_t Place(std::span<RotateSegment> segments, const None&) {
    return device::PlaceRotated(segments);
  }
  static void Launch(const LaunchOf<RotateSegment, None>& of) { kKernel(of.table, of.stream); }
};

TopKSegment Taking(const MessageView& message, size_t k, std::span<IndexedValue> scratch) {
  return {message.buffer.data(), message.addend, message.scale,  static_cast<uint32_t>(k),
          scratch.data(),        nullptr,        message.numel()};
}
MarkedSegment Marked(std::span<float> buffer, std::span<const uint64_t> bitmap) {
  TW_CHECK_EQ(bitmap.size(), BitmapWords(buffer.size()));
  MarkedSegment segment;
  segment.buffer = buffer.data();
  segment.bitmap = bitmap.data();
  segment.numel = static_cast<int64_t>(buffer.size());
  return segment;
}
LowRankSegment LowRank(const float* m, const LowRankShape& shape, const float* p, const float* qt) {
  LowRankSegment segment;
  segment.m = const_cast<float*>(m);
  segment.shape = shape;
  segment.p = const_cast<float*>(p), segment.qt = const_cast<float*>(qt);
  segment.numel = shape.rows * shape.cols;
  return segment;
}
LevelSegment Levels(std::span<const float> x, int64_t block, std::span<const float> scales) {
  LevelSegment segment;
  segment.x = const_cast<float*>(x.data());
  segment.scales = const_cast<float*>(scales.data());
  segment.block = block;
  segment.numel = static_cast<int64_t>(x.size());
  return segment;
}
RotateSegment Rotating(std::span<float> x, int64_t block, uint64_t key, uint64_t first_index) {
  return {x.data(), block, key, first_index, static_cast<int64_t>(x.size())};
}

}  // namespace

// ---- topk.h, index_pack.h ----

std::span<const IndexedValue> CudaQueue::TakeTopK(const MessageView& message, size_t k,
                                                  std::span<IndexedValue> scratch) {
  TW_CHECK_LE(k, message.buffer.size());
  TW_CHECK_LE(k, scratch.size());
  Put<TopKOp>(Taking(message, k, scratch));
  return scratch.first(k);
}

size_t CudaQueue::TakeAbove(const MessageView& message, float threshold,
                            std::span<IndexedValue> scratch) {
  TW_CHECK_LE(kTakeSlack, scratch.size());
  if (message.numel() == 0) return 0;
  Flush();
  Put<AboveOp>(Taking(message, scratch.size() - kTakeSlack, scratch), threshold);
  uint32_t found = 0;
  Flush();
  CopyOut(&found, scratch_.AtLeast(0), sizeof(found));
  return found;
}

void CudaQueue::PackEntries(std::span<const IndexedValue> list, int bits, uint8_t* packed,
                            uint8_t* values) {
  IndexSegment segment;
  segment.list = list.data(), segment.bits = bits;
  segment.packed = packed, segment.values = values;
  segment.numel = static_cast<int64_t>(list.size());
  Put<Kernel<device::PackIndices>>(segment);
}

void CudaQueue::AddAtIndices(std::span<float> out, float scale, ByteSpan packed, int bits,
                             size_t count, const uint8_t* values) {
  TW_CHECK_GE(packed.size(), PackedIndexBytes(count, bits));
  IndexSegment segment;
  segment.bits = bits, segment.packed = const_cast<uint8_t*>(packed.data());
  segment.values = const_cast<uint8_t*>(values);
  segment.out = out.data(), segment.out_numel = static_cast<int64_t>(out.size());
  segment.scale = scale;
  segment.numel = static_cast<int64_t>(count);
  Put<Kernel<device::AddAtIndices>>(segment);
}

void CudaQueue::PackEntriesOnGrids(std::span<const IndexedValue> list, std::span<float> buffer,
                                   int index_bits, uint8_t* packed, int value_bits, size_t group,
                                   uint8_t* values) {
  GridSegment segment;
  segment.list = list.data(), segment.buffer = buffer.data();
  segment.index_bits = index_bits, segment.packed = packed;
  segment.value_bits = value_bits, segment.group = static_cast<int64_t>(group);
  segment.values = values;
  segment.numel = static_cast<int64_t>(list.size());
  Put<GridOp<device::PackEntriesOnGrids>>(segment);
}

void CudaQueue::AddAtIndicesFromGrids(std::span<float> out, float scale, ByteSpan packed,
                                      int index_bits, size_t count, int value_bits, size_t group,
                                      const uint8_t* values) {
  TW_CHECK_GE(packed.size(), PackedIndexBytes(count, index_bits));
  GridSegment segment;
  segment.index_bits = index_bits, segment.packed = const_cast<uint8_t*>(packed.data());
  segment.value_bits = value_bits, segment.group = static_cast<int64_t>(group);
  segment.values = const_cast<uint8_t*>(values);
  segment.out = out.data(), segment.out_numel = static_cast<int64_t>(out.size());
  segment.scale = scale;
  segment.numel = static_cast<int64_t>(count);
  Put<GridOp<device::AddAtIndicesFromGrids>>(segment);
}

// ---- quantize.h, natural.h, signs.h ----

void CudaQueue::Quantize(const MessageView& message, const QuantizeSpec& spec,
                         QuantizeStream stream, uint8_t* body) {
  Put<QuantizeOp>(
      {message.buffer.data(), message.addend, message.scale, body, stream, message.numel()}, spec);
}
void CudaQueue::DequantizeAdd(const uint8_t* body, const QuantizeSpec& spec, float scale,
                              std::span<float> out) {
  Put<DequantizeOp>({out.data(), scale, body, static_cast<int64_t>(out.size())}, spec);
}

void CudaQueue::NaturalEncode(const MessageView& message, uint64_t key, uint64_t first_index,
                              uint8_t* body) {
  Put<Kernel<device::NaturalEncode>>({message.buffer.data(), message.addend, message.scale, body,
                                      key, first_index, message.numel()});
}
void CudaQueue::NaturalDecodeAdd(const uint8_t* body, float scale, std::span<float> out) {
  NaturalSegment segment;
  segment.buffer = out.data(), segment.scale = scale;
  segment.body = const_cast<uint8_t*>(body);
  segment.numel = static_cast<int64_t>(out.size());
  Put<Kernel<device::NaturalDecodeAdd>>(segment);
}

void CudaQueue::EncodeSigns(const MessageView& message, SignMeans means, uint8_t* mean_bytes,
                            uint8_t* bits) {
  Put<EncodeSignsOp>(
      {message.buffer.data(), message.addend, message.scale, mean_bytes, bits, message.numel()},
      means);
}
void CudaQueue::DecodeSignsAdd(std::span<float> out, float scale, SignMeans means,
                               const uint8_t* mean_bytes, const uint8_t* bits) {
  SignSegment segment;
  segment.buffer = out.data(), segment.scale = scale;
  segment.means = const_cast<uint8_t*>(mean_bytes), segment.bits = const_cast<uint8_t*>(bits);
  segment.numel = static_cast<int64_t>(out.size());
  Put<Kernel<device::AddBySign>>(segment, {means});
}

// ---- subset.h ----

void CudaQueue::MarkSubset(uint64_t key, size_t numel, size_t k, std::span<uint64_t> bitmap) {
  bitmap_.resize(bitmap.size());
  {
    const DeviceScope on_host(nullptr);
    kernels::MarkSubset(key, numel, k, bitmap_);
  }
  if (!bitmap.empty()) CopyIn(bitmap.data(), bitmap_.data(), bitmap.size_bytes());
}
void CudaQueue::TakeMarked(const MessageView& message, std::span<const uint64_t> bitmap,
                           float decoded_factor, uint8_t* to) {
  MarkedSegment segment = Marked(message.buffer, bitmap);
  segment.addend = message.addend, segment.scale = message.scale;
  segment.decoded_factor = decoded_factor;
  segment.values = to;
  Put<MarkedOp<device::TakeMarked>>(segment);
}
void CudaQueue::AddMarked(std::span<float> out, std::span<const uint64_t> bitmap, float s,
                          const uint8_t* from) {
  MarkedSegment segment = Marked(out, bitmap);
  segment.scale = s;
  segment.values = const_cast<uint8_t*>(from);
  Put<MarkedOp<device::AddMarked>>(segment);
}

// ---- lowrank.h ----

void CudaQueue::MaterializeTimesQ(const MessageView& message, const LowRankShape& shape,
                                  const float* qt, float* p) {
  LowRankSegment segment = LowRank(message.buffer.data(), shape, p, qt);
  segment.addend = message.addend, segment.scale = message.scale;
  Put<Kernel<device::MaterializeTimesQ>>(segment);
}
void CudaQueue::TransposeTimesM(const float* m, const LowRankShape& shape, const float* p,
                                float* qt) {
  Put<TransposeTimesOp>(LowRank(m, shape, p, qt));
}
void CudaQueue::OuterResidual(float* m, const LowRankShape& shape, const float* p,
                              const float* qt) {
  Put<Kernel<device::OuterResidual>>(LowRank(m, shape, p, qt));
}
void CudaQueue::OuterAdd(float* out, const LowRankShape& shape, const float* p, const float* qt,
                         float scale) {
  LowRankSegment segment = LowRank(out, shape, p, qt);
  segment.scale = scale;
  Put<Kernel<device::OuterAdd>>(segment);
}
void CudaQueue::Orthonormalize(std::span<float> p, int64_t rows, int64_t rank,
                               std::span<double> scratch) {
  TW_CHECK_GE(static_cast<int64_t>(scratch.size()), rows * rank);
  LowRankSegment segment = LowRank(nullptr, {rows, 0, rank}, p.data(), nullptr);
  segment.columns = scratch.data();
  segment.numel = rows * rank;
  Put<Kernel<device::Orthonormalize>>(segment);
}
void CudaQueue::UnitRows(const float* from, int64_t rows, int64_t cols, uint64_t key, float* to) {
  Put<UnitRowsOp>({from, to, key, cols, rows * cols});
}
void CudaQueue::DrawUniform(std::span<float> x, uint64_t key, uint64_t first) {
  Put<Kernel<device::DrawUniform>>({x.data(), key, first, static_cast<int64_t>(x.size())});
}
void CudaQueue::TransposeScaled(const float* from, int64_t rows, int64_t cols, float factor,
                                float* to) {
  Put<Kernel<device::TransposeScaled>>({from, to, factor, cols, rows * cols});
}

// ---- shared_scale.h ----

void CudaQueue::LargestOfBlocks(std::span<const float> x, int64_t block, std::span<float> scales) {
  Put<Kernel<device::LargestOfBlocks>>(Levels(x, block, scales));
}
void CudaQueue::RoundToCodes(std::span<const float> x, int64_t block, std::span<const float> scales,
                             int levels, uint64_t key, uint64_t first_index,
                             std::span<int8_t> codes) {
  LevelSegment segment = Levels(x, block, scales);
  segment.codes = codes.data();
  segment.key = key, segment.first_index = first_index;
  Put<Kernel<device::RoundToLevels>>(segment, {levels});
}
void CudaQueue::ValuesOfCodes(std::span<const int8_t> codes, int64_t block,
                              std::span<const float> scales, int levels, std::span<float> x) {
  LevelSegment segment = Levels(x, block, scales);
  segment.codes = const_cast<int8_t*>(codes.data());
  Put<Kernel<device::ValuesOfLevels>>(segment, {levels});
}
void CudaQueue::RotateBlocks(std::span<float> x, int64_t block, uint64_t key,
                             uint64_t first_index) {
  Put<RotateOp<device::Rotate>>(Rotating(x, block, key, first_index));
}
void CudaQueue::RotateBlocksBack(std::span<float> x, int64_t block, uint64_t key,
                                 uint64_t first_index) {
  Put<RotateOp<device::RotateBack>>(Rotating(x, block, key, first_index));
}

}  // namespace tw::kernels
