#include "core/kernels/signs.h"

#include "core/kernels/signs_device.h"
#include "tests/core/kernels/sample_data.h"
#include "tests/cuda/device_memory.h"

namespace tw {
namespace {

namespace device = kernels::device;
using kernels::SignMeans;

class DeviceSigns : public DeviceTest, public testing::WithParamInterface<SignMeans> {};

TEST_P(DeviceSigns, BitsMeansResidualsAndSumsAreTheCpus) {
  const SignMeans means = GetParam();
  std::vector<device::SignSegment> segments, sums;
  std::vector<std::vector<float>> residuals, added;
  std::vector<std::vector<uint8_t>> bodies;
  const size_t header = 4 * static_cast<size_t>(means);
  std::vector<size_t> sizes = DeviceSizes();
  sizes.insert(sizes.end(), {255, 257, 4096, 4096, 8192 + 1024, 12001, 12001});
  for (size_t k = 0; k < sizes.size(); ++k) {
    const size_t n = sizes[k], offset = 4 * (k % 3);  // of floats: aligned or not
    std::vector<float> x = n % 2 ? RandomFloats(n, n) : std::vector<float>(n, 1.5f);
    for (size_t i = 0; i < n; i += 9) x[i] = i % 2 ? 0.0f : -0.0f;
    const std::vector<float> addend = RandomFloats(n, n + 1, 0.5f);
    const bool pending = n % 3 == 1;  // of 4096 and 12001 too
    uint8_t* body = Allocate(n ? header + kernels::SignBytes(n) : 0, n % 4);
    segments.push_back({UploadAt(x, offset), pending ? UploadAt(addend, 4 * (k % 2)) : nullptr,
                        2.0f, body, body + header, static_cast<int64_t>(n)});
    std::vector<float> sum = RandomFloats(n, n + 2);
    sums.push_back(
        {UploadAt(sum, offset), nullptr, 0.3f, body, body + header, static_cast<int64_t>(n)});
    if (n == 0) {
      residuals.emplace_back(), added.emplace_back(), bodies.emplace_back();
      continue;
    }
    std::vector<uint8_t> want(header + kernels::SignBytes(n));
    const kernels::SignSums s =
        kernels::PackSigns({x, pending ? addend.data() : nullptr, 2.0f}, want.data() + header);
    const double d = static_cast<double>(n), negative = static_cast<double>(s.num_negative);
    const auto mean = [](double total, double count) {
      return count > 0 ? static_cast<float>(total / count) : 0.0f;
    };
    float plus = mean(s.positive + s.negative, d), minus = -plus;
    if (means == SignMeans::kEach) {
      plus = mean(s.positive, d - negative), minus = -mean(s.negative, negative);
    }
    StoreLE(want.data(), plus);
    if (means == SignMeans::kEach) StoreLE(want.data() + 4, minus);
    kernels::SubtractBySign(x, plus, minus);
    kernels::AddBySign(sum, 0.3f * plus, 0.3f * minus, ByteSpan(want).subspan(header));
    residuals.push_back(x), added.push_back(sum), bodies.push_back(want);
  }
  const auto table = TableOf(segments), sum_table = TableOf(sums);
  uint8_t* scratch = Allocate(static_cast<size_t>(device::SignScratch(table.tiles)));
  EXPECT_EQ(LaunchesOf(2, [&] { device::PackSigns(table, means, scratch, stream()); }), 2);
  device::SubtractBySign(table, means, stream());
  device::AddBySign(sum_table, means, stream());
  for (size_t k = 0; k < segments.size(); ++k) {
    EXPECT_TRUE(SameBits(bodies[k], Download(segments[k].means, bodies[k].size())));
    EXPECT_TRUE(SameBits(residuals[k], Download(segments[k].buffer, residuals[k].size())));
    EXPECT_TRUE(SameBits(added[k], Download(sums[k].buffer, added[k].size())));
  }
}

INSTANTIATE_TEST_SUITE_P(Means, DeviceSigns, testing::Values(SignMeans::kOne, SignMeans::kEach));

}  // namespace
}  // namespace tw
