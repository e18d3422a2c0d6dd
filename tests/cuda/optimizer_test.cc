#include "core/kernels/optimizer.h"

#include "core/kernels/optimizer_device.h"
#include "core/kernels/reduce.h"
#include "tests/core/kernels/sample_data.h"
#include "tests/cuda/device_memory.h"

namespace tw {
namespace {

namespace device = kernels::device;
using device::StepSegment;

constexpr kernels::AdamWCoefficients<float> kAdamW = {0.5f,   0.999f, 0.9f, 0.1f, 0.999f,
                                                      0.001f, 1e-2f,  3.0f, 1e-8f};
constexpr kernels::SgdmCoefficients<float> kSgdm = {0.5f, 0.01f, 0.9f, 0.1f, true};

struct Parameter {
  std::vector<float> p, g, m, v;
};

class DeviceOptimizer : public DeviceTest {
 protected:
  void ExpectSame(const std::function<void(Parameter&)>& cpu,
                  const std::function<void(device::Table<StepSegment>)>& gpu) {
    std::vector<Parameter> parameters;
    std::vector<StepSegment> segments;
    for (const size_t n : DeviceSizes()) {
      Parameter x{RandomFloats(n, n), RandomFloats(n, n + 1), RandomFloats(n, n + 2),
                  RandomFloats(n, n + 3)};
      for (size_t i = 0; i < n; ++i) x.v[i] = i % 5 ? x.v[i] * x.v[i] : 0;
      for (size_t i = 0; i < n; i += 7) x.g[i] = i % 2 ? 0.0f : 1e-30f;
      segments.push_back(
          {Upload(x.p), Upload(x.g), Upload(x.m), Upload(x.v), static_cast<int64_t>(n)});
      cpu(x);
      parameters.push_back(x);
    }
    const auto table = TableOf(segments);
    EXPECT_EQ(LaunchesOf(1, [&] { gpu(table); }), 1);
    for (size_t i = 0; i < segments.size(); ++i) {
      const Parameter& x = parameters[i];
      EXPECT_TRUE(SameBits(x.p, Download(segments[i].p, x.p.size())));
      EXPECT_TRUE(SameBits(x.m, Download(segments[i].m, x.m.size())));
      EXPECT_TRUE(SameBits(x.v, Download(segments[i].v, x.v.size())));
    }
  }
};

TEST_F(DeviceOptimizer, StepsHaveTheCpusBits) {
  const auto* adamw = Upload(std::vector{kAdamW});
  const auto* sgdm = Upload(std::vector{kSgdm});
  ExpectSame([](Parameter& x) { kernels::AdamWStep(x.p, x.g, x.m, x.v, kAdamW); },
             [&](auto table) { device::AdamWStep(table, adamw, stream()); });
  ExpectSame([](Parameter& x) { kernels::SecondMomentStep(x.g, x.v, kAdamW); },
             [&](auto table) { device::SecondMomentStep(table, adamw, stream()); });
  ExpectSame([](Parameter& x) { kernels::SgdStep(x.p, x.g, kSgdm); },
             [&](auto table) { device::SgdStep(table, sgdm, stream()); });
  ExpectSame([](Parameter& x) { kernels::SgdmStep(x.p, x.g, x.m, kSgdm); },
             [&](auto table) { device::SgdmStep(table, sgdm, stream()); });
}

TEST_F(DeviceOptimizer, AdamMiniHasTheBitsOfTheCpusOptimizer) {
  const auto* c = Upload(std::vector{kAdamW});
  const std::vector<std::pair<int64_t, int64_t>> shapes = {
      // block, blocks
      {1, 0}, {1, 3}, {7, 5}, {128, 4}, {1000, 3}, {1024, 2}, {4099, 2}, {20000, 1}};
  std::vector<device::AdamMiniSegment> segments;
  std::vector<Parameter> parameters;
  for (const auto& [block, blocks] : shapes) {
    const size_t n = static_cast<size_t>(block * blocks), count = static_cast<size_t>(blocks);
    Parameter x{RandomFloats(n, n), RandomFloats(n, n + 1), RandomFloats(n, n + 2),
                std::vector<float>(count, 0.3f)};
    segments.push_back({Upload(x.p), Upload(x.g), Upload(x.m), Upload(x.v), block, block * blocks});
    for (size_t b = 0; b < count; ++b) {  // as optim/adam_mini.cc does it
      const size_t size = static_cast<size_t>(block), first = b * size;
      double sum = 0;
      for (size_t at = first; at < first + size; at += 1024) {
        std::vector<float> scaled;
        for (size_t i = at; i < std::min(at + 1024, first + size); ++i) {
          scaled.push_back(x.g[i] * kAdamW.grad_scale);
        }
        sum += kernels::SumOfSquares(scaled);
      }
      const auto mean = static_cast<float>(sum / static_cast<double>(size));
      x.v[b] = kAdamW.beta2 * x.v[b] + kAdamW.rest2 * mean;
      const float denominator = std::sqrt(x.v[b]) * kAdamW.inverse_root_bias + kAdamW.eps;
      const auto part = [&](std::vector<float>& of) { return std::span(of).subspan(first, size); };
      kernels::AdamMiniStep(part(x.p), part(x.g), part(x.m), denominator, kAdamW);
    }
    parameters.push_back(x);
  }
  const int64_t tiles = device::PlaceAdamMini(segments);
  device::AdamMiniStep({Upload(segments), static_cast<int32_t>(segments.size()), tiles}, c,
                       stream());
  for (size_t i = 0; i < segments.size(); ++i) {
    const Parameter& x = parameters[i];
    EXPECT_TRUE(SameBits(x.p, Download(segments[i].p, x.p.size()))) << segments[i].block;
    EXPECT_TRUE(SameBits(x.m, Download(segments[i].m, x.m.size())));
    EXPECT_TRUE(SameBits(x.v, Download(segments[i].v, x.v.size())));
  }
}

}  // namespace
}  // namespace tw
