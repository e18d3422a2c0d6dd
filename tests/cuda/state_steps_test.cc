#include "core/kernels/state_steps.h"

#include <algorithm>
#include <cmath>

#include "core/kernels/state_codes_tables.h"
#include "core/kernels/state_factor_device.h"
#include "core/kernels/state_steps_device.h"
#include "tests/core/kernels/sample_data.h"
#include "tests/cuda/device_memory.h"

namespace tw {
namespace {

namespace device = kernels::device;
using kernels::Code4;
using kernels::Code8;

constexpr kernels::AdamWCoefficients<float> kAdamW = {0.5f,   0.999f, 0.9f, 0.1f, 0.999f,
                                                      0.001f, 1e-2f,  3.0f, 1e-8f};
constexpr kernels::SgdmCoefficients<float> kSgdm = {0.5f, 0.01f, 0.9f, 0.1f, false};

struct Moment {
  std::vector<uint8_t> codes;
  std::vector<float> scales;
  kernels::CodedMoment view() { return {codes, scales}; }
};
struct Parameter {
  std::vector<float> p, g;
  Moment m, v;
};

std::vector<float> Gradient(size_t n, uint64_t seed) {
  std::vector<float> g = RandomFloats(n, seed);
  for (size_t i = 0; i < n; ++i) {
    if (i % 9 == 0) g[i] = 0;
    if (i / 128 % 3 == 1) g[i] *= 1e-25f;  // mean squares below the smallest normal number
  }
  return g;
}
Moment Encoded(std::vector<float> x, bool is_signed, bool four) {
  const auto n = static_cast<int64_t>(x.size());
  if (!is_signed) {
    for (float& v : x) v *= v;
  }
  Moment out;
  out.codes.resize(static_cast<size_t>(four ? kernels::NibbleBytes(n) : n));
  out.scales.resize(static_cast<size_t>(
      kernels::Blocks(n, four ? kernels::kStateBlock4 : kernels::kStateBlock8)));
  if (four) {
    kernels::EncodeBlocks4(is_signed ? Code4::kDeSigned : Code4::kLinear, x, out.codes, out.scales);
  } else {
    kernels::EncodeBlocks8(is_signed ? Code8::kDeSigned : Code8::kDeUnsigned, x, out.codes,
                           out.scales);
  }
  return out;
}

class DeviceStateSteps : public DeviceTest {
 protected:
  void ExpectSame(bool four, const std::function<void(Parameter&)>& cpu,
                  const std::function<void(device::Table<device::CodedStepSegment>)>& gpu) {
    std::vector<Parameter> parameters;
    std::vector<device::CodedStepSegment> segments;
    for (const size_t n : DeviceSizes()) {
      Parameter x{RandomFloats(n, n), Gradient(n, n + 1),
                  Encoded(RandomFloats(n, n + 2), true, four),
                  Encoded(RandomFloats(n, n + 3), false, four)};
      segments.push_back({Upload(x.p), Upload(x.g), Upload(x.m.codes), Upload(x.m.scales),
                          Upload(x.v.codes), Upload(x.v.scales), static_cast<int64_t>(n)});
      for (int step = 0; step < 3; ++step) cpu(x);
      parameters.push_back(x);
    }
    const auto table = TableOf(segments);
    EXPECT_EQ(LaunchesOf(1, [&] { gpu(table); }), 1);
    gpu(table), gpu(table);
    for (size_t i = 0; i < segments.size(); ++i) {
      const Parameter& x = parameters[i];
      const device::CodedStepSegment& s = segments[i];
      EXPECT_TRUE(SameBits(x.p, Download(s.p, x.p.size())));
      EXPECT_TRUE(SameBits(x.m.scales, Download(s.m_scales, x.m.scales.size())));
      EXPECT_TRUE(SameBits(x.m.codes, Download(s.m_codes, x.m.codes.size())));
      EXPECT_TRUE(SameBits(x.v.scales, Download(s.v_scales, x.v.scales.size())));
      EXPECT_TRUE(SameBits(x.v.codes, Download(s.v_codes, x.v.codes.size())));
    }
  }
};

TEST_F(DeviceStateSteps, HaveTheCpusParametersCodesAndScales) {
  const auto* adamw = Upload(std::vector{kAdamW});
  const auto* sgdm = Upload(std::vector{kSgdm});
  ExpectSame(
      true, [](Parameter& x) { AdamWStep4(x.p, x.g, x.m.view(), x.v.view(), kAdamW); },
      [&](auto table) { device::AdamWStep4(table, adamw, stream()); });
  ExpectSame(
      false, [](Parameter& x) { AdamWStep8(x.p, x.g, x.m.view(), x.v.view(), kAdamW); },
      [&](auto table) { device::AdamWStep8(table, adamw, stream()); });
  ExpectSame(
      true, [](Parameter& x) { SgdmStep4(x.p, x.g, x.m.view(), kSgdm); },
      [&](auto table) { device::SgdmStep4(table, sgdm, stream()); });
}

// A whole tile whose new m are numbers around every border between codes, of both signs.
TEST_F(DeviceStateSteps, FindTheCpusCodesAtTheirBorders) {
  constexpr kernels::AdamWCoefficients<float> kReplace = {1, 1, 0, 1, 0, 1, 1e-2f, 1, 1e-8f};
  const size_t n = device::kTile;
  std::vector<float> numbers = {0, 1e-30f, 1e-42f, 0x1p-9f, 0x1p-10f, 1};
  for (const float mid : kernels::MidpointsOf(Code4::kDeSigned)) numbers.push_back(std::fabs(mid));
  for (const float mid : kernels::MidpointsOf(Code4::kLinear)) numbers.push_back(std::sqrt(mid));
  Parameter x{RandomFloats(n, 1),
              {},
              Encoded(RandomFloats(n, 2), true, true),
              Encoded(RandomFloats(n, 3), false, true)};
  for (size_t i = 0; x.g.size() < n; ++i) {
    const size_t of = i / 6 % numbers.size();
    const float number = numbers[of], sign = i % 2 ? -1.0f : 1.0f;
    const float near[] = {number, std::nextafter(number, 0.0f), std::nextafter(number, 2.0f)};
    // Every block has a scale of 1.
    x.g.push_back(x.g.size() % 128 == 77 ? 1.0f : sign * std::min(near[i / 2 % 3], 1.0f));
  }
  std::vector<device::CodedStepSegment> segments = {{Upload(x.p), Upload(x.g), Upload(x.m.codes),
                                                     Upload(x.m.scales), Upload(x.v.codes),
                                                     Upload(x.v.scales), static_cast<int64_t>(n)}};
  device::AdamWStep4(TableOf(segments), Upload(std::vector{kReplace}), stream());
  kernels::AdamWStep4(x.p, x.g, x.m.view(), x.v.view(), kReplace);
  EXPECT_TRUE(SameBits(x.p, Download(segments[0].p, n)));
  EXPECT_TRUE(SameBits(x.m.codes, Download(segments[0].m_codes, n / 2)));
  EXPECT_TRUE(SameBits(x.v.codes, Download(segments[0].v_codes, n / 2)));
  EXPECT_TRUE(SameBits(x.v.scales, Download(segments[0].v_scales, n / 128)));
}

// What optim/state/int4_rank1.cc and AdamW make of a matrix.
void Rank1OnCpu(Parameter& x, std::vector<float>& maxima, size_t rows) {
  const std::span<float> kept(maxima);
  std::vector<float> fresh(maxima.size()), m(x.p.size()), v = m, scales = m;
  const auto rows_of = [&](std::span<float> all) { return all.first(rows); };
  const auto cols_of = [&](std::span<float> all) { return all.subspan(rows); };
  kernels::DecodeBlocks4(Code4::kDeSigned, x.m.codes, x.m.scales, m);
  kernels::DequantizeUnit4(Code4::kLinear, x.v.codes, v);
  kernels::Rank1Scales(0, rows_of(kept), cols_of(kept), scales);
  for (size_t i = 0; i < v.size(); ++i) v[i] *= scales[i];
  kernels::AdamWStep(x.p, x.g, m, v, kAdamW);
  kernels::EncodeBlocks4(Code4::kDeSigned, m, x.m.codes, x.m.scales);
  kernels::RaiseRank1(v, 0, rows_of(fresh), cols_of(fresh));
  kernels::Rank1Scales(0, rows_of(fresh), cols_of(fresh), scales);
  kernels::DivideByScales(v, scales);
  kernels::QuantizeUnit4(Code4::kLinear, scales, x.v.codes);
  for (size_t i = 0; i < fresh.size(); ++i) {
    maxima[i] = fresh[i] < 1.17549435e-38f ? 0 : fresh[i];
  }
}

TEST_F(DeviceStateSteps, Rank1MaximaCodesAndParametersAreTheCpus) {
  const auto* c = Upload(std::vector{kAdamW});
  const std::vector<std::pair<size_t, size_t>> shapes = {{1, 1},   {7, 1},   {1, 31},
                                                         {3, 129}, {33, 65}, {40, 128}};
  std::vector<device::Rank1StepSegment> segments = {{}};
  std::vector<Parameter> parameters = {{}};
  std::vector<std::vector<float>> all_maxima = {{}};
  segments[0].cols = 1;
  for (const auto& [rows, cols] : shapes) {
    const size_t n = rows * cols;
    Parameter x{
        RandomFloats(n, n), Gradient(n, n + 1), Encoded(RandomFloats(n, n + 2), true, true), {}};
    x.v.codes.resize((n + 1) / 2);
    std::vector<float> maxima(rows + cols);
    segments.push_back({Upload(x.p), Upload(x.g), Upload(x.m.codes), Upload(x.m.scales),
                        Upload(x.v.codes), Upload(maxima), AllocateOf<float>(maxima.size()),
                        static_cast<int64_t>(cols), static_cast<int64_t>(n)});
    for (int step = 0; step < 3; ++step) Rank1OnCpu(x, maxima, rows);
    parameters.push_back(x);
    all_maxima.push_back(maxima);
  }
  const auto table = TableOf(segments);
  EXPECT_EQ(LaunchesOf(4, [&] { device::AdamWStepRank1(table, c, stream()); }), 4);
  for (int step = 1; step < 3; ++step) device::AdamWStepRank1(table, c, stream());
  for (size_t i = 0; i < segments.size(); ++i) {
    const Parameter& x = parameters[i];
    const device::Rank1StepSegment& s = segments[i];
    EXPECT_TRUE(SameBits(x.p, Download(s.p, x.p.size()))) << i;
    EXPECT_TRUE(SameBits(x.m.codes, Download(s.m_codes, x.m.codes.size()))) << i;
    EXPECT_TRUE(SameBits(x.v.codes, Download(s.v_codes, x.v.codes.size()))) << i;
    EXPECT_TRUE(SameBits(all_maxima[i], Download(s.v_maxima, all_maxima[i].size()))) << i;
  }
}

// What optim/state/int4_factor.cc and AdamW make of a matrix.
void FactorOnCpu(Parameter& x, std::vector<float>& means, size_t rows) {
  const size_t cols = means.size() - rows;
  std::vector<float> m(x.p.size()), v = m;
  const auto fit = [&] {
    double mean = 0;
    for (size_t row = 0; row < rows; ++row) mean += means[row];
    mean /= static_cast<double>(rows);
    for (size_t i = 0; i < v.size(); ++i) {
      const float factor = mean > 0 ? static_cast<float>(means[i / cols] / mean) : 0.0f;
      v[i] = factor * means[rows + i % cols];
    }
  };
  fit();
  kernels::SecondMomentStep(x.g, v, kAdamW);
  std::vector<double> sums(means.size());
  for (size_t i = 0; i < v.size(); ++i) {
    sums[i / cols] += v[i];
    sums[rows + i % cols] += v[i];
  }
  for (size_t i = 0; i < means.size(); ++i) {
    means[i] = static_cast<float>(sums[i] / static_cast<double>(i < rows ? cols : rows));
  }
  fit();
  kernels::AdamWCoefficients<float> around = kAdamW;
  around.beta2 = 1;
  around.rest2 = 0;
  kernels::DecodeBlocks4(Code4::kDeSigned, x.m.codes, x.m.scales, m);
  kernels::AdamWStep(x.p, x.g, m, v, around);
  kernels::EncodeBlocks4(Code4::kDeSigned, m, x.m.codes, x.m.scales);
}

// Sums in another order are at most some 1e-12 away, so a mean may be the next number in fp32 and
// v, of three means, three such steps away, in each of three updates.
constexpr double kNear = 3 * 3 * 1.2e-7;

TEST_F(DeviceStateSteps, FactoredMomentsAreNearTheCpusAndTheSameEveryTime) {
  const auto* c = Upload(std::vector{kAdamW});
  // Around those of warps, panels and slabs; the last one's gradients are zeros.
  const std::vector<std::pair<size_t, size_t>> shapes = {
      {1, 1}, {7, 1}, {1, 31}, {3, 129}, {33, 65}, {128, 128}, {129, 40}, {300, 257}, {50, 70}};
  const auto run = [&](uint64_t seed, bool check) {
    SetSeed(seed);
    std::vector<device::FactorStepSegment> segments(1);
    std::vector<Parameter> parameters(1);
    std::vector<std::vector<float>> starts(1), all_means(1);
    for (const auto& [rows, cols] : shapes) {
      const size_t n = rows * cols;
      Parameter x{
          RandomFloats(n, n), Gradient(n, n + 1), Encoded(RandomFloats(n, n + 2), true, true), {}};
      if (rows == 50) x.g.assign(n, 0.0f);
      std::vector<float> means(rows + cols);
      device::FactorStepSegment segment{Upload(x.p), Upload(x.g), Upload(x.m.codes),
                                        Upload(x.m.scales), Upload(means)};
      segment.cols = static_cast<int64_t>(cols);
      segment.numel = static_cast<int64_t>(n);
      segments.push_back(segment);
      starts.push_back(x.p);
      for (int step = 0; step < 3; ++step) FactorOnCpu(x, means, rows);
      parameters.push_back(x);
      all_means.push_back(means);
    }
    const int64_t tiles = device::PlaceFactor(segments);
    device::UseFactorScratch(
        segments, AllocateOf<uint8_t>(static_cast<size_t>(device::FactorScratchBytes(segments))));
    const device::Table<device::FactorStepSegment> table{
        Upload(segments), static_cast<int32_t>(segments.size()), tiles};
    const int64_t sum_tiles = device::FactorSumTiles(segments);
    for (int step = 0; step < 3; ++step) {
      EXPECT_EQ(LaunchesOf(5, [&] { device::AdamWStepFactor(table, sum_tiles, c, stream()); }), 5);
    }
    std::vector<std::vector<float>> left;
    for (size_t i = 0; i < segments.size(); ++i) {
      const Parameter& x = parameters[i];
      const device::FactorStepSegment& s = segments[i];
      const std::vector<float> p = Download(s.p, x.p.size());
      const std::vector<float> means = Download(s.v_means, all_means[i].size());
      left.push_back(p);
      left.push_back(means);
      if (!check) continue;
      EXPECT_TRUE(SameBits(x.m.codes, Download(s.m_codes, x.m.codes.size()))) << i;
      EXPECT_TRUE(SameBits(x.m.scales, Download(s.m_scales, x.m.scales.size()))) << i;
      for (size_t k = 0; k < means.size(); ++k) {
        EXPECT_NEAR(means[k], all_means[i][k], kNear * all_means[i][k]) << i << ", mean " << k;
      }
      for (size_t k = 0; k < p.size(); ++k) {
        const double moved = std::abs(x.p[k] - starts[i][k]);
        EXPECT_NEAR(p[k], x.p[k], kNear * (moved + std::abs(x.p[k]))) << i << ", element " << k;
      }
    }
    return left;
  };
  const auto first = run(1, true), second = run(2, false);
  for (size_t i = 0; i < first.size(); ++i) EXPECT_TRUE(SameBits(first[i], second[i])) << i;
}

}  // namespace
}  // namespace tw
