#include "core/kernels/elementwise.h"

#include "core/kernels/elementwise_device.h"
#include "core/kernels/float16.h"
#include "tests/core/kernels/sample_data.h"
#include "tests/cuda/device_memory.h"

namespace tw {
namespace {

namespace device = kernels::device;

class DeviceElementwise : public DeviceTest {
 protected:
  // Values of all kinds, Inf and NaN among them where there is room.
  static std::vector<float> Values(size_t n, uint64_t seed) {
    std::vector<float> out = AwkwardFloats(n, seed);
    for (size_t i = 3; i < n; i += 11) out[i] = 1.5f * static_cast<float>(i % 7);
    if (n > 40) out[20] = INFINITY, out[21] = -INFINITY, out[22] = NAN;
    return out;
  }
};

TEST_F(DeviceElementwise, AdditionsAndScaleHaveTheCpusBits) {
  for (const int kind : {0, 1, 2, 3}) {
    const size_t width = kind == 0 ? 4 : 2;
    std::vector<device::AddSegment> segments;
    std::vector<std::vector<float>> want;
    uint64_t seed = 1;
    for (const size_t n : DeviceSizes()) {
      want.push_back(Values(n, ++seed));
      const std::vector<float> addend = Values(n, ++seed);
      std::vector<uint16_t> narrow(n);
      const float s = kind == 3 ? 0.3f : -1.25f;
      float* a = Upload(want.back());
      uint8_t* b = Allocate(n * width, n % 3);  // any address
      std::vector<uint8_t> bytes(n * width);
      if (kind == 0) {
        std::memcpy(bytes.data(), addend.data(), bytes.size());
        kernels::AddInPlace(want.back(), s, addend);
      } else if (kind == 1) {
        kernels::ConvertToBf16(addend, narrow);
        kernels::AddFromBf16(want.back(), s, narrow);
      } else if (kind == 2) {
        kernels::ConvertToHalf(addend, narrow);
        kernels::AddFromHalf(want.back(), s, narrow);
      } else {
        kernels::Scale(want.back(), s);
      }
      if (kind != 0) std::memcpy(bytes.data(), narrow.data(), bytes.size());
      CopyIn(b, bytes);
      segments.push_back({a, b, s, static_cast<int64_t>(n)});
    }
    const auto table = TableOf(segments);
    EXPECT_EQ(LaunchesOf(1,
                         [&] {
                           if (kind == 0) device::AddInPlace(table, stream());
                           if (kind == 1) device::AddFromBf16(table, stream());
                           if (kind == 2) device::AddFromHalf(table, stream());
                           if (kind == 3) device::Scale(table, stream());
                         }),
              1);
    for (size_t i = 0; i < want.size(); ++i) {
      EXPECT_TRUE(SameBits(want[i], Download(segments[i].a, want[i].size()))) << kind;
    }
  }
}

TEST_F(DeviceElementwise, CastsAndMovesOfMessagesHaveTheCpusBits) {
  for (const int kind : {0, 1, 2}) {
    const size_t width = kind == 0 ? 4 : 2;
    const float pre = 0.25f, post = 4.0f;
    std::vector<device::MessageSegment> segments;
    std::vector<std::vector<float>> buffers;
    std::vector<std::vector<uint8_t>> bodies;
    uint64_t seed = 10;
    for (const size_t n : DeviceSizes()) {
      std::vector<float> buffer = Values(n, ++seed);
      const std::vector<float> addend = RandomFloats(n, ++seed);
      const bool pending = n % 2 == 1;
      segments.push_back({Upload(buffer), pending ? Upload(addend) : nullptr, 0.5f,
                          Allocate(n * width, n % 4), static_cast<int64_t>(n)});
      const float* with = pending ? addend.data() : nullptr;
      std::vector<uint8_t> body(n * width);
      std::vector<uint16_t> narrow(n);
      if (kind == 0) kernels::MoveOut(buffer, with, 0.5f, body.data());
      if (kind == 1) kernels::CastResidualBf16(buffer, with, 0.5f, pre, post, narrow);
      if (kind == 2) kernels::CastResidualHalf(buffer, with, 0.5f, pre, post, narrow);
      if (kind != 0) std::memcpy(body.data(), narrow.data(), body.size());
      buffers.push_back(buffer);
      bodies.push_back(body);
    }
    const auto table = TableOf(segments);
    if (kind == 0) device::MoveOut(table, stream());
    if (kind == 1) device::CastResidualBf16(table, pre, post, stream());
    if (kind == 2) device::CastResidualHalf(table, pre, post, stream());
    for (size_t i = 0; i < buffers.size(); ++i) {
      EXPECT_TRUE(SameBits(buffers[i], Download(segments[i].buffer, buffers[i].size()))) << kind;
      const std::vector<uint8_t> body = Download(segments[i].to, bodies[i].size());
      if (kind == 0) {
        std::vector<float> want(buffers[i].size()), got(want.size());
        std::memcpy(want.data(), bodies[i].data(), body.size());
        std::memcpy(got.data(), body.data(), body.size());
        EXPECT_TRUE(SameBits(want, got));
      } else {
        std::vector<uint16_t> want(buffers[i].size()), got(want.size());
        std::memcpy(want.data(), bodies[i].data(), body.size());
        std::memcpy(got.data(), body.data(), body.size());
        EXPECT_TRUE(SameBits(want, got)) << kind;
      }
    }
  }
}

TEST_F(DeviceElementwise, ConversionsHaveTheCpusBits) {
  for (const bool bf16 : {true, false}) {
    std::vector<device::ConvertSegment> to, from;
    std::vector<std::vector<uint16_t>> narrow;
    std::vector<std::vector<float>> wide;
    uint64_t seed = 20;
    for (const size_t n : DeviceSizes()) {
      const std::vector<float> values = Values(n, ++seed);
      std::vector<uint16_t> small(n);
      std::vector<float> back(n);
      bf16 ? kernels::ConvertToBf16(values, small) : kernels::ConvertToHalf(values, small);
      bf16 ? kernels::ConvertFromBf16(small, back) : kernels::ConvertFromHalf(small, back);
      to.push_back({Upload(values), AllocateOf<uint16_t>(n), static_cast<int64_t>(n)});
      from.push_back({AllocateOf<float>(n), to.back().narrow, static_cast<int64_t>(n)});
      narrow.push_back(small);
      wide.push_back(back);
    }
    const auto to_table = TableOf(to), from_table = TableOf(from);
    bf16 ? device::ConvertToBf16(to_table, stream()) : device::ConvertToHalf(to_table, stream());
    bf16 ? device::ConvertFromBf16(from_table, stream())
         : device::ConvertFromHalf(from_table, stream());
    for (size_t i = 0; i < wide.size(); ++i) {
      EXPECT_TRUE(SameBits(narrow[i], Download(to[i].narrow, narrow[i].size()))) << bf16;
      EXPECT_TRUE(SameBits(wide[i], Download(from[i].wide, wide[i].size()))) << bf16;
    }
  }
}

TEST_F(DeviceElementwise, NothingIsLaunchedForNothing) {
  const auto none = TableOf(std::vector<device::AddSegment>{});
  const auto empty = TableOf(std::vector<device::AddSegment>(3));
  EXPECT_EQ(LaunchesOf(0,
                       [&] {
                         device::AddInPlace(none, stream());
                         device::AddInPlace(empty, stream());
                       }),
            0);
}

TEST_F(DeviceElementwise, AllTilesOfALargeTensorAmongSmallOnesAreDone) {
  std::vector<device::AddSegment> segments;
  std::vector<size_t> sizes(40, 5);
  sizes[17] = 3 * static_cast<size_t>(device::kTile) + 77;
  sizes[39] = static_cast<size_t>(device::kTile);
  for (const size_t n : sizes) {
    segments.push_back({Upload(std::vector<float>(n, 1)), Upload(std::vector<float>(n, 2)), 3,
                        static_cast<int64_t>(n)});
  }
  device::AddInPlace(TableOf(segments), stream());
  for (size_t i = 0; i < sizes.size(); ++i) {
    EXPECT_EQ(Download(segments[i].a, sizes[i]), std::vector<float>(sizes[i], 7));
  }
}

TEST_F(DeviceElementwise, BytesSumLargerStayAndZerosGoWhereTheCpuHasThem) {
  std::vector<device::AddSegment> larger, cleared;
  std::vector<device::AddBytesSegment> sums;
  std::vector<std::vector<float>> want_larger, want_cleared;
  std::vector<std::vector<uint8_t>> want_sums;
  uint64_t seed = 30;
  for (const size_t n : DeviceSizes()) {
    const int64_t numel = static_cast<int64_t>(n);
    std::vector<float> a = Values(n, ++seed), b = Values(n, ++seed);
    for (size_t i = 0; i < n; i += 3) b[i] = i % 2 ? 0.0f : -0.0f;
    std::vector<uint8_t> bytes(4 * n), first(n), second(n);
    std::memcpy(bytes.data(), b.data(), bytes.size());
    uint8_t* from = Allocate(bytes.size(), n % 3);
    CopyIn(from, bytes);
    larger.push_back({Upload(a), from, 1.0f, numel});
    cleared.push_back({Upload(a), from, 1.0f, numel});
    for (size_t i = 0; i < n; ++i) {
      first[i] = static_cast<uint8_t>(i * 77 + 3), second[i] = static_cast<uint8_t>(i * 31 + n);
    }
    sums.push_back({Upload(first), Upload(second), numel});
    want_larger.push_back(a), want_cleared.push_back(a), want_sums.push_back(first);
    kernels::TakeLarger(want_larger.back(), b);
    kernels::ZeroWhere(want_cleared.back(), b);
    kernels::AddBytes(want_sums.back(), second);
  }
  device::TakeLarger(TableOf(larger), stream());
  device::ZeroWhere(TableOf(cleared), stream());
  device::AddBytes(TableOf(sums), stream());
  for (size_t i = 0; i < sums.size(); ++i) {
    EXPECT_TRUE(SameBits(want_larger[i], Download(larger[i].a, want_larger[i].size())));
    EXPECT_TRUE(SameBits(want_cleared[i], Download(cleared[i].a, want_cleared[i].size())));
    EXPECT_TRUE(SameBits(want_sums[i], Download(sums[i].a, want_sums[i].size())));
  }
}

}  // namespace
}  // namespace tw
