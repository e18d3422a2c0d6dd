#pragma once
// Compressor: turns a message into a body of bytes and adds a decoded body to a buffer.
//
// Compressors are immutable and thread safe; what changes between steps (PowerSGD's Q) lives in the
// state bag. They see fp32 spans and bytes, never LibTorch, and never know who sends the bytes or
// which feedback is around them.
//
// Rounds. Most codecs have one. PowerSGD has two (P, then Q): round r gets the bytes that round r-1
// became after the exchange summed them over ranks. Nothing is decodable before the last round.
//
// The residual rule. After the last round Encode has left message - decode(own body) in the message
// buffer. EF14 keeps its error in that very buffer, so error feedback costs no copy.
//
// Bodies are little-endian, self-contained for Merge::kGather, and rejected with DataLoss when
// malformed: every length, index and count is checked before a write. numel 0 gives an empty body.
// Input is finite (the engine checks and agrees).

#include <cstdint>
#include <string>
#include <vector>

#include "core/api/knob.h"
#include "core/base/registry.h"
#include "core/base/rng.h"
#include "core/base/state_bag.h"
#include "core/base/tensor_view.h"
#include "core/base/workspace.h"
#include "core/kernels/message_view.h"
#include "core/kernels/topk.h"

namespace tw {

// How payloads of several ranks combine.
enum class Merge : uint8_t {
  kSum = 0,     // bodies add up element by element
  kGather = 1,  // everybody gets every framed body and adds them in rank order
  kReencode =
      2,        // each rank adds one chunk of everybody's, encodes the sum again, everybody gathers
  kSparse = 3,  // balanced O(k) reduce of index/value lists
};
const char* MergeName(Merge merge);

struct CompressorTraits {
  std::vector<Merge>
      merges;  // best first; the plan takes the first that feedback and communicator accept too
  bool unbiased = false;  // E decode(encode(x)) == x
  // Omega is no bound but the variance itself, whatever x: at Omega >= 1 nothing contracts, and the
  // plan refuses feedback that needs it.
  bool exact_omega = false;
  bool exact_sum =
      false;  // kSum keeps the mean of the bodies to fp32 rounding (the ef21 family needs that)
  bool block = false;  // scales local to a block: a chunk cut on the block grid encodes on its own
  // A second encoding loses so much that kReencode is only taken with compressor.hop_feedback.
  bool hop_needs_feedback = false;
  bool fixed_size = false;   // body bytes depend on numel only
  bool matrix_only = false;  // other shapes travel dense
  bool lossless = false;     // decode(encode(x)) == x bit for bit
  int rounds = 1;
  DType sum_dtype = DType::kF32;  // element type of a summable body
  bool max_first = false;         // kSum: round 0's body is fp32 and becomes the largest over ranks
  int most_ranks = 0;             // that it works among; 0: any number
  Knob knob = {};                 // the key that trades bytes for error
  // Why messages have to lie in the host's memory, as the end of a sentence; null: they need not.
  const char* host_only = nullptr;
};

// A message with a pending addition: message = buffer + scale * addend. See
// core/kernels/message_view.h.
struct Message {
  TensorView buffer;
  TensorView addend;  // data == nullptr: none. Its dtype may differ from the buffer's
  float scale = 1.0f;

  // Performs the pending addition in place; no-op without one.
  void Materialize();
};

// CodecContext::step of message number `turn` of a step: no two messages share random numbers.
inline uint64_t WireStep(uint64_t step, uint64_t turn) { return step + (turn << 48); }
inline uint64_t StepOfWire(uint64_t wire_step) { return wire_step & ((uint64_t{1} << 48) - 1); }

// Everything a codec may depend on besides its message.
struct CodecContext {
  const TensorSpec* spec = nullptr;
  uint64_t seed = 0;
  uint64_t step = 0;
  int rank = 0;
  int world_size = 1;
  int64_t offset = 0;  // first element of this chunk inside the parameter (block codecs, kReencode)
  bool second_hop = false;  // true while kReencode encodes the sum again
  bool mean = false;  // true while DecodeAdd gets what every rank gets: the sum of all bodies, with
                      // scale 1 / ranks. The moment to keep what ranks agree on (PowerSGD's Q)
  const StateScope* state = nullptr;  // "codec/<parameter>/"
  Workspace* scratch = nullptr;       // slots kScratchCodec0.. are the codec's

  // Own numbers; for the second hop shared, so that no owner is in them. The stream belongs to the
  // whole parameter: element i of a chunk draws number offset + i, and bits do not change with the
  // number of buckets, chunks or ranks.
  RngStream OwnStream() const;
  // The same on every rank.
  RngStream SharedStream() const;
};

class Compressor {
 public:
  virtual ~Compressor() = default;

  virtual const CompressorTraits& traits() const = 0;
  // Contraction: E||C(x)-x||^2 <= (1-delta)||x||^2. 0 when there is no such bound.
  virtual double Delta(const TensorSpec& spec) const = 0;
  // Variance of an unbiased codec: E||Q(x)-x||^2 <= omega ||x||^2. Infinity for biased ones.
  virtual double Omega(const TensorSpec& spec) const = 0;

  // An upper bound, and the exact size when traits().fixed_size.
  virtual int64_t MaxEncodedBytes(const TensorSpec& spec, int round) const = 0;
  // Elements per block of a block codec (a chunk may be cut at multiples of it); 1 otherwise.
  virtual int64_t BlockElements() const { return 1; }
  // Bytes of the body of a chunk of `numel` elements of a block codec; bodies of adjacent chunks
  // concatenate.
  virtual int64_t ChunkBytes(int64_t numel) const { return 0; }

  // Writes the body of `round` into `body` (at least MaxEncodedBytes long) and returns its size.
  // `reduced` is empty in round 0. Round 0 performs the pending addition (a one-round codec in the
  // pass that packs; one with more rounds leaves the sum in message.buffer). The last round leaves
  // the residual in message.buffer.
  virtual StatusOr<int64_t> EncodeRound(int round, ByteSpan reduced, const MessageView& message,
                                        const CodecContext& context,
                                        MutableByteSpan body) const = 0;
  // out += scale * decode(body). `body` is what one rank encoded, or for kSum possibly the sum over
  // ranks.
  virtual Status DecodeAdd(ByteSpan body, float scale, const CodecContext& context,
                           std::span<float> out) const = 0;

  // What decode(body) holds beside zeros: elements with strictly ascending indices. Returns how
  // many there are, and writes none where `out` has no room for all. Checks the body as DecodeAdd
  // does. Codecs that list Merge::kSparse override it.
  virtual StatusOr<size_t> ListEntries(ByteSpan body, const CodecContext& context,
                                       std::span<kernels::IndexedValue> out) const;

  // squared[i] = ||message - decode(encode(message))||^2 for options[i]: codecs of this name that
  // differ in their knob only. The default encodes a copy with each and takes the norm of what is
  // left; one that knows all of them from one pass overrides it. context.state and context.scratch
  // are the caller's own, not those of the run. `message` is finite.
  virtual Status OptionErrors(std::span<const Compressor* const> options,
                              std::span<const float> message, const CodecContext& context,
                              std::span<double> squared) const;
  // This codec takes a parameter over between two steps, from one of the same name with another
  // knob or from any other: state slots whose shape depends on the knob are brought into its own,
  // on all ranks alike. context.step is the first step it will encode.
  virtual void TakeOver(const CodecContext& context) const {}

  // EncodeRound and DecodeAdd for any dtype of message and output. The defaults go through an fp32
  // copy in scratch; `none` overrides them to send its input's own bytes (traits().lossless).
  virtual StatusOr<int64_t> EncodeAny(int round, ByteSpan reduced, Message& message,
                                      const CodecContext& context, MutableByteSpan body) const;
  virtual Status DecodeAddAny(ByteSpan body, float scale, const CodecContext& context,
                              TensorView out) const;
};

}  // namespace tw
