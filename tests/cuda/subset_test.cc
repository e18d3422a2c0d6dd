#include "core/kernels/subset.h"

#include "core/kernels/subset_device.h"
#include "tests/core/kernels/sample_data.h"
#include "tests/cuda/device_memory.h"

namespace tw {
namespace {

namespace device = kernels::device;

class DeviceSubset : public DeviceTest {};

TEST_F(DeviceSubset, MarkedElementsGoAndComeAsOnTheCpu) {
  std::vector<device::MarkedSegment> segments, sums;
  std::vector<std::vector<float>> residuals, values, added;
  std::vector<size_t> sizes = DeviceSizes();
  sizes.push_back(150000);
  for (const size_t n : sizes) {
    const size_t k = n == 129 ? n : n / 3;
    std::vector<uint64_t> bitmap(kernels::BitmapWords(n));
    kernels::MarkSubset(n, n, k, bitmap);
    std::vector<float> x = RandomFloats(n, n), taken(k), sum = RandomFloats(n, n + 1);
    const std::vector<float> addend = RandomFloats(n, n + 2);
    const bool pending = n % 2 == 1;
    const auto numel = static_cast<int64_t>(n);
    const auto* marks = Upload(bitmap);
    uint8_t* to = Allocate(4 * k, n % 4);
    const float factor = n % 3 == 0 ? 0.7f : 1.0f;
    segments.push_back(
        {Upload(x), pending ? Upload(addend) : nullptr, 0.5f, factor, marks, to, numel});
    sums.push_back({Upload(sum), nullptr, 0.3f, 1.0f, marks, to, numel});
    kernels::TakeMarked({x, pending ? addend.data() : nullptr, 0.5f}, bitmap, factor,
                        reinterpret_cast<uint8_t*>(taken.data()));
    kernels::AddMarked(sum, bitmap, 0.3f, reinterpret_cast<const uint8_t*>(taken.data()));
    residuals.push_back(x), values.push_back(taken), added.push_back(sum);
  }
  const auto table = TableOf(segments), sum_table = TableOf(sums);
  auto* scratch = AllocateOf<uint64_t>(static_cast<size_t>(device::MarkedScratch(table.tiles)));
  EXPECT_EQ(LaunchesOf(3, [&] { device::TakeMarked(table, scratch, stream()); }), 3);
  device::AddMarked(sum_table, scratch, stream());
  for (size_t i = 0; i < segments.size(); ++i) {
    std::vector<float> got(values[i].size());
    const std::vector<uint8_t> bytes = Download(segments[i].values, 4 * got.size());
    if (!got.empty()) std::memcpy(got.data(), bytes.data(), bytes.size());
    EXPECT_TRUE(SameBits(values[i], got));
    EXPECT_TRUE(SameBits(residuals[i], Download(segments[i].buffer, residuals[i].size())));
    EXPECT_TRUE(SameBits(added[i], Download(sums[i].buffer, added[i].size())));
  }
}

}  // namespace
}  // namespace tw
