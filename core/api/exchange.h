#pragma once
// Exchange: how the bodies of one bucket become means. An implementation is for one Merge; the plan
// picks it by one look-up. Runs on the lane thread, where it waits for bytes without holding the
// thread: several buckets are under way at once. All ranks run the same exchanges on the same
// segments.

#include "core/api/communicator.h"
#include "core/api/compressor.h"

namespace tw {

// One parameter's part of a bucket on its way through an exchange.
struct Segment {
  const Compressor* codec = nullptr;
  CodecContext context;
  int wire_id = 0;       // of the codec, for frames
  MutableByteSpan body;  // own body of this round (kSum: replaced by the sum over ranks). A lossless
                         // codec's may be the mean's own memory
  TensorView mean;  // out, after the last round: the mean over ranks of the decoded bodies; zeroed
                    // by the caller
};

struct ExchangeTimes {
  double exchange_ms = 0;  // waiting for and moving bytes
  double decode_ms = 0;    // decoding, summing and encoding again
};

// What one exchange works on. Everything outlives it.
struct ExchangeCall {
  std::span<Segment> segments;
  // All segments' (header +) bodies back to back in segment order; each segment.body points into it
  // behind its header.
  MutableByteSpan send;
  int round = 0;
  bool last_round = true;
  OpTag tag;
  Communicator* comm = nullptr;
  Workspace* scratch = nullptr;  // of this bucket alone; codec slots are free for codecs only
                                 // between two waits
  ExchangeTimes* times = nullptr;
};

class Exchange {
 public:
  virtual ~Exchange() = default;
  virtual Merge merge() const = 0;
  // Bytes in front of every body in the send buffer (a frame's header for gathered payloads).
  virtual int64_t header_bytes() const { return 0; }
  // Last round: fills each segment.mean. Earlier rounds (kSum only): leaves the sums in
  // segment.body.
  virtual Async Start(ExchangeCall call) const = 0;

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
