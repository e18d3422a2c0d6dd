// Every registered compressor against the contract of core/api/compressor.h: each of them x dtype x
// shape x awkward input. A compressor registered later is tested here without an edit.

#include "core/api/compressor.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "core/api/convert.h"
#include "tests/compressors/codec_under_test.h"
#include "tests/core/kernels/sample_data.h"

namespace tw {
namespace {

bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() &&
         (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
}

using Bytes = std::vector<uint8_t>;

constexpr DType kDTypes[] = {DType::kF32, DType::kF64, DType::kBF16, DType::kF16};

// Largest relative rounding of one operation in that type.
double Epsilon(DType dtype) {
  switch (dtype) {
    case DType::kF16:
      return 0x1p-11;
    case DType::kBF16:
      return 0x1p-8;
    default:
      return 0x1p-24;  // fp64 messages are encoded as fp32
  }
}

std::vector<std::vector<int64_t>> Shapes() {
  return {{0},    {1},    {2},     {3},     {31},     {127},    {128},    {129},
          {1000}, {4097}, {1, 65}, {65, 1}, {17, 33}, {64, 48}, {3, 5, 7}};
}

struct Input {
  std::string name;
  std::vector<float> values;
  bool ordinary;  // within every type's normal range: constants of the codec hold
};

std::vector<Input> Inputs(int64_t numel) {
  const size_t n = static_cast<size_t>(numel);
  std::vector<Input> out;
  out.push_back({"random", RandomFloats(n, 1), true});
  out.push_back({"zeros", std::vector<float>(n, 0.0f), true});
  out.push_back({"ties", std::vector<float>(n, -1.5f), true});
  std::vector<float> x(n);
  for (size_t i = 0; i < n; ++i) x[i] = i % 2 ? -0.5f : 0.5f;
  out.push_back({"alternating", x, true});
  std::fill(x.begin(), x.end(), 0.0f);
  if (n) x[n / 2] = -7.0f;
  out.push_back({"spike", x, true});
  for (size_t i = 0; i < n; ++i) x[i] = static_cast<float>(i % 7) * (i % 2 ? -1e-40f : 1e-40f);
  out.push_back({"denormals", x, false});
  out.push_back({"tiny", RandomFloats(n, 2, 1e-30f), false});
  out.push_back({"large", RandomFloats(n, 3, 1e4f), false});
  out.push_back({"huge", RandomFloats(n, 4, 1e30f), false});
  return out;
}

// A tensor of any type.
struct Tensor {
  Tensor(DType dtype, std::span<const float> values)
      : storage(values.size() * static_cast<size_t>(DTypeBytes(dtype))),
        view{storage.data(), dtype, static_cast<int64_t>(values.size())} {
    ConvertFromFp32(values, view);
  }
  std::vector<double> values() const {
    std::vector<double> out(static_cast<size_t>(view.numel));
    AddScaled({out.data(), DType::kF64, view.numel}, view, 1.0f);
    return out;
  }
  Bytes storage;
  TensorView view;
};

double Norm2(const std::vector<double>& x) {
  double sum = 0;
  for (const double v : x) sum += v * v;
  return sum;
}

class CompressorContract : public testing::TestWithParam<std::string> {
 protected:
  const std::string& name() const { return GetParam(); }
};

TEST_P(CompressorContract, ResidualIsMessageMinusDecoded) {
  for (const DType dtype : kDTypes) {
    for (const auto& shape : Shapes()) {
      CodecUnderTest codec(name(), shape, {}, dtype);
      for (const Input& input : Inputs(codec.spec.numel())) {
        SCOPED_TRACE(std::string(DTypeName(dtype)) + " " + input.name + " " +
                     testing::PrintToString(shape));
        Tensor message(dtype, input.values);
        const auto before = message.values();
        Message pending{message.view, {}, 1.0f};
        const Bytes body = codec.EncodeMessage(pending);
        const auto residual = message.values();
        std::vector<double> decoded(before.size());
        ASSERT_TRUE(codec.codec
                        ->DecodeAddAny(body, 1.0f, codec.context,
                                       {decoded.data(), DType::kF64, codec.spec.numel()})
                        .ok());
        // A 16-bit buffer holds the residual itself rounded; matrix codecs sum products as large as
        // the largest element times the inner dimension.
        double largest = 0;
        for (const double v : before) largest = std::max(largest, std::fabs(v));
        for (const double v : decoded) largest = std::max(largest, std::fabs(v));
        // Where a type's numbers stop being dense.
        const double unit = dtype == DType::kF16    ? 0x1p-24
                            : dtype == DType::kBF16 ? 0x1p-133
                                                    : 1e-44;
        for (size_t i = 0; i < before.size(); ++i) {
          const double expected = before[i] - decoded[i];
          if (dtype == DType::kF16 && std::fabs(expected) > 65504) continue;  // saturates
          ASSERT_NEAR(residual[i], expected, 2 * Epsilon(dtype) * largest + unit) << i;
        }
      }
    }
  }
}

TEST_P(CompressorContract, SizeKeepsItsBound) {
  for (const DType dtype : kDTypes) {
    for (const auto& shape : Shapes()) {
      CodecUnderTest codec(name(), shape, {}, dtype);
      const int last = codec.codec->traits().rounds - 1;
      for (const Input& input : Inputs(codec.spec.numel())) {
        Tensor message(dtype, input.values);
        Message pending{message.view, {}, 1.0f};
        const int64_t size = static_cast<int64_t>(codec.EncodeMessage(pending).size());
        const int64_t bound = codec.codec->MaxEncodedBytes(codec.spec, last);
        EXPECT_LE(size, bound);
        EXPECT_TRUE(!codec.codec->traits().fixed_size || size == bound) << size << " " << bound;
        EXPECT_TRUE(codec.spec.numel() != 0 || size == 0) << size;
      }
    }
  }
}

// In expectation for a random codec, so the mean over draws with room for their spread.
TEST_P(CompressorContract, ContractsByItsDelta) {
  for (const auto& shape : Shapes()) {
    CodecUnderTest codec(name(), shape);
    const double delta = codec.codec->Delta(codec.spec);
    ASSERT_GE(delta, 0);
    ASSERT_LE(delta, 1);
    if (codec.codec->traits().unbiased && !(codec.codec->Omega(codec.spec) <= 1)) continue;
    const size_t n = static_cast<size_t>(codec.spec.numel());
    std::vector<float> one = RandomFloats(n, 1), other = one;
    codec.Encode(one);
    codec.context.step += 1;
    codec.Encode(other);
    const bool random = one != other;
    constexpr int kDraws = 32;
    for (const Input& input : Inputs(codec.spec.numel())) {
      const double norm2 = Norm2({input.values.begin(), input.values.end()});
      double sum = 0, sum2 = 0;
      for (int draw = 0; draw < kDraws; ++draw) {
        codec.context.step = static_cast<uint64_t>(draw);
        std::vector<float> x = input.values;
        codec.Encode(x);
        const double left = Norm2({x.begin(), x.end()});
        sum += left;
        sum2 += left * left;
      }
      const double mean = sum / kDraws;
      // Seen spread, or that of a codec that keeps all of the norm with probability delta.
      const double spread =
          random ? std::sqrt(std::max({sum2 / kDraws - mean * mean, delta * norm2 * norm2, 0.0}) /
                             kDraws)
                 : 0;
      const double bound = (1 - (input.ordinary ? delta : 0)) * norm2;
      // A codec whose smallest step is 2^-126 (natural) adds up to (2^-126)^2 / 4 = 3.5e-77 an
      // element to denormals.
      const double smallest = 4e-77 * static_cast<double>(input.values.size());
      EXPECT_LE(mean, bound * (1 + 1e-6) + 5 * spread + 1e-14 * norm2 + smallest)
          << input.name << " " << testing::PrintToString(shape);
    }
  }
}

TEST_P(CompressorContract, IsDeterministic) {
  for (const auto& shape : Shapes()) {
    CodecUnderTest a(name(), shape), b(name(), shape);
    for (const Input& input : Inputs(a.spec.numel())) {
      std::vector<float> x = input.values, y = input.values;
      EXPECT_EQ(a.Encode(x), b.Encode(y)) << input.name;
      EXPECT_TRUE(SameBits(x, y)) << input.name;
    }
  }
}

TEST_P(CompressorContract, PendingAddendEqualsMaterialized) {
  for (const auto& shape : Shapes()) {
    CodecUnderTest a(name(), shape), b(name(), shape);
    const size_t n = static_cast<size_t>(a.spec.numel());
    const auto g = RandomFloats(n, 5);
    for (const float scale : {1.0f, -0.3f}) {
      for (const Input& input : Inputs(a.spec.numel())) {
        std::vector<float> x = input.values, y = input.values;
        const Bytes pending = a.Encode(x, g.data(), scale);
        AddScaled(ViewOf(y), {const_cast<float*>(g.data()), DType::kF32, a.spec.numel()}, scale);
        EXPECT_EQ(pending, b.Encode(y)) << input.name << " " << testing::PrintToString(shape);
        EXPECT_TRUE(SameBits(x, y)) << input.name;
      }
    }
  }
}

TEST_P(CompressorContract, DecodeAddsScaled) {
  for (const auto& shape : Shapes()) {
    CodecUnderTest codec(name(), shape);
    const size_t n = static_cast<size_t>(codec.spec.numel());
    std::vector<float> x = RandomFloats(n, 6);
    const Bytes body = codec.Encode(x);
    const auto once = codec.Decode(body);
    std::vector<float> out(n, 1.0f);
    ASSERT_TRUE(codec.DecodeAdd(body, -0.5f, out).ok());
    for (size_t i = 0; i < n; ++i) {
      ASSERT_NEAR(out[i], 1.0f - 0.5f * once[i], 1e-6 * (1 + std::fabs(once[i])));
    }
  }
}

// Refused, or decoded to something, but nothing beyond the output is written and a refused body
// leaves the output alone.
void DecodeGuarded(CodecUnderTest& codec, const Bytes& body, bool must_fail) {
  const size_t n = static_cast<size_t>(codec.spec.numel());
  constexpr size_t kGuard = 16;
  std::vector<float> out(n + 2 * kGuard, 7.0f);
  // An allocation of exactly this size: a sanitizer sees reads beyond it.
  const Bytes exact(body);
  const Status status = codec.DecodeAdd(exact, 1.0f, std::span<float>(out).subspan(kGuard, n));
  if (must_fail) {
    ASSERT_TRUE(absl::IsDataLoss(status)) << status;
  }
  for (size_t i = 0; i < out.size(); ++i) {
    const bool untouched = i < kGuard || i >= kGuard + n || !status.ok();
    ASSERT_TRUE(!untouched || out[i] == 7.0f) << i;
  }
}

TEST_P(CompressorContract, RefusesTruncatedAndExtendedBodies) {
  for (const auto& shape : Shapes()) {
    CodecUnderTest codec(name(), shape);
    std::vector<float> x = RandomFloats(static_cast<size_t>(codec.spec.numel()), 7);
    const Bytes body = codec.Encode(x);
    for (size_t size = 0; size < body.size(); size += 1 + body.size() / 40) {
      DecodeGuarded(codec, Bytes(body.begin(), body.begin() + static_cast<ptrdiff_t>(size)), true);
    }
    for (const size_t more : {1, 4, 8, 64}) {
      Bytes longer(body.size() + more);
      std::copy(body.begin(), body.end(), longer.begin());
      DecodeGuarded(codec, longer, true);
    }
    if (HasFatalFailure()) return;
  }
}

TEST_P(CompressorContract, SurvivesFlippedAndRandomBodies) {
  const auto stream = RngStream::Of(1, RngPurpose::kTest, 2, 0, 0);
  for (const auto& shape : Shapes()) {
    CodecUnderTest codec(name(), shape);
    std::vector<float> x = RandomFloats(static_cast<size_t>(codec.spec.numel()), 8);
    const Bytes body = codec.Encode(x);
    if (body.empty()) continue;
    for (uint64_t trial = 0; trial < 100; ++trial) {
      Bytes bad = body;
      if (trial % 4 == 0) {
        for (size_t i = 0; i < bad.size(); ++i)
          bad[i] = static_cast<uint8_t>(stream.U64(i + trial));
      } else {
        // Headers are where it hurts: half of the flips go there.
        const size_t reach = trial % 2 ? std::min<size_t>(bad.size(), 16) : bad.size();
        const uint64_t r = stream.U64(trial);
        bad[(r >> 8) % reach] ^= static_cast<uint8_t>(1u << (r & 7));
      }
      DecodeGuarded(codec, bad, false);
    }
    if (HasFatalFailure()) return;
  }
}

// The mean of N draws is within 5 sqrt(omega / N) ||x|| of x.
TEST_P(CompressorContract, UnbiasedMeansUnbiased) {
  for (const ConfigKeys& keys : {ConfigKeys{}, ConfigKeys{{"mode", std::string("unbiased")}}}) {
    const auto* entry = Registry<Compressor>::Get().Find(name());
    const bool has_mode =
        std::any_of(entry->fields.begin(), entry->fields.end(), [](const FieldInfo& field) {
          return field.key == "mode" && field.range.find("unbiased") != std::string::npos;
        });
    if (!keys.empty() && !has_mode) continue;
    for (const auto& shape : Shapes()) {
      CodecUnderTest codec(name(), shape, keys);
      if (!codec.codec->traits().unbiased || codec.spec.numel() == 0) continue;
      const double omega = codec.codec->Omega(codec.spec);
      ASSERT_TRUE(std::isfinite(omega));
      const std::vector<float> x = RandomFloats(static_cast<size_t>(codec.spec.numel()), 9);
      constexpr int kDraws = 300;
      std::vector<double> error(x.begin(), x.end());
      const double norm2 = Norm2(error);
      double variance = 0;
      for (int draw = 0; draw < kDraws; ++draw) {
        codec.context.step = static_cast<uint64_t>(draw);
        std::vector<float> buffer = x;
        const auto decoded = codec.Decode(codec.Encode(buffer));
        for (size_t i = 0; i < x.size(); ++i) error[i] -= decoded[i] / double{kDraws};
        variance += Norm2({buffer.begin(), buffer.end()}) / kDraws;
      }
      EXPECT_LE(std::sqrt(Norm2(error)),
                5 * std::sqrt(omega * norm2 / kDraws) + 1e-6 * std::sqrt(norm2))
          << testing::PrintToString(shape);
      // Omega itself, with room for the spread of 300 draws.
      EXPECT_LE(variance, omega * norm2 * 1.3 + 1e-12 * norm2) << testing::PrintToString(shape);
    }
  }
}

TEST_P(CompressorContract, TraitsHoldTogether) {
  CodecUnderTest codec(name(), {64, 48});
  const CompressorTraits& traits = codec.codec->traits();
  EXPECT_FALSE(traits.merges.empty());
  EXPECT_GE(traits.rounds, 1);
  EXPECT_GT(Registry<Compressor>::Get().Find(name())->wire_id, 0);
  if (traits.unbiased) {
    EXPECT_TRUE(std::isfinite(codec.codec->Omega(codec.spec)));
  } else {
    EXPECT_TRUE(std::isinf(codec.codec->Omega(codec.spec)));
  }
  const bool reencodes = std::find(traits.merges.begin(), traits.merges.end(), Merge::kReencode) !=
                         traits.merges.end();
  EXPECT_TRUE(!reencodes || traits.block);
  const int64_t block = codec.codec->BlockElements();
  EXPECT_GE(block, 1);
  if (traits.block) {
    // Adjacent chunks on the block grid concatenate.
    EXPECT_EQ(codec.codec->ChunkBytes(3 * block) + codec.codec->ChunkBytes(block / 2),
              codec.codec->ChunkBytes(3 * block + block / 2));
    EXPECT_EQ(codec.codec->ChunkBytes(64 * 48), codec.codec->MaxEncodedBytes(codec.spec, 0));
  }
}

INSTANTIATE_TEST_SUITE_P(Registry, CompressorContract,
                         testing::ValuesIn(Registry<Compressor>::Get().names()),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace tw
