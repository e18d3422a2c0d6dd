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

}  // namespace
}  // namespace tw
