#include "core/kernels/topk.h"

#include "core/kernels/index_pack.h"
#include "core/kernels/topk_device.h"
#include "tests/core/kernels/sample_data.h"
#include "tests/cuda/device_memory.h"

namespace tw {
namespace {

namespace device = kernels::device;
using device::TopKSegment;
using kernels::IndexedValue;

// Numbers of few distinct magnitudes, of few digits, zeros alone, and ordinary ones.
std::vector<float> Message(size_t n, size_t kind) {
  std::vector<float> out = kind == 1 ? AwkwardFloats(n, n) : RandomFloats(n, n + kind);
  for (size_t i = 0; i < n; ++i) {
    if (kind == 2) out[i] = i % 3 ? 2.0f : -2.0f;
    if (kind == 3) out[i] = static_cast<float>(i * 7919 % 5) - 2;
    if (kind == 4) out[i] = 0;
    if (kind == 5) out[i] = 1.0f + static_cast<float>(i % 100) * 0x1p-20f;
  }
  if (kind == 0 && n > 40) out[9] = INFINITY, out[11] = -INFINITY, out[12] = NAN, out[39] = -NAN;
  return out;
}

class DeviceTopK : public DeviceTest {
 protected:
  // One segment of each size, kind and share of what is kept; what the CPU makes of it.
  void Fill(const std::vector<size_t>& sizes) {
    for (const size_t n : sizes) {
      for (size_t kind = 0; kind < 6; ++kind) {
        const size_t shares[] = {0, 1, n / 100 + 1, n / 2, n};
        for (const size_t k : shares) {
          if (k <= n && (k + kind) % 2 == 0) Add(n, kind, k);
        }
      }
    }
    table_ = TableOf(segments_);
    scratch_ = Allocate(static_cast<size_t>(device::TopKScratchBytes(table_.count, table_.tiles)));
  }
  void Add(size_t n, size_t kind, size_t k) {
    std::vector<float> x = Message(n, kind);
    const std::vector<float> addend = Message(n, (kind + 3) % 6);
    const bool pending = n % 2 == 1;
    segments_.push_back({Upload(x), pending ? Upload(addend) : nullptr, 0.5f,
                         static_cast<uint32_t>(k), AllocateOf<IndexedValue>(k),
                         AllocateOf<uint32_t>(1), static_cast<int64_t>(n)});
    std::vector<IndexedValue> room(kernels::TopKScratch(n, k));
    const auto taken = kernels::TakeTopK({x, pending ? addend.data() : nullptr, 0.5f}, k, room);
    lists_.emplace_back(taken.begin(), taken.end());
    residuals_.push_back(x);
  }
  // NaNs are compared as such: only their sign and payload differ.
  static std::vector<IndexedValue> Plain(std::vector<IndexedValue> list) {
    for (IndexedValue& e : list) {
      if (std::isnan(std::bit_cast<float>(kernels::ValueBitsOf(e)))) {
        e = IndexedValue{0x7FC00000u} << 32 | kernels::IndexOf(e);
      }
    }
    return list;
  }
  void ExpectTheCpus() {
    for (size_t i = 0; i < segments_.size(); ++i) {
      const TopKSegment& s = segments_[i];
      EXPECT_EQ(Plain(Download(s.out, s.k)), Plain(lists_[i])) << s.numel << " k " << s.k;
      EXPECT_TRUE(SameBits(residuals_[i], Download(s.buffer, residuals_[i].size()))) << s.k;
    }
  }
  std::vector<TopKSegment> segments_;
  std::vector<std::vector<IndexedValue>> lists_;
  std::vector<std::vector<float>> residuals_;
  device::Table<TopKSegment> table_;
  uint8_t* scratch_ = nullptr;
};

TEST_F(DeviceTopK, TakesWhatTheCpuTakesFromManySegmentsAtOnce) {
  std::vector<size_t> sizes = DeviceSizes();
  sizes.insert(sizes.end(), {4096, 9000});
  Fill(sizes);
  EXPECT_EQ(LaunchesOf(9, [&] { device::TakeTopK(table_, scratch_, stream()); }), 9);
  ExpectTheCpus();
}

TEST_F(DeviceTopK, TakesWhatTheCpuTakesFromShortSegmentsInOneLaunch) {
  Fill({0, 1, 7, 31, 127, 128, 129, 1000, 4096});
  EXPECT_EQ(LaunchesOf(1, [&] { device::TakeTopKShort(table_, stream()); }), 1);
  ExpectTheCpus();
}

TEST_F(DeviceTopK, ManyTilesOfEqualNumbersGoByIndex) {
  const size_t n = 300 * static_cast<size_t>(device::kTile) + 5;
  Add(n, 2, 2 * static_cast<size_t>(device::kTile) + 3);
  table_ = TableOf(segments_);
  scratch_ = Allocate(static_cast<size_t>(device::TopKScratchBytes(table_.count, table_.tiles)));
  device::TakeTopK(table_, scratch_, stream());
  ExpectTheCpus();
}

TEST_F(DeviceTopK, TakesWhatIsAboveAThreshold) {
  const float threshold = 0.75f;
  std::vector<size_t> counts;
  for (const size_t n : DeviceSizes()) {
    std::vector<float> x = Message(n, n % 6 == 0 ? 3 : 5 * (n % 2));
    for (float& v : x) v = std::isnan(v) ? 1.0f : v;
    const bool room_enough = n % 7 != 1;
    TopKSegment segment{Upload(x),
                        nullptr,
                        1.0f,
                        static_cast<uint32_t>(room_enough ? n : n / 3),
                        nullptr,
                        AllocateOf<uint32_t>(1),
                        static_cast<int64_t>(n)};
    segment.out = AllocateOf<IndexedValue>(segment.k);
    segments_.push_back(segment);
    std::vector<IndexedValue> room(n + kernels::kTakeSlack);
    std::vector<float> residual = x;
    const size_t count = kernels::TakeAbove({residual}, threshold, room);
    counts.push_back(count);
    const bool fits = count <= segment.k;
    residuals_.push_back(fits ? residual : x);
    lists_.emplace_back(room.begin(), room.begin() + static_cast<ptrdiff_t>(fits ? count : 0));
  }
  table_ = TableOf(segments_);
  scratch_ = Allocate(static_cast<size_t>(device::TopKScratchBytes(table_.count, table_.tiles)));
  device::TakeAbove(table_, threshold, scratch_, stream());
  for (size_t i = 0; i < segments_.size(); ++i) {
    EXPECT_EQ(Download(segments_[i].found, 1)[0], counts[i]);
    EXPECT_EQ(Download(segments_[i].out, lists_[i].size()), lists_[i]);
    EXPECT_TRUE(SameBits(residuals_[i], Download(segments_[i].buffer, residuals_[i].size())));
  }
}

TEST_F(DeviceTopK, PacksListsAndAddsThemAgain) {
  std::vector<device::IndexSegment> segments;
  std::vector<std::vector<uint8_t>> packed;
  std::vector<std::vector<float>> sums;
  for (const size_t n : {0, 1, 2, 31, 1000, 4099, 100000}) {
    const size_t k = n / 3 + (n > 0);
    const int bits = kernels::IndexBits(n);
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

TEST_F(DeviceTopK, ListsOnGridsAreTheCpus) {
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

TEST_F(DeviceTopK, ABodyOfIndicesBehindTheEndChangesNothingThere) {
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
