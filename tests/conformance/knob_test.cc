// Every registered compressor with a knob: its values make codecs through the registry, more of it
// means more bytes, and what it says about errors is what encoding shows.

#include "core/api/knob.h"

#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "core/kernels/reduce.h"
#include "tests/compressors/codec_under_test.h"
#include "tests/core/kernels/sample_data.h"

namespace tw {
namespace {

class WithKnob : public ::testing::TestWithParam<std::string> {};

std::vector<std::string> CompressorsWithKnob() {
  std::vector<std::string> out;
  for (const std::string& name : Registry<Compressor>::Get().names()) {
    auto codec = Registry<Compressor>::Get().Find(name)->make(ConfigSection{});
    TW_CHECK_OK(codec);
    if ((*codec)->traits().knob.exists()) out.push_back(name);
  }
  return out;
}

struct Siblings {
  std::vector<double> values;
  std::vector<std::unique_ptr<Compressor>> codecs;
  std::vector<const Compressor*> pointers;
};

Siblings SiblingsOf(const std::string& name, const Knob& knob) {
  Siblings out;
  out.values = knob.Options(0.25, 4, 6);
  for (const double v : out.values) {
    ConfigSection section;
    section.Set("name", name);
    section.Set(knob.key, knob.Setting(v));
    auto made = Registry<Compressor>::Get().Make(section, name);
    TW_CHECK_OK(made);
    out.codecs.push_back(std::move(made).value());
    out.pointers.push_back(out.codecs.back().get());
  }
  return out;
}

TEST_P(WithKnob, ItsValueIsWhatTheConfigSays) {
  const CodecUnderTest h(GetParam(), {48, 40});
  const Knob& knob = h.codec->traits().knob;
  EXPECT_GE(knob.value, knob.low);
  EXPECT_LE(knob.value, knob.high);
  const Siblings siblings = SiblingsOf(GetParam(), knob);
  ASSERT_GE(siblings.values.size(), 3u);
  for (size_t i = 0; i < siblings.values.size(); ++i) {
    EXPECT_EQ(siblings.codecs[i]->traits().knob.value, siblings.values[i]);
    EXPECT_EQ(siblings.codecs[i]->traits().knob.key, knob.key);
  }
}

TEST_P(WithKnob, MoreOfItMeansMoreBytes) {
  const CodecUnderTest h(GetParam(), {48, 40});
  int64_t before = 0;
  for (const auto& codec : SiblingsOf(GetParam(), h.codec->traits().knob).codecs) {
    int64_t bytes = 0;
    for (int r = 0; r < codec->traits().rounds; ++r) bytes += codec->MaxEncodedBytes(h.spec, r);
    EXPECT_GT(bytes, before);
    before = bytes;
  }
}

TEST_P(WithKnob, OptionErrorsAreThoseOfEncoding) {
  CodecUnderTest h(GetParam(), {48, 40});
  const Siblings siblings = SiblingsOf(GetParam(), h.codec->traits().knob);
  const std::vector<float> message = RandomFloats(48 * 40, 7);
  const std::vector<float> before = message;
  std::vector<double> said(siblings.pointers.size(), -1);
  ASSERT_TRUE(h.codec->OptionErrors(siblings.pointers, message, h.context, said).ok());
  EXPECT_EQ(message, before);

  // Medians over 21 steps of a warm codec on the same message: random ones scatter, PowerSGD's Q
  // gets good.
  const double whole = kernels::SumOfSquares(message);
  for (size_t i = 0; i < siblings.pointers.size(); ++i) {
    CodecUnderTest encoder(
        GetParam(), {48, 40},
        {{h.codec->traits().knob.key, h.codec->traits().knob.Setting(siblings.values[i])}});
    std::vector<double> found;
    for (uint64_t step = 0; step < 21; ++step) {
      encoder.context.step = step;
      std::vector<float> residual = message;
      const auto body = encoder.Encode(residual);
      encoder.context.mean = true;
      (void)encoder.Decode(body);
      found.push_back(kernels::SumOfSquares(residual));
    }
    std::sort(found.begin(), found.end());
    EXPECT_GE(said[i], 0);
    EXPECT_NEAR(said[i], found[10], 0.08 * found[10] + 1e-6 * whole)
        << GetParam() << " " << siblings.values[i];
  }
}

TEST_P(WithKnob, ZerosAndNothingHaveNoError) {
  for (const std::vector<int64_t>& shape : {std::vector<int64_t>{8, 6}, std::vector<int64_t>{0}}) {
    CodecUnderTest h(GetParam(), shape);
    const Siblings siblings = SiblingsOf(GetParam(), h.codec->traits().knob);
    const std::vector<float> message(static_cast<size_t>(h.spec.numel()), 0.0f);
    std::vector<double> said(siblings.pointers.size(), -1);
    ASSERT_TRUE(h.codec->OptionErrors(siblings.pointers, message, h.context, said).ok());
    for (const double s : said) EXPECT_EQ(s, 0);
  }
}

INSTANTIATE_TEST_SUITE_P(Registered, WithKnob, ::testing::ValuesIn(CompressorsWithKnob()),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace tw
