#pragma once
// Three small codecs with the shapes that the exchanges care about: raw (summable, lossless, any
// dtype), nonzero (bodies of varying length) and byteblock (block codec).

#include <cmath>
#include <cstring>

#include "core/api/convert.h"
#include "core/api/exchange.h"

namespace tw {

class FakeCodec : public Compressor {
 public:
  explicit FakeCodec(CompressorTraits traits) : traits_(std::move(traits)) {}
  const CompressorTraits& traits() const override { return traits_; }
  double Delta(const TensorSpec&) const override { return 0; }
  double Omega(const TensorSpec&) const override { return 0; }

 protected:
  // message[i] with the pending addition.
  static float At(const MessageView& m, size_t i) {
    return m.buffer[i] + (m.addend ? m.scale * m.addend[i] : 0.0f);
  }

 private:
  CompressorTraits traits_;
};

// The message's own bytes.
class RawCodec : public FakeCodec {
 public:
  RawCodec()
      : FakeCodec({.merges = {Merge::kSum, Merge::kGather},
                   .exact_sum = true,
                   .fixed_size = true,
                   .lossless = true}) {}
  int64_t MaxEncodedBytes(const TensorSpec& spec, int) const override {
    return spec.numel() * DTypeBytes(spec.dtype);
  }
  StatusOr<int64_t> EncodeRound(int, ByteSpan, const MessageView& message, const CodecContext&,
                                MutableByteSpan body) const override {
    for (size_t i = 0; i < message.buffer.size(); ++i) {
      StoreLE(body.data() + 4 * i, At(message, i));
      message.buffer[i] = 0;
    }
    return 4 * message.numel();
  }
  Status DecodeAdd(ByteSpan body, float scale, const CodecContext&,
                   std::span<float> out) const override {
    if (body.size() != out.size() * 4) return DataLoss("raw: wrong length");
    for (size_t i = 0; i < out.size(); ++i) out[i] += scale * LoadLE<float>(body.data() + 4 * i);
    return OkStatus();
  }
  StatusOr<int64_t> EncodeAny(int, ByteSpan, Message& message, const CodecContext&,
                              MutableByteSpan body) const override {
    message.Materialize();
    const ByteSpan raw = message.buffer.raw();
    if (!raw.empty()) std::memcpy(body.data(), raw.data(), raw.size());
    FillZero(message.buffer);
    return static_cast<int64_t>(raw.size());
  }
  Status DecodeAddAny(ByteSpan body, float scale, const CodecContext& context,
                      TensorView out) const override {
    TensorView from = out;
    from.data = const_cast<uint8_t*>(body.data());
    if (static_cast<int64_t>(body.size()) != out.bytes()) return DataLoss("raw: wrong length");
    AddScaled(out, from, scale);
    return OkStatus();
  }
};

// (u32 index, f32 value) of every element that is not zero.
class NonzeroCodec : public FakeCodec {
 public:
  NonzeroCodec() : FakeCodec({.merges = {Merge::kGather, Merge::kSparse}}) {}
  int64_t MaxEncodedBytes(const TensorSpec& spec, int) const override { return 8 * spec.numel(); }
  StatusOr<int64_t> EncodeRound(int, ByteSpan, const MessageView& message, const CodecContext&,
                                MutableByteSpan body) const override {
    int64_t at = 0;
    for (size_t i = 0; i < message.buffer.size(); ++i) {
      const float value = At(message, i);
      message.buffer[i] = 0;
      if (value == 0) continue;
      StoreLE(body.data() + at, static_cast<uint32_t>(i));
      StoreLE(body.data() + at + 4, value);
      at += 8;
    }
    return at;
  }
  Status DecodeAdd(ByteSpan body, float scale, const CodecContext&,
                   std::span<float> out) const override {
    if (body.size() % 8 != 0) return DataLoss("nonzero: wrong length");
    for (size_t at = 0; at < body.size(); at += 8) {
      const uint32_t i = LoadLE<uint32_t>(body.data() + at);
      if (i >= out.size()) return DataLoss("nonzero: index out of range");
      out[i] += scale * LoadLE<float>(body.data() + at + 4);
    }
    return OkStatus();
  }
  StatusOr<size_t> ListEntries(ByteSpan body, const CodecContext& context,
                               std::span<kernels::IndexedValue> out) const override {
    const size_t count = body.size() / 8;
    for (size_t j = 0; count <= out.size() && j < count; ++j) {
      const uint32_t index = LoadLE<uint32_t>(body.data() + 8 * j);
      if (index >= context.spec->numel()) return DataLoss("nonzero: index out of range");
      out[j] = kernels::MakeIndexedValue(index, LoadLE<float>(body.data() + 8 * j + 4));
    }
    return count;
  }
};

// Blocks of 4: f32 scale, then one signed byte an element; the last block may be short. On the
// second hop the rounding is shifted by a number of (parameter, offset), as stochastic codecs do.
class ByteBlockCodec : public FakeCodec {
 public:
  ByteBlockCodec()
      : FakeCodec(
            {.merges = {Merge::kReencode, Merge::kGather}, .block = true, .fixed_size = true}) {}
  int64_t BlockElements() const override { return 4; }
  int64_t ChunkBytes(int64_t numel) const override { return (numel + 3) / 4 * 4 + numel; }
  int64_t MaxEncodedBytes(const TensorSpec& spec, int) const override {
    return ChunkBytes(spec.numel());
  }
  StatusOr<int64_t> EncodeRound(int, ByteSpan, const MessageView& message,
                                const CodecContext& context, MutableByteSpan body) const override {
    const float shift = context.second_hop ? context.OwnStream().Uniform(0) : 0.5f;
    size_t at = 0;
    const size_t n = message.buffer.size();
    for (size_t begin = 0; begin < n; begin += 4) {
      const size_t end = std::min(n, begin + 4);
      float largest = 0;
      for (size_t i = begin; i < end; ++i) largest = std::max(largest, std::abs(At(message, i)));
      const float scale = largest / 126.0f;
      StoreLE(body.data() + at, scale);
      at += 4;
      for (size_t i = begin; i < end; ++i) {
        const float value = At(message, i);
        const float code = scale > 0 ? std::floor(value / scale + shift) : 0.0f;
        body[at++] = static_cast<uint8_t>(static_cast<int8_t>(code));
        message.buffer[i] = value - scale * code;
      }
    }
    return static_cast<int64_t>(at);
  }
  Status DecodeAdd(ByteSpan body, float scale, const CodecContext&,
                   std::span<float> out) const override {
    if (static_cast<int64_t>(body.size()) != ChunkBytes(static_cast<int64_t>(out.size()))) {
      return DataLoss("byteblock: wrong length");
    }
    size_t at = 0;
    for (size_t begin = 0; begin < out.size(); begin += 4) {
      const float unit = LoadLE<float>(body.data() + at);
      at += 4;
      for (size_t i = begin; i < std::min(out.size(), begin + 4); ++i) {
        out[i] += scale * (unit * static_cast<float>(static_cast<int8_t>(body[at++])));
      }
    }
    return OkStatus();
  }
};

}  // namespace tw
