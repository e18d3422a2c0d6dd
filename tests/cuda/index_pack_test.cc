#include "core/kernels/index_pack.h"

#include "core/kernels/index_pack_device.h"
#include "tests/core/kernels/sample_data.h"
#include "tests/cuda/device_memory.h"

namespace tw {
namespace {

namespace device = kernels::device;
using kernels::IndexedValue;

class DeviceIndices : public DeviceTest {};

TEST_F(DeviceIndices, PacksListsAndAddsThemAgain) {
  std::vector<device::IndexSegment> segments;
  std::vector<std::vector<uint8_t>> packed;
  std::vector<std::vector<float>> sums;
  for (const size_t n : {0, 1, 2, 31, 1000, 4099, 100000}) {
    const size_t k = n / 3 + (n > 0);
    const int bits = n == 31 ? 32 : kernels::IndexBits(n);
    std::vector<IndexedValue> list;
    const std::vector<float> values = RandomFloats(k, n);
    std::vector<uint8_t> indices(kernels::PackedIndexBytes(k, bits)), bytes(4 * k);
    kernels::IndexWriter writer(indices.data(), bits);
    for (size_t j = 0; j < k; ++j) {
      const auto index = static_cast<uint32_t>(j * 3 % std::max<size_t>(n, 1));
      list.push_back(kernels::MakeIndexedValue(index, values[j]));
      writer.Put(index);
    }
    writer.Finish();
    std::memcpy(bytes.data(), values.data(), bytes.size());
    std::vector<float> sum = RandomFloats(n, n + 1);
    segments.push_back({Upload(list), bits, Allocate(indices.size(), n % 3),
                        Allocate(bytes.size(), n % 4), Upload(sum), static_cast<int64_t>(n), 0.7f,
                        static_cast<int64_t>(k)});
    kernels::AddAtIndices(sum, 0.7f, indices, bits, k, bytes.data());
    packed.push_back(indices);
    sums.push_back(sum);
  }
  const auto table = TableOf(segments);
  device::PackIndices(table, stream());
  device::AddAtIndices(table, stream());
  for (size_t i = 0; i < segments.size(); ++i) {
    EXPECT_TRUE(SameBits(packed[i], Download(segments[i].packed, packed[i].size())));
    EXPECT_TRUE(SameBits(sums[i], Download(segments[i].out, sums[i].size())));
  }
}

TEST_F(DeviceIndices, ListsOnGridsAreTheCpus) {
  std::vector<device::GridSegment> segments;
  std::vector<std::vector<uint8_t>> packed, values;
  std::vector<std::vector<float>> residuals, sums;
  for (const size_t k : {0, 1, 7, 41, 255, 256, 257, 1000}) {
    for (const int value_bits : {2, 4, 8, 16}) {
      const bool one = (k + static_cast<size_t>(value_bits)) % 3 == 0;
      const size_t n = 2 * k + 5, group = one ? std::max<size_t>(k, 1) : 256;
      const int bits = kernels::IndexBits(n);
      std::vector<float> x = RandomFloats(k, k), buffer = RandomFloats(n, k + 1);
      for (size_t j = 0; j < k; j += 13) x[j] = j % 2 ? 0.0f : -0.0f;
      if (k == 255) std::fill(x.begin(), x.end(), -2.5f);  // a step of 0
      std::vector<IndexedValue> list;
      for (size_t j = 0; j < k; ++j) {
        list.push_back(kernels::MakeIndexedValue(static_cast<uint32_t>(2 * j + j % 2), x[j]));
      }
      std::vector<uint8_t> indices(kernels::PackedIndexBytes(k, bits));
      std::vector<uint8_t> bytes(kernels::GridBytes(k, group, value_bits));
      std::vector<float> sum = RandomFloats(n, n);
      device::GridSegment s;
      s.list = Upload(list);
      s.buffer = Upload(buffer);
      s.index_bits = bits;
      s.packed = Allocate(indices.size(), k % 3);
      s.value_bits = value_bits;
      s.group = static_cast<int64_t>(group);
      s.values = Allocate(bytes.size(), (k + 1) % 4);
      s.out = Upload(sum);
      s.out_numel = static_cast<int64_t>(n);
      s.scale = -0.6f;
      s.numel = static_cast<int64_t>(k);
      segments.push_back(s);
      kernels::PackEntriesOnGrids(list, buffer, bits, indices.data(), value_bits, group,
                                  bytes.data());
      kernels::AddAtIndicesFromGrids(sum, -0.6f, indices, bits, k, value_bits, group, bytes.data());
      packed.push_back(indices), values.push_back(bytes);
      residuals.push_back(buffer), sums.push_back(sum);
    }
  }
  const int64_t tiles = device::PlaceGrids(segments);
  const device::Table<device::GridSegment> table{Upload(segments),
                                                 static_cast<int32_t>(segments.size()), tiles};
  EXPECT_EQ(LaunchesOf(1, [&] { device::PackEntriesOnGrids(table, stream()); }), 1);
  device::AddAtIndicesFromGrids(table, stream());
  for (size_t i = 0; i < segments.size(); ++i) {
    EXPECT_TRUE(SameBits(packed[i], Download(segments[i].packed, packed[i].size()))) << i;
    EXPECT_TRUE(SameBits(values[i], Download(segments[i].values, values[i].size()))) << i;
    EXPECT_TRUE(SameBits(residuals[i], Download(segments[i].buffer, residuals[i].size()))) << i;
    EXPECT_TRUE(SameBits(sums[i], Download(segments[i].out, sums[i].size()))) << i;
  }
}

TEST_F(DeviceIndices, ABodyOfIndicesBehindTheEndChangesNothingThere) {
  const size_t k = 9;
  const std::vector<uint8_t> packed(kernels::PackedIndexBytes(k, 7), 0xFF);  // 127 each
  const std::vector<float> out(100, 1.0f);
  device::IndexSegment exact;
  exact.bits = 7;
  exact.packed = Upload(packed);
  exact.values = Upload(std::vector<uint8_t>(4 * k, 0x3F));
  exact.out = Upload(out);
  exact.out_numel = 100;
  exact.numel = static_cast<int64_t>(k);
  device::GridSegment grid;
  grid.index_bits = 7;
  grid.packed = exact.packed;
  grid.value_bits = 4;
  grid.group = static_cast<int64_t>(k);
  grid.values = Upload(std::vector<uint8_t>(kernels::GridBytes(k, k, 4), 0x3F));
  grid.out = Upload(out);
  grid.out_numel = 100;
  grid.numel = static_cast<int64_t>(k);
  device::AddAtIndices(TableOf<device::IndexSegment>({exact}), stream());
  std::vector<device::GridSegment> grids = {grid};
  const int64_t tiles = device::PlaceGrids(grids);
  device::AddAtIndicesFromGrids({Upload(grids), 1, tiles}, stream());
  EXPECT_TRUE(SameBits(out, Download(exact.out, 100)));
  EXPECT_TRUE(SameBits(out, Download(grid.out, 100)));  // and the guards behind it, at the end
}

}  // namespace
}  // namespace tw
