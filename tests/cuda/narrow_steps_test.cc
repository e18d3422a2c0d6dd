// Steps of bf16 parameters in one pass: the bits of the passes that they stand for.
#include "core/kernels/elementwise.h"
#include "core/kernels/float16.h"
#include "core/kernels/optimizer_device.h"
#include "core/kernels/state_steps_device.h"
#include "tests/core/kernels/sample_data.h"
#include "tests/cuda/device_memory.h"

namespace tw {
namespace {

namespace device = kernels::device;

constexpr kernels::AdamWCoefficients<float> kAdamW = {0.5f,   0.999f, 0.9f, 0.1f, 0.999f,
                                                      0.001f, 1e-2f,  3.0f, 1e-8f};
constexpr kernels::SgdmCoefficients<float> kSgdm = {0.5f, 0.01f, 0.9f, 0.1f, true};
constexpr int kSteps = 3;

std::vector<uint16_t> Bf16(const std::vector<float>& x) {
  std::vector<uint16_t> out(x.size());
  kernels::ConvertToBf16(x, out);
  return out;
}

// A parameter on the host, whose moments are fp32 or codes and scales; all start from zeros.
struct Parameter {
  explicit Parameter(size_t n, bool has_master)
      : value(Bf16(RandomFloats(n, n))),
        grad(Bf16(RandomFloats(n, n + 1))),
        wide(n),
        wide_grad(n),
        key(77 + n) {
    kernels::ConvertFromBf16(value, wide);
    kernels::ConvertFromBf16(grad, wide_grad);
    if (has_master) master = wide;
    for (auto* numbers : {&m, &v}) numbers->resize(n);
    for (auto* codes : {&m_codes, &v_codes}) codes->resize(n);
    for (auto* scales : {&m_scales, &v_scales}) scales->resize(n / kernels::kStateBlock4 + 1);
  }
  kernels::CodedMoment coded_m(bool four) { return Coded(m_codes, m_scales, four); }
  kernels::CodedMoment coded_v(bool four) { return Coded(v_codes, v_scales, four); }

  // step() moves `wide`.
  template <class Step>
  void Move(Step step) {
    if (master.empty()) kernels::ConvertFromBf16(value, wide);
    step();
    if (master.empty()) {
      kernels::RoundToBf16(wide, key, 0, value);
    } else {
      master = wide;
      kernels::ConvertToBf16(wide, value);
    }
  }

  std::vector<uint16_t> value, grad;
  std::vector<float> master, wide, wide_grad, m, v, m_scales, v_scales;
  std::vector<uint8_t> m_codes, v_codes;
  uint64_t key;

 private:
  kernels::CodedMoment Coded(std::vector<uint8_t>& codes, std::vector<float>& scales, bool four) {
    const auto n = static_cast<int64_t>(value.size());
    const int64_t bytes = four ? kernels::NibbleBytes(n) : n;
    const int64_t blocks = kernels::Blocks(n, four ? kernels::kStateBlock4 : kernels::kStateBlock8);
    return {std::span(codes).first(static_cast<size_t>(bytes)),
            std::span(scales).first(static_cast<size_t>(blocks))};
  }
};

class DeviceNarrowSteps : public DeviceTest {
 protected:
  template <class Segment>
  void ExpectSame(const std::function<void(Parameter&)>& cpu,
                  const std::function<void(device::Table<Segment>)>& gpu) {
    constexpr bool kCoded = std::is_same_v<Segment, device::NarrowCodedStepSegment>;
    std::vector<Parameter> parameters;
    std::vector<Segment> segments;
    for (const bool has_master : {true, false}) {
      for (const size_t n : DeviceSizes()) {
        Parameter x(n, has_master);
        Segment s;
        s.value = Upload(x.value);
        s.grad = Upload(x.grad);
        if (has_master && n > 0) s.master = Upload(x.master);
        s.key = x.key;
        s.numel = static_cast<int64_t>(n);
        if constexpr (kCoded) {
          s.m_codes = Upload(x.m_codes), s.m_scales = Upload(x.m_scales);
          s.v_codes = Upload(x.v_codes), s.v_scales = Upload(x.v_scales);
        } else {
          s.m = Upload(x.m), s.v = Upload(x.v);
        }
        for (int step = 0; step < kSteps; ++step) x.Move([&] { cpu(x); });
        segments.push_back(s);
        parameters.push_back(std::move(x));
      }
    }
    const auto table = TableOf(segments);
    for (int step = 0; step < kSteps; ++step) EXPECT_EQ(LaunchesOf(1, [&] { gpu(table); }), 1);
    for (size_t i = 0; i < segments.size(); ++i) {
      const Segment& s = segments[i];
      const auto expect_same = [&](const auto& want, const auto* got) {
        EXPECT_TRUE(SameBits(want, Download(got, want.size()))) << i;
      };
      const Parameter& x = parameters[i];
      expect_same(x.value, s.value);
      if (!x.master.empty()) expect_same(x.master, s.master);
      if constexpr (kCoded) {
        expect_same(x.m_codes, s.m_codes), expect_same(x.m_scales, s.m_scales);
        expect_same(x.v_codes, s.v_codes), expect_same(x.v_scales, s.v_scales);
      } else {
        expect_same(x.m, s.m), expect_same(x.v, s.v);
      }
    }
  }
};

TEST_F(DeviceNarrowSteps, OfMomentsInFp32) {
  const auto* adamw = Upload(std::vector{kAdamW});
  const auto* sgdm = Upload(std::vector{kSgdm});
  using Segment = device::NarrowStepSegment;
  ExpectSame<Segment>(
      [](Parameter& x) { kernels::AdamWStep(x.wide, x.wide_grad, x.m, x.v, kAdamW); },
      [&](auto table) { device::AdamWStepNarrow(table, adamw, stream()); });
  ExpectSame<Segment>([](Parameter& x) { kernels::SgdmStep(x.wide, x.wide_grad, x.m, kSgdm); },
                      [&](auto table) { device::SgdmStepNarrow(table, sgdm, stream()); });
  ExpectSame<Segment>([](Parameter& x) { kernels::SgdStep(x.wide, x.wide_grad, kSgdm); },
                      [&](auto table) { device::SgdStepNarrow(table, sgdm, stream()); });
}

TEST_F(DeviceNarrowSteps, OfMomentsInFewBits) {
  const auto* adamw = Upload(std::vector{kAdamW});
  const auto* sgdm = Upload(std::vector{kSgdm});
  using Segment = device::NarrowCodedStepSegment;
  ExpectSame<Segment>(
      [](Parameter& x) {
        AdamWStep4(x.wide, x.wide_grad, x.coded_m(true), x.coded_v(true), kAdamW);
      },
      [&](auto table) { device::AdamWStep4Narrow(table, adamw, stream()); });
  ExpectSame<Segment>(
      [](Parameter& x) {
        AdamWStep8(x.wide, x.wide_grad, x.coded_m(false), x.coded_v(false), kAdamW);
      },
      [&](auto table) { device::AdamWStep8Narrow(table, adamw, stream()); });
  ExpectSame<Segment>([](Parameter& x) { SgdmStep4(x.wide, x.wide_grad, x.coded_m(true), kSgdm); },
                      [&](auto table) { device::SgdmStep4Narrow(table, sgdm, stream()); });
}

}  // namespace
}  // namespace tw
