// Kernels of single codecs: natural, int8 rows, integers of a shared scale, the generator of normal
// numbers and what is expanded by it.
#include "core/kernels/expand.h"
#include "core/kernels/expand_device.h"
#include "core/kernels/int8_block.h"
#include "core/kernels/int8_block_device.h"
#include "core/kernels/natural.h"
#include "core/kernels/natural_device.h"
#include "core/kernels/normal.h"
#include "core/kernels/normal_device.h"
#include "core/kernels/shared_scale.h"
#include "core/kernels/shared_scale_device.h"
#include "tests/core/kernels/sample_data.h"
#include "tests/cuda/device_memory.h"

namespace tw {
namespace {

namespace device = kernels::device;

class DeviceCodecs : public DeviceTest {};

TEST_F(DeviceCodecs, NaturalBodiesResidualsAndSumsAreTheCpus) {
  std::vector<device::NaturalSegment> segments, sums;
  std::vector<std::vector<uint8_t>> bodies;
  std::vector<std::vector<float>> residuals, added;
  for (const size_t n : DeviceSizes()) {
    std::vector<float> x = AwkwardFloats(n, n), sum = RandomFloats(n, n + 1);
    const std::vector<float> addend = RandomFloats(n, n + 2);
    const bool pending = n % 2 == 0;
    const auto numel = static_cast<int64_t>(n);
    const uint64_t first = (uint64_t{1} << 32) - 50;
    std::vector<uint8_t> body(static_cast<size_t>(kernels::NaturalBytes(numel)));
    uint8_t* to = Allocate(body.size(), n % 3);
    segments.push_back({Upload(x), pending ? Upload(addend) : nullptr, 0.5f, to, 11, first, numel});
    sums.push_back({Upload(sum), nullptr, 0.25f, to, 0, 0, numel});
    kernels::NaturalEncode({x, pending ? addend.data() : nullptr, 0.5f}, 11, first, body.data());
    kernels::NaturalDecodeAdd(body.data(), 0.25f, sum);
    bodies.push_back(body), residuals.push_back(x), added.push_back(sum);
  }
  device::NaturalEncode(TableOf(segments), stream());
  device::NaturalDecodeAdd(TableOf(sums), stream());
  for (size_t i = 0; i < segments.size(); ++i) {
    EXPECT_TRUE(SameBits(bodies[i], Download(segments[i].body, bodies[i].size())));
    EXPECT_TRUE(SameBits(residuals[i], Download(segments[i].buffer, residuals[i].size())));
    EXPECT_TRUE(SameBits(added[i], Download(sums[i].buffer, added[i].size())));
  }
}

TEST_F(DeviceCodecs, Int8RowsAreTheCpus) {
  const std::vector<std::pair<int64_t, int64_t>> shapes = {{0, 5},   {1, 1},   {3, 127}, {3, 128},
                                                           {2, 129}, {9, 300}, {1, 4099}};
  for (const auto& [rows, cols] : shapes) {
    const auto n = static_cast<size_t>(rows * cols);
    std::vector<float> x = RandomFloats(n, n);
    if (n > 500) {
      for (size_t i = 0; i < 128; ++i) x[i] = i % 2 ? 0 : FLT_TRUE_MIN * static_cast<float>(i);
      x[400] = INFINITY, x[310] = 1e38f;
    }
    std::vector<int8_t> codes(n);
    std::vector<float> scales(static_cast<size_t>(rows * kernels::Int8Blocks(cols))), back(n);
    kernels::QuantizeInt8(x.data(), rows, cols, codes.data(), scales.data());
    kernels::DequantizeInt8(codes.data(), scales.data(), rows, cols, back.data());
    const float* from = Upload(x);
    auto* gpu_codes = AllocateOf<int8_t>(n);
    auto* gpu_scales = AllocateOf<float>(scales.size());
    auto* out = AllocateOf<float>(n);
    device::QuantizeInt8(from, rows, cols, gpu_codes, gpu_scales, stream());
    device::DequantizeInt8(gpu_codes, gpu_scales, rows, cols, out, stream());
    EXPECT_TRUE(SameBits(scales, Download(gpu_scales, scales.size()))) << rows << " " << cols;
    EXPECT_TRUE(SameBits(back, Download(out, n))) << rows << " " << cols;
    if (n < 500) {  // nothing says what codes a block of NaN scale has
      EXPECT_TRUE(SameBits(codes, Download(gpu_codes, n)));
    }
  }
}

TEST_F(DeviceCodecs, IntegersOfASharedScaleAreTheCpus) {
  for (const int64_t block : {8, 64, 8192}) {
    std::vector<device::LevelSegment> segments;
    std::vector<std::vector<float>> inputs, scales, values;
    std::vector<std::vector<int8_t>> codes;
    const int levels = 15;
    for (const size_t n : DeviceSizes()) {
      std::vector<float> x = RandomFloats(n, n, n % 2 ? 1.0f : 1e-37f), scale, value(n);
      std::vector<int8_t> code(n);
      for (size_t i = 0; i < n && i < 8; ++i) x[i] = 0;
      for (size_t at = 0; at < n; at += static_cast<size_t>(block)) {
        const size_t count = std::min(static_cast<size_t>(block), n - at);
        const std::span<const float> part = std::span(x).subspan(at, count);
        scale.push_back(kernels::LargestMagnitude(part));
        std::vector<int16_t> wide(count);
        kernels::RoundToLevels(part, scale.back(), levels, 5, 100 + at, wide);
        const float step = kernels::LevelStep(scale.back(), levels);
        for (size_t i = 0; i < count; ++i) {
          code[at + i] = static_cast<int8_t>(wide[i]);
          value[at + i] = step * static_cast<float>(wide[i]);
        }
      }
      segments.push_back({Upload(x), AllocateOf<float>(scale.size()), AllocateOf<int8_t>(n), block,
                          5, 100, static_cast<int64_t>(n)});
      scales.push_back(scale), codes.push_back(code), values.push_back(value);
    }
    const auto table = TableOf(segments);
    device::LargestOfBlocks(table, stream());
    device::RoundToLevels(table, levels, stream());
    device::ValuesOfLevels(table, levels, stream());
    for (size_t i = 0; i < segments.size(); ++i) {
      EXPECT_TRUE(SameBits(scales[i], Download(segments[i].scales, scales[i].size())));
      EXPECT_TRUE(SameBits(codes[i], Download(segments[i].codes, codes[i].size())));
      EXPECT_TRUE(SameBits(values[i], Download(segments[i].x, values[i].size())));
    }
  }
}

TEST_F(DeviceCodecs, RotationsAreTheCpus) {
  std::vector<device::RotateSegment> segments;
  std::vector<std::vector<float>> forth, back;
  for (const size_t n : {0, 1, 2, 32, 1024, 1024 + 64, 4096, 3 * 4096 + 1, 8192, 2 * 8192}) {
    for (const int64_t block : {8, 1024, 8192}) {
      if (!std::has_single_bit(n % static_cast<size_t>(block)) && n % static_cast<size_t>(block)) {
        continue;
      }
      std::vector<float> x = RandomFloats(n, n);
      segments.push_back({Upload(x), block, 3, n, static_cast<int64_t>(n)});
      kernels::RotateBlocks(x, block, 3, n);
      forth.push_back(x);
      kernels::RotateBlocksBack(x, block, 3, n);
      back.push_back(x);
    }
  }
  const int64_t tiles = device::PlaceRotated(segments);
  const device::Table<device::RotateSegment> table{Upload(segments),
                                                   static_cast<int32_t>(segments.size()), tiles};
  device::Rotate(table, stream());
  for (size_t i = 0; i < segments.size(); ++i) {
    EXPECT_TRUE(SameBits(forth[i], Download(segments[i].x, forth[i].size()))) << forth[i].size();
  }
  device::RotateBack(table, stream());
  for (size_t i = 0; i < segments.size(); ++i) {
    EXPECT_TRUE(SameBits(back[i], Download(segments[i].x, back[i].size()))) << back[i].size();
  }
}

TEST_F(DeviceCodecs, NormalNumbersAreTheCpus) {
  std::vector<device::NormalSegment> segments;
  std::vector<std::vector<float>> want;
  for (const int64_t blocks : {0, 1, 5, 200}) {
    const int64_t stride = 64 + 3 * (blocks % 2);
    std::vector<float> out(static_cast<size_t>(blocks * stride), 7.0f);
    const uint64_t first = (uint64_t{1} << 28) - 2;
    segments.push_back({Upload(out), 42, first, stride, 0.3f, 64 * blocks});
    kernels::FillNormal(42, first, blocks, 0.3f, out.data(), stride);
    want.push_back(out);
  }
  device::FillNormal(TableOf(segments), stream());
  for (size_t i = 0; i < segments.size(); ++i) {
    EXPECT_TRUE(SameBits(want[i], Download(segments[i].out, want[i].size())));
  }
}

TEST_F(DeviceCodecs, ExpansionsAreTheCpus) {
  std::vector<device::ExpandSegment> segments;
  std::vector<std::vector<float>> want;
  const std::vector<std::array<int64_t, 3>> shapes = {
      {0, 4, 64}, {1, 1, 1}, {7, 3, 63}, {9, 16, 130}, {33, 5, 200}};
  for (const auto& [rows, rank, cols] : shapes) {
    const int64_t strips = (cols + kernels::kStripCols - 1) / kernels::kStripCols;
    const auto size = [](int64_t n) { return static_cast<size_t>(n); };
    std::vector<float> value = RandomFloats(size(rows * cols), 1);
    const std::vector<float> update = RandomFloats(size(rows * rank), 2);
    const std::vector<float> strip = RandomFloats(size(strips * rank * kernels::kStripCols), 3);
    segments.push_back(
        {Upload(value), Upload(update), Upload(strip), 0.9f, 0.2f, rank, cols, rows * cols});
    for (int64_t s = 0; s < strips; ++s) {
      const int64_t from = s * kernels::kStripCols;
      kernels::ExpandStrip(
          value.data() + from, {rows, rank, std::min(kernels::kStripCols, cols - from), cols},
          update.data(), strip.data() + s * rank * kernels::kStripCols, 0.9f, 0.2f);
    }
    want.push_back(value);
  }
  device::Expand(TableOf(segments), stream());
  for (size_t i = 0; i < segments.size(); ++i) {
    EXPECT_TRUE(SameBits(want[i], Download(segments[i].value, want[i].size()))) << i;
  }
}

}  // namespace
}  // namespace tw
