#pragma once
// A codec with everything it needs around it, for tests: spec, state, scratch, one rank.

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/api/compressor.h"
#include "core/base/config_value.h"

namespace tw {

using ConfigKeys = std::vector<std::pair<std::string, FieldValue>>;

class CodecUnderTest {
 public:
  CodecUnderTest(const std::string& name, std::vector<int64_t> shape, const ConfigKeys& keys = {},
                 DType dtype = DType::kF32)
      : state(&bag, "codec/w/") {
    ConfigSection section;
    section.name = "compressor";
    section.Set("name", name);
    for (const auto& [key, value] : keys) section.Set(key, value);
    auto made = Registry<Compressor>::Get().Make(section, name);
    TW_CHECK_OK(made);
    codec = std::move(made).value();
    spec = {.id = 3, .name = "w", .shape = std::move(shape), .dtype = dtype};
    context.spec = &spec;
    context.seed = 17;
    context.step = 5;
    context.state = &state;
    context.scratch = &scratch;
  }

  // The body of the last round; `buffer` becomes the residual. More rounds run as a world of one:
  // what was sent comes back as the sum.
  std::vector<uint8_t> Encode(std::span<float> buffer, const float* addend = nullptr,
                              float scale = 1.0f) {
    Message message{ViewOf(buffer), {}, scale};
    if (addend) {
      message.addend = {const_cast<float*>(addend), DType::kF32,
                        static_cast<int64_t>(buffer.size())};
    }
    return EncodeMessage(message);
  }
  std::vector<uint8_t> EncodeMessage(Message& message) {
    std::vector<uint8_t> body, reduced;
    for (int round = 0; round < codec->traits().rounds; ++round) {
      reduced = body;
      body.assign(static_cast<size_t>(codec->MaxEncodedBytes(spec, round)) + kGuard, 0xC7);
      const auto size = codec->EncodeAny(round, reduced, message, context,
                                         MutableByteSpan(body).first(body.size() - kGuard));
      TW_CHECK_OK(size);
      TW_CHECK_LE(*size, static_cast<int64_t>(body.size() - kGuard));
      for (size_t i = body.size() - kGuard; i < body.size(); ++i) TW_CHECK_EQ(int{body[i]}, 0xC7);
      body.resize(static_cast<size_t>(*size));
    }
    return body;
  }

  Status DecodeAdd(ByteSpan body, float scale, std::span<float> out) {
    return codec->DecodeAddAny(body, scale, context, ViewOf(out));
  }
  std::vector<float> Decode(ByteSpan body) {
    std::vector<float> out(static_cast<size_t>(spec.numel()));
    TW_CHECK_OK(DecodeAdd(body, 1.0f, out));
    return out;
  }

  static constexpr size_t kGuard = 64;
  std::unique_ptr<Compressor> codec;
  TensorSpec spec;
  StateBag bag;
  StateScope state;
  Workspace scratch;
  CodecContext context;
};

// Refused with DataLoss and nothing written.
inline void ExpectDataLoss(CodecUnderTest& codec, ByteSpan body) {
  std::vector<float> out(static_cast<size_t>(codec.spec.numel()), 7.0f);
  const Status status = codec.DecodeAdd(body, 1.0f, out);
  EXPECT_TRUE(absl::IsDataLoss(status)) << status;
  EXPECT_EQ(out, std::vector<float>(out.size(), 7.0f));
}

}  // namespace tw
