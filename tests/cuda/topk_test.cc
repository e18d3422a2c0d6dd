#include "core/kernels/topk.h"

#include "core/kernels/topk_device.h"
#include "tests/core/kernels/sample_data.h"
#include "tests/cuda/device_memory.h"

namespace tw {
namespace {

namespace device = kernels::device;
using device::TopKSegment;
using kernels::IndexedValue;

constexpr size_t kTile = static_cast<size_t>(device::kTile);

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

// Which of n elements the sample has.
std::vector<bool> Sampled(size_t n) {
  std::vector<bool> out(n);
  const int64_t numel = static_cast<int64_t>(n), stride = device::TopKSampleStride(numel);
  for (int64_t j = 0; j < numel / stride; ++j) {
    out[static_cast<size_t>(device::TopKSampledAt(j, stride))] = true;
  }
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
          if (k <= n && (k + kind) % 2 == 0) {
            const bool pending = n % 2 == 1;
            Add(Message(n, kind), k, pending ? Message(n, (kind + 3) % 6) : std::vector<float>());
          }
        }
      }
    }
  }
  float* UploadAt(const std::vector<float>& values, size_t offset) {
    uint8_t* out = Allocate(values.size() * sizeof(float), offset * sizeof(float));
    std::vector<uint8_t> bytes(values.size() * sizeof(float));
    std::memcpy(bytes.data(), values.data(), bytes.size());
    CopyIn(out, bytes);
    return reinterpret_cast<float*>(out);
  }
  // Buffer and addend, which is empty for none, lie so many numbers behind aligned addresses.
  void Add(std::vector<float> x, size_t k, const std::vector<float>& addend = {},
           size_t buffer_offset = 0, size_t addend_offset = 0) {
    segments_.push_back({UploadAt(x, buffer_offset),
                         addend.empty() ? nullptr : UploadAt(addend, addend_offset), 0.5f,
                         static_cast<uint32_t>(k), AllocateOf<IndexedValue>(k),
                         AllocateOf<uint32_t>(1), static_cast<int64_t>(x.size())});
    inputs_.push_back(x);
    std::vector<IndexedValue> room(kernels::TopKScratch(x.size(), k));
    const float* second = addend.empty() ? nullptr : addend.data();
    const auto taken = kernels::TakeTopK({x, second, 0.5f}, k, room);
    lists_.emplace_back(taken.begin(), taken.end());
    residuals_.push_back(x);
  }
  void Take(uint32_t room) {
    const auto table = TableOf(segments_);
    uint8_t* scratch =
        Allocate(static_cast<size_t>(device::TopKScratchBytes(table.count, table.tiles, room)));
    scratch_ = scratch;
    EXPECT_EQ(LaunchesOf(11, [&] { device::TakeTopK(table, room, scratch, stream()); }), 11);
  }
  void Forget() { segments_.clear(), lists_.clear(), inputs_.clear(), residuals_.clear(); }
  uint64_t Listed() { return Download(reinterpret_cast<const uint64_t*>(scratch_), 1)[0]; }
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
  // With the room that is asked for, with some that is soon used up, and without any.
  void ExpectTheCpusInAnyRoom() {
    const uint32_t room = device::TopKRoom(segments_);
    for (const uint32_t part : {room, room / 3, uint32_t{0}}) {
      for (size_t i = 0; i < segments_.size(); ++i) {
        std::vector<uint8_t> bytes(inputs_[i].size() * sizeof(float));
        std::memcpy(bytes.data(), inputs_[i].data(), bytes.size());
        CopyIn(segments_[i].buffer, bytes);
      }
      Take(part);
      ExpectTheCpus();
    }
  }
  std::vector<TopKSegment> segments_;
  std::vector<std::vector<IndexedValue>> lists_;
  std::vector<std::vector<float>> inputs_, residuals_;
  const uint8_t* scratch_ = nullptr;
};

TEST_F(DeviceTopK, TakesWhatTheCpuTakesFromManySegmentsAtOnce) {
  std::vector<size_t> sizes = DeviceSizes();
  sizes.insert(sizes.end(), {4096, 9000});
  Fill(sizes);
  Take(device::TopKRoom(segments_));
  ExpectTheCpus();
}

TEST_F(DeviceTopK, TakesWhatTheCpuTakesFromShortSegmentsInOneLaunch) {
  Fill({0, 1, 7, 31, 127, 128, 129, 1000, 4096});
  const auto table = TableOf(segments_);
  EXPECT_EQ(LaunchesOf(1, [&] { device::TakeTopKShort(table, stream()); }), 1);
  ExpectTheCpus();
}

TEST_F(DeviceTopK, AnyAddressesAreFine) {
  const size_t n = 2 * kTile + 3;
  for (size_t offset = 0; offset < 4; ++offset) {
    Add(RandomFloats(n, offset), n / 90, RandomFloats(n, offset + 9), offset, offset * 3 % 4);
    Add(RandomFloats(n, offset + 20), n / 90, {}, offset);
  }
  ExpectTheCpusInAnyRoom();
}

TEST_F(DeviceTopK, RoomMayBeAnything) {
  for (size_t kind = 0; kind < 6; ++kind) {
    Add(Message(5 * kTile + 7, kind), 150 + kind, Message(5 * kTile + 7, (kind + 1) % 6));
  }
  ExpectTheCpusInAnyRoom();
}

TEST_F(DeviceTopK, LargeOnesOfOneTileNeedNoOthers) {
  std::vector<float> x = RandomFloats(9 * kTile + 1, 5);
  const auto larger = [](float a, float b) { return std::fabs(a) > std::fabs(b); };
  std::sort(x.begin(), x.end(), larger);
  Add(x, 300);
  Add(x, 3000);  // more than a list holds
  std::reverse(x.begin(), x.end());
  Add(x, 300);
  std::fill_n(x.begin(), 6 * kTile, 0.0f);
  Add(x, 300);
  Add(x, 3 * kTile);
  ExpectTheCpusInAnyRoom();
}

TEST_F(DeviceTopK, FewMoreThanAreTakenAreListed) {
  const size_t n = 80001, k = n / 100;
  Add(RandomFloats(n, 3), k, RandomFloats(n, 4));
  const uint32_t room = device::TopKRoom(segments_);
  Take(room);
  ExpectTheCpus();
  EXPECT_GE(Listed(), k);
  EXPECT_LT(Listed(), 2 * k);
  EXPECT_LT(room, 9 * k / 4);
}

TEST_F(DeviceTopK, ColumnsOfAMatrixDoNotMislead) {
  const size_t cols = 512, n = 160 * cols;
  std::vector<float> x = RandomFloats(n, 7);
  for (size_t i = 0; i < n; ++i) x[i] *= i % cols < 5 ? 100.0f : 1.0f;
  Add(x, n / 128);
  Take(device::TopKRoom(segments_));
  ExpectTheCpus();
  EXPECT_GE(Listed(), n / 128);
  EXPECT_LT(Listed(), n / 64);
}

TEST_F(DeviceTopK, ASampleThatMisleadsCostsTimeOnly) {
  const size_t n = 17 * kTile + 1;
  const std::vector<bool> sampled = Sampled(n);
  EXPECT_EQ(std::count(sampled.begin(), sampled.end(), true), static_cast<int64_t>(n / 8));
  std::vector<float> x = RandomFloats(n, 3);
  // It has all the large ones.
  for (size_t i = 0; i < n; ++i) x[i] *= sampled[i] ? 1e3f : 1e-3f;
  Add(x, n / 16);
  Take(device::TopKRoom(segments_));
  ExpectTheCpus();
  EXPECT_LT(Listed(), n / 16);
  // It has zeros alone.
  Forget();
  for (size_t i = 0; i < n; ++i) x[i] *= sampled[i] ? 0.0f : 1.0f;
  Add(x, n / 16);
  std::fill(x.begin(), x.end(), 0.0f);
  for (size_t i = 0; i < 40; ++i) x[i * 1700] = static_cast<float>(i + 1);
  Add(x, 40);
  Add(x, 700);
  Take(device::TopKRoom(segments_));
  ExpectTheCpus();
}

TEST_F(DeviceTopK, ManyTilesOfEqualNumbersGoByIndex) {
  Add(Message(40 * kTile + 5, 2), 2 * kTile + 3);
  Add(Message(20 * kTile + 5, 4), 2 * kTile + 3);
  Take(device::TopKRoom(segments_));
  ExpectTheCpus();
}

TEST_F(DeviceTopK, ManyMoreTilesThanThreadsThatPlaceThem) {
  // The counts of 4096 tiles at a time.
  std::vector<float> x(4100 * kTile + 9);
  for (size_t i = 0; i < 3000; ++i) x[i * 5598 + 1] = i % 2 ? -1.0f : 2.0f;
  Add(x, 2500);
  Take(device::TopKRoom(segments_));
  ExpectTheCpus();
}

class DeviceAbove : public DeviceTopK {
 protected:
  void Forget() { DeviceTopK::Forget(), counts_.clear(); }
  void AddAbove(std::vector<float> x, float threshold, size_t k,
                const std::vector<float>& addend = {}, size_t offset = 0) {
    segments_.push_back({UploadAt(x, offset), addend.empty() ? nullptr : UploadAt(addend, offset),
                         0.5f, static_cast<uint32_t>(k), AllocateOf<IndexedValue>(k),
                         AllocateOf<uint32_t>(1), static_cast<int64_t>(x.size())});
    std::vector<IndexedValue> room(x.size() + kernels::kTakeSlack);
    const float* second = addend.empty() ? nullptr : addend.data();
    std::vector<float> added = x;
    for (size_t i = 0; i < addend.size(); ++i) added[i] += 0.5f * addend[i];
    const size_t count = kernels::TakeAbove({x, second, 0.5f}, threshold, room);
    counts_.push_back(count);
    const bool fits = count <= k;
    residuals_.push_back(fits ? x : added);
    lists_.emplace_back(room.begin(), room.begin() + static_cast<ptrdiff_t>(fits ? count : 0));
  }
  void ExpectWhatIsAbove(float threshold, uint32_t room) {
    const auto table = TableOf(segments_);
    uint8_t* scratch =
        Allocate(static_cast<size_t>(device::TopKScratchBytes(table.count, table.tiles, room)));
    const auto work = [&] { device::TakeAbove(table, threshold, room, scratch, stream()); };
    EXPECT_EQ(LaunchesOf(4, work), 4);
    for (size_t i = 0; i < segments_.size(); ++i) {
      EXPECT_EQ(Download(segments_[i].found, 1)[0], counts_[i]);
      EXPECT_EQ(Download(segments_[i].out, lists_[i].size()), lists_[i]);
      EXPECT_TRUE(SameBits(residuals_[i], Download(segments_[i].buffer, residuals_[i].size())));
    }
  }
  std::vector<size_t> counts_;
};

TEST_F(DeviceAbove, OfManySegmentsAtOnce) {
  for (const size_t n : DeviceSizes()) {
    std::vector<float> x = Message(n, n % 6 == 0 ? 3 : 5 * (n % 2));
    for (float& v : x) v = std::isnan(v) ? 1.0f : v;
    AddAbove(x, 0.75f, n % 7 != 1 ? n : n / 3);
  }
  ExpectWhatIsAbove(0.75f, device::TopKRoom(segments_));
}

TEST_F(DeviceAbove, OfManyTilesInAnyRoom) {
  const size_t n = 4 * kTile + 11;
  for (const uint32_t room : {500u, 40u, 0u}) {
    Forget();
    for (size_t offset = 0; offset < 3; ++offset) {
      std::vector<float> x = RandomFloats(n, offset);
      for (size_t i = 0; i < n; ++i) x[i] *= i % 50 == 0 || i / kTile == 2 ? 1.0f : 0.01f;
      AddAbove(x, 0.75f, n / 2, offset == 1 ? std::vector<float>() : RandomFloats(n, 9), offset);
      AddAbove(x, 0.75f, n / 100, RandomFloats(n, 8), offset);  // which is not enough
    }
    ExpectWhatIsAbove(0.75f, room);
  }
}

TEST_F(DeviceAbove, NothingIsAboveTheLargestThreshold) {
  AddAbove(Message(2 * kTile + 1, 3), INFINITY, 100);
  AddAbove(Message(kTile, 3), INFINITY, 0);
  ExpectWhatIsAbove(INFINITY, 0);
}

}  // namespace
}  // namespace tw
