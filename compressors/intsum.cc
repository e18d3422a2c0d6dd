// intsum: integers of a scale that all ranks share; their sums travel as integers (Global-QSGD:
// Xin, Canini, Richtarik, Horvath, arXiv 2305.18627; THC: Li et al., NSDI 2024, arXiv 2302.08545).
//
//   round 0   s_b = largest |y_i| of block b, over ranks
//   round 1   q_i = y_i * L / s_b, rounded up or down at random so that the mean is right,
//             in [-L, L] with L = floor(127 / ranks), so that a sum over ranks fits in a byte
//   decode    y_i = s_b / L * (sum of q_i)
//   y = x, or with rotate = true  y = H D x / sqrt(B) in each block of B: random signs D and the
//   Hadamard matrix H spread large elements over the block, and a block has fewer idle levels. The
//   last block is padded with zeros to the next power of two, and so many codes travel.
//
// Both hops of the exchange send a byte an element, whatever the number of ranks; the levels of a
// rank grow fewer with it: 63 at 2 ranks, 15 at 8, 1 from 64 to 127. Unbiased given the scale; the
// error is a part of the largest magnitude of any rank, so a message has neither contraction nor
// variance of its own. Bodies: round 0 fp32 s_b, the largest over ranks comes back; round 1 two's
// complement bytes, added up. State: "scale" fp32 [blocks], between round 1 and decoding,
// replicated. Left out: THC's table of uneven levels; wider sums.

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "core/api/compressor.h"
#include "core/kernels/device_kernels.h"
#include "core/kernels/elementwise.h"
#include "core/kernels/shared_scale.h"

namespace tw {
namespace {

struct IntSumConfig {
  int64_t block = 1024;
  bool rotate = false;
  static FieldList<IntSumConfig> Fields() {
    return FieldList<IntSumConfig>()
        .Int("block", &IntSumConfig::block, {8, 65536},
             "elements that share a scale, a power of two")
        .Bool("rotate", &IntSumConfig::rotate,
              "randomized Hadamard rotation of each block before it is rounded");
  }
};

constexpr int kMostCode = 127;  // of a sum

// Whole blocks: elements [begin, begin + numel), codes [begin, begin + codes), scales [first_block,
// first_block + blocks).
struct Piece {
  size_t begin = 0, numel = 0, codes = 0, first_block = 0, blocks = 0;
};

class IntSum : public Compressor {
 public:
  static StatusOr<std::unique_ptr<Compressor>> Create(const IntSumConfig& config) {
    if (!std::has_single_bit(static_cast<uint64_t>(config.block))) {
      return ConfigError("compressor.block = " + std::to_string(config.block) +
                         " is not a power of two");
    }
    return std::unique_ptr<Compressor>(new IntSum(config));
  }

  const CompressorTraits& traits() const override { return traits_; }
  double Delta(const TensorSpec&) const override { return 0; }
  double Omega(const TensorSpec&) const override { return std::numeric_limits<double>::infinity(); }
  int64_t MaxEncodedBytes(const TensorSpec& spec, int round) const override {
    const size_t d = static_cast<size_t>(spec.numel());
    return static_cast<int64_t>(round == 0 ? ScaleBytes(d) : CodeBytes(d));
  }

  StatusOr<int64_t> EncodeRound(int round, ByteSpan reduced, const MessageView& message,
                                const CodecContext& context, MutableByteSpan body) const override {
    const size_t d = message.buffer.size();
    if (round == 0) {
      if (message.addend) {
        kernels::AddInPlace(message.buffer, message.scale, {message.addend, d});
      }
      // Bodies lie at any address.
      const auto scales = context.scratch->Get<float>(kScratchCodec3, NumBlocks(d));
      ForEachPiece(d, [&](const Piece& p) {
        kernels::LargestOfBlocks(Rotated(message.buffer, p, context), config_.block,
                                 scales.subspan(p.first_block, p.blocks));
      });
      CopyBytes(body.data(), scales.data(), scales.size_bytes());
      return static_cast<int64_t>(ScaleBytes(d));
    }
    const int levels = Levels(context);
    if (levels < 1) {
      return ConfigError("intsum: sums of a byte hold " + std::to_string(kMostCode) +
                         " ranks, these are " + std::to_string(context.world_size));
    }
    if (reduced.size() != ScaleBytes(d)) return DataLoss("intsum: scales of the wrong length");
    const std::span<float> scales = Scales(d, context);
    CopyBytes(scales.data(), reduced.data(), reduced.size());
    TW_RETURN_IF_ERROR(CheckScales(scales));
    const uint64_t key = context.OwnStream().key;
    ForEachPiece(d, [&](const Piece& p) {
      const std::span<int8_t> codes(reinterpret_cast<int8_t*>(body.data()) + p.begin, p.codes);
      kernels::RoundToCodes(Rotated(message.buffer, p, context), config_.block,
                            scales.subspan(p.first_block, p.blocks), levels, key, p.begin, codes);
      kernels::AddInPlace(message.buffer.subspan(p.begin, p.numel), -1.0f,
                          Values(codes, scales, levels, p, context));
    });
    return static_cast<int64_t>(CodeBytes(d));
  }

  Status DecodeAdd(ByteSpan body, float scale, const CodecContext& context,
                   std::span<float> out) const override {
    const size_t d = out.size();
    if (body.size() != CodeBytes(d)) {
      return DataLoss("intsum: body of " + std::to_string(body.size()) + " bytes, expected " +
                      std::to_string(CodeBytes(d)));
    }
    const std::span<const float> scales = Scales(d, context);
    const int levels = std::max(1, Levels(context));
    ForEachPiece(d, [&](const Piece& p) {
      const std::span<const int8_t> codes(reinterpret_cast<const int8_t*>(body.data()) + p.begin,
                                          p.codes);
      kernels::AddInPlace(out.subspan(p.begin, p.numel), scale,
                          Values(codes, scales, levels, p, context));
    });
    return OkStatus();
  }

 private:
  explicit IntSum(const IntSumConfig& config)
      : config_(config),
        traits_{.merges = {Merge::kSum},
                .exact_sum = true,
                .fixed_size = true,
                .rounds = 2,
                .sum_dtype = DType::kU8,
                .max_first = true,
                .most_ranks = kMostCode} {}

  size_t BlockSize() const { return static_cast<size_t>(config_.block); }
  static int Levels(const CodecContext& context) { return kMostCode / context.world_size; }
  size_t NumBlocks(size_t d) const { return (d + BlockSize() - 1) / BlockSize(); }
  size_t ScaleBytes(size_t d) const { return NumBlocks(d) * sizeof(float); }
  size_t CodesOf(size_t numel) const { return config_.rotate ? std::bit_ceil(numel) : numel; }
  size_t CodeBytes(size_t d) const {
    const size_t tail = d % BlockSize();
    return d - tail + (tail ? CodesOf(tail) : 0);
  }

  // A block at a time, which stays in cache; on a device all of them.
  template <class F>
  void ForEachPiece(size_t d, F&& f) const {
    const size_t most = kernels::OnDevice() ? d : BlockSize();
    Piece p;
    for (; p.begin < d; p.begin += most, ++p.first_block) {
      p.numel = std::min(most, d - p.begin);
      p.codes = CodeBytes(p.numel);
      p.blocks = NumBlocks(p.numel);
      f(p);
    }
  }

  static Status CheckScales(std::span<float> scales) {
    if (kernels::DeviceKernels* device = kernels::OnDevice()) {
      device->CheckFinite(ViewOf(scales));
      return OkStatus();
    }
    for (const float s : scales) {
      if (!(s >= 0 && std::isfinite(s))) return DataLoss("intsum: a scale is not a finite number");
    }
    return OkStatus();
  }

  std::span<float> Scales(size_t d, const CodecContext& context) const {
    const TensorView slot = context.state->Slot("scale", {static_cast<int64_t>(NumBlocks(d))},
                                                DType::kF32, Reshard::kReplicated);
    return slot.f32();
  }

  // The blocks as they are rounded.
  std::span<const float> Rotated(std::span<const float> x, const Piece& p,
                                 const CodecContext& context) const {
    const auto own = x.subspan(p.begin, p.numel);
    if (!config_.rotate) return own;
    const auto y = context.scratch->Get<float>(kScratchCodec0, p.codes);
    CopyBytes(y.data(), own.data(), own.size_bytes());
    ZeroBytes(y.data() + p.numel, (p.codes - p.numel) * sizeof(float));
    kernels::RotateBlocks(y, config_.block, context.SharedStream().key, p.begin);
    return y;
  }

  // What the codes stand for, without the padding's.
  std::span<const float> Values(std::span<const int8_t> codes, std::span<const float> scales,
                                int levels, const Piece& p, const CodecContext& context) const {
    const auto value = context.scratch->Get<float>(kScratchCodec2, p.codes);
    kernels::ValuesOfCodes(codes, config_.block, scales.subspan(p.first_block, p.blocks), levels,
                           value);
    if (config_.rotate) {
      kernels::RotateBlocksBack(value, config_.block, context.SharedStream().key, p.begin);
    }
    return value.first(p.numel);
  }

  IntSumConfig config_;
  CompressorTraits traits_;
};

TW_REGISTER(Compressor, intsum, /*wire_id=*/15, IntSumConfig, IntSum::Create,
            "integers of a shared scale, added up as integers; optional rotation");

}  // namespace
}  // namespace tw
