#include "core/kernels/quantize.h"

#include "core/kernels/quantize_device.h"
#include "tests/core/kernels/sample_data.h"
#include "tests/cuda/device_memory.h"

namespace tw {
namespace {

namespace device = kernels::device;
using kernels::Packing;
using kernels::QuantizeSpec;
using kernels::ScaleRule;

struct Case {
  std::string name;
  QuantizeSpec spec;
};
QuantizeSpec SpecOf(int bits, int64_t block, ScaleRule rule, bool stochastic) {
  return {bits, bits == 1 ? 1 : (1 << (bits - 1)) - 1, block, rule, Packing::kBits, stochastic};
}
std::vector<Case> Cases() {
  std::vector<Case> out;
  for (const int bits : {1, 2, 3, 4, 5, 6, 7, 8}) {
    for (const bool stochastic : {false, true}) {
      out.push_back({"bits" + std::to_string(bits) + (stochastic ? "stochastic" : "nearest"),
                     SpecOf(bits, 128, ScaleRule::kMaxAbs, stochastic)});
    }
  }
  // Blocks of all shapes that lanes have: parts of a warp, whole ones, one to eight groups a lane.
  for (const int64_t block : {8, 16, 24, 64, 136, 256, 264, 512, 1024, 1032, 2048}) {
    out.push_back(
        {"block" + std::to_string(block) + "bits4", SpecOf(4, block, ScaleRule::kMaxAbs, true)});
    out.push_back(
        {"block" + std::to_string(block) + "bits8", SpecOf(8, block, ScaleRule::kMaxAbs, false)});
  }
  out.push_back({"mean", SpecOf(1, 64, ScaleRule::kMeanAbs, false)});
  out.push_back({"meanwide", SpecOf(1, 1024, ScaleRule::kMeanAbs, false)});
  out.push_back({"normshort", SpecOf(8, 24, ScaleRule::kL2Norm, true)});
  out.push_back({"norm", SpecOf(4, 2048, ScaleRule::kL2Norm, true)});
  out.push_back({"shortblock", SpecOf(3, 8, ScaleRule::kMaxAbs, true)});
  out.push_back({"largeblock", SpecOf(5, 2056, ScaleRule::kMaxAbs, true)});
  out.push_back({"largeblocknorm", SpecOf(8, 6000, ScaleRule::kL2Norm, false)});
  out.push_back({"largeblockbit", SpecOf(1, 4096, ScaleRule::kMaxAbs, true)});
  out.push_back({"wholemax", SpecOf(8, 0, ScaleRule::kMaxAbs, false)});
  out.push_back({"whole", SpecOf(4, 0, ScaleRule::kL2Norm, true)});
  out.push_back({"wholemean", SpecOf(1, 0, ScaleRule::kMeanAbs, false)});
  out.push_back({"trits", {2, 1, 0, ScaleRule::kMaxAbs, Packing::kTrits, true}});
  out.push_back({"tritblocks", {2, 1, 256, ScaleRule::kMaxAbs, Packing::kTrits, true}});
  return out;
}

class DeviceQuantize : public DeviceTest, public testing::WithParamInterface<Case> {};

// Roughly normal numbers; in some blocks zeros, denormals, numbers whose levels overflow fp32.
std::vector<float> Message(size_t n, uint64_t seed) {
  std::vector<float> out = RandomFloats(n, seed);
  const float factors[] = {1.0f, 0.0f, 1e-40f, 1.0f, 1e37f, 0x1p-110f, 1e-3f};
  if (seed % 3 == 0) {
    for (size_t i = 0; i < n; ++i) out[i] *= factors[i / 128 % 7];
  }
  return out;
}

TEST_P(DeviceQuantize, BodiesResidualsAndSumsHaveTheCpusBits) {
  const QuantizeSpec& spec = GetParam().spec;
  const bool one_launch = device::AWarpABlock(spec);
  std::vector<device::QuantizeSegment> segments;
  std::vector<device::DequantizeSegment> decodes;
  std::vector<std::vector<float>> residuals, sums;
  std::vector<std::vector<uint8_t>> bodies;
  std::vector<size_t> sizes = DeviceSizes();
  sizes.insert(sizes.end(), {5120, 5121, 12345});
  for (size_t k = 0; k < sizes.size(); ++k) {
    const size_t n = sizes[k];
    // A maximum may be anything; sums are compared with the CPU's bits where all is ordinary.
    std::vector<float> message = Message(n, spec.scale == ScaleRule::kMaxAbs ? k : 3 * k + 1);
    const std::vector<float> addend = RandomFloats(n, 100 + k, 1e-3f);
    const bool pending = k % 2 == 0;
    const kernels::QuantizeStream stream{77 + k, (uint64_t{1} << 32) - 700};
    std::vector<uint8_t> body(static_cast<size_t>(spec.BodyBytes(static_cast<int64_t>(n))));
    // Both aligned, one of them, none.
    segments.push_back({UploadAt(message, 4 * (k / 4 % 2)),
                        pending ? UploadAt(addend, 4 * (k / 8 % 2)) : nullptr, -2.0f,
                        Allocate(body.size(), k % 4), stream, static_cast<int64_t>(n)});
    kernels::Quantize({message, pending ? addend.data() : nullptr, -2.0f}, spec, stream,
                      body.data());
    std::vector<float> sum = RandomFloats(n, 7);
    decodes.push_back(
        {UploadAt(sum, 4 * (k / 2 % 2)), 0.25f, segments.back().body, static_cast<int64_t>(n)});
    kernels::DequantizeAdd(body.data(), spec, 0.25f, sum);
    residuals.push_back(message);
    bodies.push_back(body);
    sums.push_back(sum);
  }
  const int64_t tiles = device::PlaceQuantized<device::QuantizeSegment>(segments, spec);
  ASSERT_EQ(device::PlaceQuantized<device::DequantizeSegment>(decodes, spec), tiles);
  const auto count = static_cast<int32_t>(segments.size());
  const device::Table<device::QuantizeSegment> table{Upload(segments), count, tiles};
  const device::Table<device::DequantizeSegment> decode_table{Upload(decodes), count, tiles};
  double* scratch = AllocateOf<double>(static_cast<size_t>(device::QuantizeScratch(tiles, spec)));
  const int64_t launches = one_launch ? 1 : 3;
  EXPECT_EQ(LaunchesOf(launches, [&] { device::Quantize(table, spec, scratch, stream()); }),
            launches);
  EXPECT_EQ(LaunchesOf(1, [&] { device::DequantizeAdd(decode_table, spec, stream()); }), 1);
  for (size_t k = 0; k < sizes.size(); ++k) {
    EXPECT_TRUE(SameBits(bodies[k], Download(segments[k].body, bodies[k].size()))) << sizes[k];
    EXPECT_TRUE(SameBits(residuals[k], Download(segments[k].buffer, sizes[k]))) << sizes[k];
    EXPECT_TRUE(SameBits(sums[k], Download(decodes[k].out, sizes[k]))) << sizes[k];
  }
}

INSTANTIATE_TEST_SUITE_P(Specs, DeviceQuantize, testing::ValuesIn(Cases()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace tw
