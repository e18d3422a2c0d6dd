#include "core/kernels/state_codes.h"

#include "core/kernels/state_codes_device.h"
#include "tests/core/kernels/sample_data.h"
#include "tests/cuda/device_memory.h"

namespace tw {
namespace {

namespace device = kernels::device;
using device::CodesSegment;
using kernels::Code4;
using kernels::Code8;

// Ordinary numbers, blocks of ties, of zeros, denormals and huge numbers.
std::vector<float> Moments(size_t n, bool is_signed, uint64_t seed) {
  std::vector<float> x = RandomFloats(n, seed);
  const float factors[] = {1.0f, 0.0f, 1e-39f, 1e30f, 1e-10f};
  for (size_t i = 0; i < n; ++i) {
    if (i % 4 == 1) x[i] = x[i] * x[i] * x[i] * 1e-3f;
    if (i / 128 % 5 == 2) {  // a block of scale 1 with nothing but ties
      const auto code = static_cast<Code4>(i % 4);
      x[i] = i % 128 == 0 ? 1.0f : kernels::Midpoints(code)[i / 4 % 15];
      if (i % 3 == 0 && i % 128 != 0) x[i] = -x[i];
      continue;
    }
    if (i % 16 == 4) x[i] = -0.0f;
    if (i % 128 == 5) x[i] = i % 256 == 5 ? 1.0f : -4.0f;
    x[i] *= factors[i / 384 % 5];
  }
  for (float& v : x) v = is_signed ? v : std::fabs(v);
  return x;
}

class DeviceStateCodes : public DeviceTest {
 protected:
  struct Kind {
    bool is_signed, four;
    std::function<void(std::span<const float>, std::span<uint8_t>, std::span<float>)> encode;
    std::function<void(std::span<const uint8_t>, std::span<const float>, std::span<float>)> decode;
    std::function<void(device::Table<CodesSegment>)> gpu_encode, gpu_decode;
  };
  Kind Of(Code4 code) {
    return {
        code == Code4::kDeSigned,
        true,
        [=](auto x, auto codes, auto scales) { kernels::EncodeBlocks4(code, x, codes, scales); },
        [=](auto codes, auto scales, auto x) { kernels::DecodeBlocks4(code, codes, scales, x); },
        [=, this](auto table) { device::EncodeBlocks4(code, table, stream()); },
        [=, this](auto table) { device::DecodeBlocks4(code, table, stream()); }};
  }
  Kind Of(Code8 code) {
    return {
        code == Code8::kDeSigned,
        false,
        [=](auto x, auto codes, auto scales) { kernels::EncodeBlocks8(code, x, codes, scales); },
        [=](auto codes, auto scales, auto x) { kernels::DecodeBlocks8(code, codes, scales, x); },
        [=, this](auto table) { device::EncodeBlocks8(code, table, stream()); },
        [=, this](auto table) { device::DecodeBlocks8(code, table, stream()); }};
  }
};

TEST_F(DeviceStateCodes, BlocksHaveTheCpusCodesScalesAndNumbers) {
  for (const Kind& kind : {Of(Code4::kDeSigned), Of(Code4::kDeUnsigned), Of(Code4::kDeNoZero),
                           Of(Code4::kLinear), Of(Code8::kDeSigned), Of(Code8::kDeUnsigned)}) {
    std::vector<CodesSegment> segments;
    std::vector<std::vector<uint8_t>> codes;
    std::vector<std::vector<float>> scales, numbers;
    for (const size_t n : DeviceSizes()) {
      const auto numel = static_cast<int64_t>(n);
      std::vector<float> x = Moments(n, kind.is_signed, n);
      std::vector<uint8_t> code(kind.four ? static_cast<size_t>(kernels::NibbleBytes(numel)) : n);
      std::vector<float> scale(static_cast<size_t>(
          kernels::Blocks(numel, kind.four ? kernels::kStateBlock4 : kernels::kStateBlock8)));
      segments.push_back(
          {Upload(x), Allocate(code.size(), n % 2), AllocateOf<float>(scale.size()), numel});
      kind.encode(x, code, scale);
      kind.decode(code, scale, x);
      codes.push_back(code), scales.push_back(scale), numbers.push_back(x);
    }
    const auto table = TableOf(segments);
    EXPECT_EQ(LaunchesOf(1, [&] { kind.gpu_encode(table); }), 1);
    kind.gpu_decode(table);
    for (size_t i = 0; i < segments.size(); ++i) {
      EXPECT_TRUE(SameBits(codes[i], Download(segments[i].codes, codes[i].size())));
      EXPECT_TRUE(SameBits(scales[i], Download(segments[i].scales, scales[i].size())));
      EXPECT_TRUE(SameBits(numbers[i], Download(segments[i].x, numbers[i].size())));
    }
  }
}

TEST_F(DeviceStateCodes, WhatIsNotFiniteShowsInItsBlockAlone) {
  for (const float bad : {INFINITY, NAN}) {
    std::vector<float> x = RandomFloats(512, 3);
    x[200] = bad;
    CodesSegment segment{Upload(x), Allocate(512), AllocateOf<float>(4), 512};
    const auto table = TableOf(std::vector{segment});
    device::EncodeBlocks4(Code4::kDeSigned, table, stream());
    device::DecodeBlocks4(Code4::kDeSigned, table, stream());
    const std::vector<float> back = Download(segment.x, 512);
    for (size_t i = 0; i < 512; ++i) {
      EXPECT_EQ(std::isfinite(back[i]), i / 128 != 1) << i;
    }
  }
}

TEST_F(DeviceStateCodes, Bf16MomentsAreTheCpus) {
  std::vector<device::Bf16Segment> segments;
  std::vector<std::vector<uint16_t>> narrow;
  for (const size_t n : DeviceSizes()) {
    std::vector<float> x = AwkwardFloats(n, n);
    if (n > 50) x[30] = INFINITY, x[31] = NAN, x[32] = -INFINITY;
    const uint64_t first = (uint64_t{1} << 32) - 100;
    std::vector<uint16_t> want(n);
    kernels::RoundToBf16(x, 99, first, want);
    segments.push_back({Upload(x), AllocateOf<uint16_t>(n), 99, first, static_cast<int64_t>(n)});
    narrow.push_back(want);
  }
  const auto table = TableOf(segments);
  device::RoundToBf16(table, stream());
  device::WidenBf16(table, stream());
  for (size_t i = 0; i < segments.size(); ++i) {
    EXPECT_TRUE(SameBits(narrow[i], Download(segments[i].narrow, narrow[i].size())));
    std::vector<float> wide(narrow[i].size());
    kernels::WidenBf16(narrow[i], wide);
    EXPECT_TRUE(SameBits(wide, Download(segments[i].x, wide.size())));
  }
}

}  // namespace
}  // namespace tw
