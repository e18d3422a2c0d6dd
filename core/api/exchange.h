#pragma once
// Exchange: how the bodies of one bucket become means. An implementation is for one Merge; the plan
// picks it by one look-up. Runs on the lane thread, where it waits for bytes without holding the
// thread: several buckets are under way at once. All ranks run the same exchanges on the same
// segments.
//
// Where the communicator carries memory of a device (Communicator::on_device) the thread is in a
// DeviceScope, and bodies, means and scratch are the device's: lengths and counts lie in
// Workspace::GetHost and travel over control(), bytes move through core/base/device.h and are added
// by kernels, as rows of a Together where there are many.

#include "core/api/communicator.h"
#include "core/api/compressor.h"
#include "core/base/clock.h"
#include "core/base/frame.h"

namespace tw {

// One parameter's part of a bucket on its way through an exchange.
struct Segment {
  const Compressor* codec = nullptr;
  CodecContext context;
  int wire_id = 0;       // of the codec, for frames
  MutableByteSpan body;  // own body of this round (kSum: replaced by the sum over ranks). A
                         // lossless codec's may be the mean's own memory
  TensorView mean;  // out, after the last round: the mean over ranks of the decoded bodies; zeroed
                    // by the caller
  // kReencode: where the encoding of the sum keeps its error, for the next one; null: nowhere.
  const StateScope* hop = nullptr;
};

// What the frame in front of a gathered body says.
FrameHeader FrameHeaderOf(const CodecContext& context, int wire_id);

struct ExchangeTimes {
  TimedSum exchange_ms;  // waiting for and moving bytes
  TimedSum decode_ms;    // decoding, summing and encoding again; never across a wait
};

// What one exchange works on. Everything outlives it.
struct ExchangeCall {
  std::span<Segment> segments;
  // All segments' (header +) bodies back to back in segment order; each segment.body points into it
  // behind its header (header_bytes).
  MutableByteSpan send;
  int round = 0;
  bool last_round = true;
  OpTag tag;
  Communicator* comm = nullptr;
  Workspace* scratch = nullptr;  // of this bucket alone; codec slots are free for codecs only
                                 // between two waits
  ExchangeTimes* times = nullptr;
};

// The arithmetic of an exchange without its transport, for a process that holds the bodies of many
// clients: one parameter's bodies, handed over one by one in client order, become the mean with the
// bits that Start gives when each client is a rank.
struct FoldCall {
  const Compressor* codec = nullptr;
  CodecContext context;  // rank is set for each body
  int expected = 0;      // bodies there will be when nobody drops out
  int denominator = 0;   // the sum is divided by that; may change until Finish
  bool last_round = true;
  TensorView mean;               // out, after the last round; zeroed by the caller
  AlignedBuffer* sum = nullptr;  // memory of this fold alone, until the next round is encoded
  ByteSpan reduced;              // out: in earlier rounds, what the next one is encoded from
  int added = 0;
};

class Fold {
 public:
  virtual ~Fold() = default;
  virtual Status Add(FoldCall& call, ByteSpan body, int client) const = 0;
  // REQUIRES: at least one body was added.
  virtual Status Finish(FoldCall& call) const = 0;
};

// What an exchange asks of one rank for a payload beside the bytes, for predictions.
struct ExchangeWork {
  double waits = 0;     // times that bytes must have arrived before others can leave
  double messages = 0;  // handed to the transport
  double decodes = 1;   // bodies' worth that are decoded and added
  double encodes = 0;   // bodies' worth that are encoded again
};

class Exchange {
 public:
  virtual ~Exchange() = default;
  virtual Merge merge() const = 0;
  // Bytes in front of every body in the send buffer (a frame's header for gathered payloads) of
  // what goes over that communicator.
  virtual int64_t header_bytes(Communicator&) const { return 0; }
  // One round of it, for the bodies of one bucket. Two hops of parts unless overridden.
  virtual ExchangeWork Work(const CompressorTraits&, int64_t /*payload_bytes*/, int ranks) const {
    if (ranks == 1) return {};
    return {.waits = 2, .messages = 2.0 * (ranks - 1)};
  }
  // What one rank hands to the transport for a payload (all rounds) of one parameter: an estimate
  // where that depends on the values. Two hops of (n-1)/n of the body each unless overridden.
  virtual double WireBytes(const TensorSpec& spec, int64_t payload_bytes, int ranks) const {
    return 2.0 * static_cast<double>(payload_bytes) * (ranks - 1) / ranks;
  }
  // Last round: fills each segment.mean. Earlier rounds (kSum only): leaves the sums in
  // segment.body.
  virtual Async Start(ExchangeCall call) const = 0;
  // Null when the means cannot be formed in one place alone.
  virtual const Fold* fold() const { return nullptr; }

  // The same, blocking.
  Status Run(std::span<Segment> segments, MutableByteSpan send, int round, bool last_round,
             const OpTag& tag, Communicator& comm, Workspace& scratch, ExchangeTimes* times) const {
    return RunBlocking(Start({segments, send, round, last_round, tag, &comm, &scratch, times}));
  }
};

// The exchange that a merge goes through unless another is asked for (the one registered under
// the merge's own name), or null when the program has none. Thread safe.
const Exchange* FindExchange(Merge merge);
// Any registered exchange, or null.
const Exchange* FindExchange(const std::string& name);

}  // namespace tw
