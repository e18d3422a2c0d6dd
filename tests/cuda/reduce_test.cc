#include "core/kernels/reduce.h"

#include "core/kernels/elementwise.h"
#include "core/kernels/reduce_device.h"
#include "core/kernels/shared_scale.h"
#include "tests/core/kernels/sample_data.h"
#include "tests/cuda/device_memory.h"

namespace tw {
namespace {

namespace device = kernels::device;

class DeviceReduce : public DeviceTest {
 protected:
  void Fill(const std::vector<size_t>& sizes) {
    for (const size_t n : sizes) {
      values_.push_back(RandomFloats(n, n + 5, 3.0f));
      const size_t offset = 4 * (values_.size() % 3);
      segments_.push_back({UploadAt(values_.back(), offset), static_cast<int64_t>(n)});
    }
    table_ = TableOf(segments_);
    scratch_ = AllocateOf<double>(static_cast<size_t>(device::SumScratch(table_.tiles)));
  }
  std::vector<std::vector<float>> values_;
  std::vector<device::ReduceSegment> segments_;
  device::Table<device::ReduceSegment> table_;
  double* scratch_ = nullptr;
};

TEST_F(DeviceReduce, SumsAreTheCpusUpToAPieceAndCloseBeyond) {
  std::vector<size_t> sizes = DeviceSizes();
  sizes.insert(sizes.end(), {16, 17, 1023, 1024, 1025, 300001});
  Fill(sizes);
  double* out = AllocateOf<double>(sizes.size());
  for (const bool squares : {true, false}) {
    const auto sum = squares ? device::SumOfSquares : device::SumAbs;
    EXPECT_EQ(LaunchesOf(2, [&] { sum(table_, scratch_, out, stream()); }), 2);
    const std::vector<double> got = Download(out, sizes.size());
    for (size_t i = 0; i < sizes.size(); ++i) {
      const double want = squares ? kernels::SumOfSquares(values_[i]) : kernels::SumAbs(values_[i]);
      if (sizes[i] <= static_cast<size_t>(device::kPiece)) {
        EXPECT_EQ(got[i], want) << sizes[i];
      } else {
        EXPECT_NEAR(got[i], want, 1e-13 * want) << sizes[i];
      }
    }
    SetSeed(99);  // and in any order of threads
    sum(table_, scratch_, out, stream());
    EXPECT_EQ(Download(out, sizes.size()), got);
  }
}

TEST_F(DeviceReduce, LargestMagnitudesAreTheCpus) {
  Fill(DeviceSizes());
  float* out = AllocateOf<float>(values_.size());
  device::LargestMagnitude(table_, out, stream());
  const std::vector<float> got = Download(out, values_.size());
  for (size_t i = 0; i < got.size(); ++i) {
    EXPECT_EQ(got[i], kernels::LargestMagnitude(values_[i])) << values_[i].size();
  }
}

TEST_F(DeviceReduce, OneNumberThatIsNotFiniteIsFound) {
  Fill(DeviceSizes());
  uint32_t* found = AllocateOf<uint32_t>(1);
  device::FindNotFinite(table_, found, stream());
  EXPECT_EQ(Download(found, 1)[0], 0u);
  for (const float bad : {INFINITY, -INFINITY, NAN}) {
    for (const size_t at : {size_t{0}, size_t{127}, size_t{4098}}) {
      std::vector<float> values(4099, 3e38f);
      values[at] = bad;
      std::vector<device::ReduceSegment> segments = segments_;
      segments.push_back({Upload(values), 4099});
      segments.push_back({nullptr, 0});
      device::FindNotFinite(TableOf(segments), found, stream());
      EXPECT_EQ(Download(found, 1)[0], 1u) << at;
      EXPECT_FALSE(kernels::AllFinite(values));
    }
  }
}

TEST_F(DeviceReduce, NarrowNumbersAreWidened) {
  std::vector<device::ReduceSegment> segments;
  std::vector<double> want;
  for (const size_t n : DeviceSizes()) {
    const std::vector<float> x = RandomFloats(n, n + 9, 3.0f);
    for (const DType dtype : {DType::kF16, DType::kF32, DType::kBF16}) {
      std::vector<uint16_t> narrow(n);
      std::vector<float> wide = x;
      if (dtype == DType::kF16) {
        kernels::ConvertToHalf(x, narrow);
        kernels::ConvertFromHalf(narrow, wide);
      } else if (dtype == DType::kBF16) {
        kernels::ConvertToBf16(x, narrow);
        kernels::ConvertFromBf16(narrow, wide);
      }
      device::ReduceSegment segment;
      segment.x = dtype == DType::kF32 ? static_cast<void*>(Upload(wide)) : Upload(narrow);
      segment.numel = static_cast<int64_t>(n);
      segment.dtype = dtype;
      segments.push_back(segment);
      want.push_back(kernels::SumOfSquares(wide));
    }
  }
  const auto table = TableOf(segments);
  double* out = AllocateOf<double>(want.size());
  device::SumOfSquares(table,
                       AllocateOf<double>(static_cast<size_t>(device::SumScratch(table.tiles))),
                       out, stream());
  const std::vector<double> got = Download(out, want.size());
  for (size_t i = 0; i < want.size(); ++i) EXPECT_NEAR(got[i], want[i], 1e-13 * want[i]) << i;

  uint32_t* found = AllocateOf<uint32_t>(1);
  device::FindNotFinite(table, found, stream());
  EXPECT_EQ(Download(found, 1)[0], 0u);
  // The largest finite ones are no infinities, and infinities and NaNs are.
  const std::vector<std::pair<DType, std::vector<uint16_t>>> cases = {
      {DType::kF16, {0x7BFF, 0x7C00, 0xFC00, 0x7C01}},
      {DType::kBF16, {0x7F7F, 0x7F80, 0xFF80, 0x7FC1}}};
  for (const auto& [dtype, patterns] : cases) {
    for (const uint16_t bits : patterns) {
      std::vector<uint16_t> x(4099, 0);
      x[4098] = bits;
      device::ReduceSegment segment;
      segment.x = Upload(x);
      segment.numel = 4099;
      segment.dtype = dtype;
      device::FindNotFinite(TableOf<device::ReduceSegment>({segment}), found, stream());
      EXPECT_EQ(Download(found, 1)[0], bits == patterns[0] ? 0u : 1u) << std::hex << bits;
    }
  }
}

TEST_F(DeviceReduce, WhatWasNotedStays) {
  uint32_t* found = Upload(std::vector<uint32_t>{0});
  const std::vector<float> good(50, 1.0f), bad(50, INFINITY);
  for (const auto& [x, want] : {std::pair{&good, 0u}, {&bad, 1u}, {&good, 1u}}) {
    device::NoteNotFinite(TableOf<device::ReduceSegment>({{Upload(*x), 50}}), found, stream());
    EXPECT_EQ(Download(found, 1)[0], want);
  }
}

}  // namespace
}  // namespace tw
