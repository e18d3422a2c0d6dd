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
                                      {1000, 3, 2},
                                      {33, 260, 4},
                                      {0, 4, 1},
                                      {1, 520, 8},
                                      {270, 128, 5},
                                      {2049, 4, 4},
                                      {17500, 1, 2},
                                      {40, 644, 4}}) {
      Put(shape);
    }
    table_ = TableOf(segments_);
  }
  void Put(const LowRankShape& shape) {
    const auto size = [](int64_t n) { return static_cast<size_t>(n); };
    Matrix x{shape, RandomFloats(size(shape.rows * shape.cols), 1),
             RandomFloats(size(shape.rows * shape.cols), 2),
             RandomFloats(size(shape.rows * shape.rank), 3),
             RandomFloats(size(shape.rank * shape.cols), 4)};
    const bool pending = shape.rank % 2 == 0;
    // Where columns come in fours, now and then not at an address for them.
    const size_t k = matrices_.size();
    LowRankSegment s{UploadAt(x.m, k % 5 == 2 ? 4 : 0),
                     pending ? UploadAt(x.addend, k % 5 == 4 ? 4 : 0) : nullptr,
                     0.5f,
                     shape,
                     Upload(x.p),
                     UploadAt(x.qt, k % 3 == 0 ? 4 : 0),
                     AllocateOf<float>(size(device::LowRankPartial(shape))),
                     AllocateOf<double>(x.p.size()),
                     shape.rows * shape.cols};
    matrices_.push_back(x);
    segments_.push_back(s);
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
    if (x.m.empty()) continue;  // nothing is done
    const std::vector<float> qt = Download(segments_[i].qt, x.qt.size());
    for (size_t k = 0; k < x.qt.size(); ++k) {
      EXPECT_NEAR(x.qt[k], qt[k],
                  1e-5 * (1 + std::fabs(x.qt[k])) * std::sqrt(static_cast<double>(x.m.size())));
    }
  }
}

TEST_F(DeviceLowRank, ManyMatricesShareThreadBlocks) {
  matrices_.clear(), segments_.clear();
  for (int64_t i = 0; i < 900; ++i) Put({i % 7, 1 + i % 5, 1 + i % 3});
  Put({70, 132, 4});
  table_ = TableOf(segments_);
  device::MaterializeTimesQ(table_, stream());
  device::OuterAdd(table_, stream());
  for (size_t i = 0; i < matrices_.size(); ++i) {
    Matrix& x = matrices_[i];
    const float* addend = segments_[i].addend ? x.addend.data() : nullptr;
    kernels::MaterializeTimesQReference({x.m, addend, 0.5f}, x.shape, x.qt.data(), x.p.data());
    const std::vector<float> p = Download(segments_[i].p, x.p.size());
    ExpectNear(x.p, p);
    kernels::OuterAddReference(x.m.data(), x.shape, p.data(), x.qt.data(), 0.5f);
    EXPECT_TRUE(SameBits(x.m, Download(segments_[i].m, x.m.size()))) << i;
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

TEST_F(DeviceLowRank, RowsOfLengthOneDrawsAndTransposesHaveTheCpusBits) {
  std::vector<device::UnitRowsSegment> rows;
  std::vector<device::DrawSegment> draws;
  std::vector<device::TransposeSegment> transposes;
  std::vector<std::vector<float>> want_rows, want_draws, want_transposes;
  for (const auto& [count, cols] : {std::pair{0, 3}, {1, 1}, {3, 31}, {5, 1000}, {2, 5000}}) {
    for (const bool given : {true, false}) {
      const size_t n = static_cast<size_t>(count * cols), width = static_cast<size_t>(cols);
      std::vector<float> from = RandomFloats(n, n, 1e-25f), to(n), drawn(n), transposed(n);
      if (count > 1) std::fill_n(from.begin() + cols, width, 0.0f);
      if (count > 2) from[2 * width] = NAN;
      const float* source = Upload(from);
      rows.push_back(
          {given ? source : nullptr, AllocateOf<float>(n), 11 + n, cols, static_cast<int64_t>(n)});
      draws.push_back(
          {AllocateOf<float>(n), 12 + n, (uint64_t{1} << 32) - 9, static_cast<int64_t>(n)});
      transposes.push_back({source, AllocateOf<float>(n), 1.7f, cols, static_cast<int64_t>(n)});
      kernels::UnitRows(given ? from.data() : nullptr, count, cols, 11 + n, to.data());
      kernels::DrawUniform(drawn, 12 + n, (uint64_t{1} << 32) - 9);
      kernels::TransposeScaled(from.data(), count, cols, 1.7f, transposed.data());
      want_rows.push_back(to), want_draws.push_back(drawn), want_transposes.push_back(transposed);
    }
  }
  const int64_t tiles = device::PlaceUnitRows(rows);
  device::UnitRows({Upload(rows), static_cast<int32_t>(rows.size()), tiles}, stream());
  device::DrawUniform(TableOf(draws), stream());
  device::TransposeScaled(TableOf(transposes), stream());
  for (size_t i = 0; i < rows.size(); ++i) {
    EXPECT_TRUE(SameBits(want_rows[i], Download(rows[i].to, want_rows[i].size()))) << i;
    EXPECT_TRUE(SameBits(want_draws[i], Download(draws[i].out, want_draws[i].size()))) << i;
    EXPECT_TRUE(SameBits(want_transposes[i], Download(transposes[i].to, want_transposes[i].size())))
        << i;
  }
}

TEST_F(DeviceLowRank, RowsAreScaledInPlace) {
  std::vector<float> x = RandomFloats(3 * 700, 8);
  std::fill_n(x.begin() + 700, 700, 0.0f);
  std::vector<device::UnitRowsSegment> rows(1);
  rows[0].to = Upload(x);
  rows[0].from = rows[0].to;
  rows[0].cols = 700;
  rows[0].numel = 2100;
  const int64_t tiles = device::PlaceUnitRows(rows);
  device::UnitRows({Upload(rows), 1, tiles}, stream());
  kernels::UnitRows(x.data(), 3, 700, 0, x.data());
  EXPECT_TRUE(SameBits(x, Download(rows[0].to, x.size())));
}

}  // namespace
}  // namespace tw
