#include "core/kernels/reduce.h"

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
      segments_.push_back({Upload(values_.back()), static_cast<int64_t>(n)});
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

}  // namespace
}  // namespace tw
