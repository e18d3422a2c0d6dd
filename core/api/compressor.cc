#include "core/api/compressor.h"

#include <algorithm>

#include "core/api/convert.h"
#include "core/kernels/reduce.h"

namespace tw {

const char* MergeName(Merge merge) {
  switch (merge) {
    case Merge::kSum:
      return "sum";
    case Merge::kGather:
      return "gather";
    case Merge::kReencode:
      return "reencode";
    case Merge::kSparse:
      return "sparse";
  }
  return "?";
}

void Message::Materialize() {
  if (!addend.data) return;
  AddScaled(buffer, addend, scale);
  addend = {};
}

RngStream CodecContext::OwnStream() const {
  if (second_hop) {
    return RngStream::Of(seed, RngPurpose::kReencode, step, spec->id, kSharedRank);
  }
  return RngStream::Of(seed, RngPurpose::kEncode, step, spec->id, static_cast<uint32_t>(rank));
}

RngStream CodecContext::SharedStream() const {
  return RngStream::Of(seed, RngPurpose::kEncodeShared, step, spec->id, kSharedRank);
}

StatusOr<int64_t> Compressor::EncodeAny(int round, ByteSpan reduced, Message& message,
                                        const CodecContext& context, MutableByteSpan body) const {
  if (message.buffer.dtype == DType::kF32) {
    if (message.addend.data && message.addend.dtype != DType::kF32) message.Materialize();
    MessageView view{message.buffer.f32(), static_cast<const float*>(message.addend.data),
                     message.scale};
    auto size = EncodeRound(round, reduced, view, context, body);
    message.addend = {};  // round 0 has performed the addition
    return size;
  }
  message.Materialize();
  const auto copy =
      context.scratch->Get<float>(kScratchMessage, static_cast<size_t>(message.buffer.numel));
  ConvertToFp32(message.buffer, copy);
  TW_ASSIGN_OR_RETURN(const int64_t size,
                      EncodeRound(round, reduced, {copy, nullptr, 1.0f}, context, body));
  if (round + 1 == traits().rounds) ReplaceByResidual(message.buffer, copy);
  return size;
}

Status Compressor::OptionErrors(std::span<const Compressor* const> options,
                                std::span<const float> message, const CodecContext& context,
                                std::span<double> squared) const {
  TW_CHECK_EQ(options.size(), squared.size());
  const auto copy = context.scratch->Get<float>(kScratchMessage, message.size());
  for (size_t i = 0; i < options.size(); ++i) {
    const Compressor& codec = *options[i];
    std::copy(message.begin(), message.end(), copy.begin());
    ByteSpan reduced;  // of a world of one
    for (int round = 0; round < codec.traits().rounds; ++round) {
      const auto body = context.scratch->Get<uint8_t>(
          kScratchSend0 + round % 2,
          static_cast<size_t>(codec.MaxEncodedBytes(*context.spec, round)));
      TW_ASSIGN_OR_RETURN(const int64_t size,
                          codec.EncodeRound(round, reduced, {copy, nullptr, 1.0f}, context, body));
      reduced = body.first(static_cast<size_t>(size));
    }
    squared[i] = kernels::SumOfSquares(copy);
  }
  return OkStatus();
}

StatusOr<size_t> Compressor::ListEntries(ByteSpan, const CodecContext&,
                                         std::span<kernels::IndexedValue>) const {
  TW_CHECK(false && "a codec that lists kSparse lists its entries");
  return size_t{0};
}

Status Compressor::DecodeAddAny(ByteSpan body, float scale, const CodecContext& context,
                                TensorView out) const {
  if (out.dtype == DType::kF32) return DecodeAdd(body, scale, context, out.f32());
  const auto copy = context.scratch->Get<float>(kScratchMessage, static_cast<size_t>(out.numel));
  FillZero(ViewOf(copy));
  // Scaled on the way out: in fp64 for an fp64 output, which loses no bit of what was decoded.
  TW_RETURN_IF_ERROR(DecodeAdd(body, 1.0f, context, copy));
  AddScaled(out, ViewOf(copy), scale);
  return OkStatus();
}

}  // namespace tw
