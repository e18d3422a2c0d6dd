#include "core/kernels/index_pack.h"

#include "core/kernels/device_kernels.h"
#include "core/kernels/value_grid.h"

namespace tw::kernels {

void PackEntries(std::span<const IndexedValue> list, int bits, uint8_t* packed, uint8_t* values) {
  if (DeviceKernels* device = OnDevice()) return device->PackEntries(list, bits, packed, values);
  IndexWriter indices(packed, bits);
  for (const IndexedValue e : list) {
    indices.Put(IndexOf(e));
    StoreLE(values, ValueBitsOf(e));
    values += sizeof(float);
  }
  indices.Finish();
}

void AddAtIndices(std::span<float> out, float scale, ByteSpan packed, int bits, size_t count,
                  const uint8_t* values) {
  if (DeviceKernels* device = OnDevice()) {
    return device->AddAtIndices(out, scale, packed, bits, count, values);
  }
  float* to = out.data();
  ForEachIndex(packed, bits, count, [&](size_t j, uint32_t index) {
    to[index] += scale * LoadLE<float>(values + j * sizeof(float));
  });
}

size_t GridBytes(size_t count, size_t group, int value_bits) {
  const auto bytes = [&](size_t entries) {
    return entries ? ValueGrid::kBytes + PackedIndexBytes(entries, value_bits) : 0;
  };
  return count == 0 ? 0 : count / group * bytes(group) + bytes(count % group);
}

void PackEntriesOnGrids(std::span<const IndexedValue> list, std::span<float> buffer, int index_bits,
                        uint8_t* packed, int value_bits, size_t group, uint8_t* values) {
  if (DeviceKernels* device = OnDevice()) {
    return device->PackEntriesOnGrids(list, buffer, index_bits, packed, value_bits, group, values);
  }
  IndexWriter indices(packed, index_bits);
  for (size_t first = 0; first < list.size(); first += group) {
    const auto entries = list.subspan(first, std::min(group, list.size() - first));
    const ValueGrid grid = ValueGrid::Of(entries, ValueGrid::Top(value_bits));
    grid.Store(values);
    IndexWriter codes(values + ValueGrid::kBytes, value_bits);
    for (const IndexedValue e : entries) {
      const float x = std::bit_cast<float>(ValueBitsOf(e));
      const uint32_t code = grid.Code(x);
      indices.Put(IndexOf(e));
      codes.Put(code);
      buffer[IndexOf(e)] = x - grid.Value(code);
    }
    codes.Finish();
    values += GridBytes(entries.size(), group, value_bits);
  }
  indices.Finish();
}

void AddAtIndicesFromGrids(std::span<float> out, float scale, ByteSpan packed, int index_bits,
                           size_t count, int value_bits, size_t group, const uint8_t* values) {
  if (DeviceKernels* device = OnDevice()) {
    return device->AddAtIndicesFromGrids(out, scale, packed, index_bits, count, value_bits, group,
                                         values);
  }
  IndexReader indices(packed, index_bits);
  for (size_t first = 0; first < count; first += group) {
    const size_t entries = std::min(group, count - first);
    const ByteSpan bytes(values, GridBytes(entries, group, value_bits));
    const ValueGrid grid = ValueGrid::Load(bytes, ValueGrid::Top(value_bits));
    IndexReader codes(bytes.subspan(ValueGrid::kBytes), value_bits);
    for (size_t j = 0; j < entries; ++j) out[indices.Next()] += scale * grid.Value(codes.Next());
    values += bytes.size();
  }
}

}  // namespace tw::kernels
