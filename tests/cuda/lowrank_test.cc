#include "core/kernels/lowrank.h"

#include "core/kernels/lowrank_device.h"
#include "tests/core/kernels/sample_data.h"
#include "tests/cuda/device_memory.h"

namespace tw {
namespace {

namespace device = kernels::device;
using device::LowRankSegment;
using kernels::LowRankShape;

struct Matrix {
  LowRankShape shape;
  std::vector<float> m, addend, p, qt;
};

class DeviceLowRank : public DeviceTest {
 protected:
  void SetUp() override {
    DeviceTest::SetUp();
    if (IsSkipped()) return;
    for (const LowRankShape& shape : {LowRankShape{0, 5, 2},
                                      {1, 1, 1},
                                      {7, 31, 1},
                                      {31, 7, 3},
                                      {128, 129, 4},
                                      {300, 17, 6},
                                      {1000, 3, 2}}) {
      const auto size = [](int64_t n) { return static_cast<size_t>(n); };
      Matrix x{shape, RandomFloats(size(shape.rows * shape.cols), 1),
               RandomFloats(size(shape.rows * shape.cols), 2),
               RandomFloats(size(shape.rows * shape.rank), 3),
               RandomFloats(size(shape.rank * shape.cols), 4)};
      const bool pending = shape.rank % 2 == 0;
      LowRankSegment s{Upload(x.m),
                       pending ? Upload(x.addend) : nullptr,
                       0.5f,
                       shape,
                       Upload(x.p),
                       Upload(x.qt),
                       AllocateOf<float>(size(device::LowRankPartial(shape))),
                       AllocateOf<double>(x.p.size()),
                       shape.rows * shape.cols};
      matrices_.push_back(x);
      segments_.push_back(s);
    }
    table_ = TableOf(segments_);
  }
  static bool IsSkipped() { return testing::Test::IsSkipped(); }
  static void ExpectNear(const std::vector<float>& want, const std::vector<float>& got) {
    ASSERT_EQ(want.size(), got.size());
    for (size_t i = 0; i < want.size(); ++i) EXPECT_NEAR(want[i], got[i], 1e-4) << i;
  }
  std::vector<Matrix> matrices_;
  std::vector<LowRankSegment> segments_;
  device::Table<LowRankSegment> table_;
};

TEST_F(DeviceLowRank, ProductsAreTheReferencesToRounding) {
  device::MaterializeTimesQ(table_, stream());
  for (size_t i = 0; i < matrices_.size(); ++i) {
    Matrix& x = matrices_[i];
    const float* addend = segments_[i].addend ? x.addend.data() : nullptr;
    kernels::MaterializeTimesQReference({x.m, addend, 0.5f}, x.shape, x.qt.data(), x.p.data());
    EXPECT_TRUE(SameBits(x.m, Download(segments_[i].m, x.m.size())));
    ExpectNear(x.p, Download(segments_[i].p, x.p.size()));
  }
  device::TransposeTimesM(table_, stream());
  for (size_t i = 0; i < matrices_.size(); ++i) {
    Matrix& x = matrices_[i];
    const std::vector<float> p = Download(segments_[i].p, x.p.size());
    kernels::TransposeTimesMReference(x.m.data(), x.shape, p.data(), x.qt.data());
    for (size_t k = 0; k < x.qt.size(); ++k) {
      EXPECT_NEAR(x.qt[k], Download(segments_[i].qt, x.qt.size())[k],
                  1e-5 * (1 + std::fabs(x.qt[k])) * std::sqrt(static_cast<double>(x.m.size())));
    }
  }
}

TEST_F(DeviceLowRank, OuterProductsAndBasesHaveTheCpusBits) {
  device::OuterResidual(table_, stream());
  for (size_t i = 0; i < matrices_.size(); ++i) {
    Matrix& x = matrices_[i];
    kernels::OuterResidual(x.m.data(), x.shape, x.p.data(), x.qt.data());
    EXPECT_TRUE(SameBits(x.m, Download(segments_[i].m, x.m.size()))) << i;
  }
  device::OuterAdd(table_, stream());
  for (size_t i = 0; i < matrices_.size(); ++i) {
    Matrix& x = matrices_[i];
    kernels::OuterAdd(x.m.data(), x.shape, x.p.data(), x.qt.data(), 0.5f);
    EXPECT_TRUE(SameBits(x.m, Download(segments_[i].m, x.m.size()))) << i;
  }
  device::Orthonormalize(table_, stream());
  for (size_t i = 0; i < matrices_.size(); ++i) {
    Matrix& x = matrices_[i];
    std::vector<double> scratch(x.p.size());
    kernels::Orthonormalize(x.p, x.shape.rows, x.shape.rank, scratch);
    EXPECT_TRUE(SameBits(x.p, Download(segments_[i].p, x.p.size()))) << i;
  }
}

}  // namespace
}  // namespace tw
