#pragma once
// Exchange: how the bodies of one bucket become means. One implementation per Merge; the plan picks
// it by one look-up. Runs on the lane thread, blocking; all ranks run the same exchanges on the
// same segments in the same order.

#include "core/api/communicator.h"
#include "core/api/compressor.h"

namespace tw {

// One parameter's part of a bucket on its way through an exchange.
struct Segment {
  const Compressor* codec = nullptr;
  CodecContext context;
  int wire_id = 0;       // of the codec, for frames
  MutableByteSpan body;  // own body of this round (kSum: replaced by the sum over ranks)
  TensorView mean;  // out, after the last round: the mean over ranks of the decoded bodies; zeroed
                    // by the caller
};

struct ExchangeTimes {
  double exchange_ms = 0;  // waiting for and moving bytes
  double decode_ms = 0;    // decoding, summing and encoding again
};

class Exchange {
 public:
  virtual ~Exchange() = default;
  virtual Merge merge() const = 0;
  // Bytes in front of every body in the send buffer (a frame's header for gathered payloads).
  virtual int64_t header_bytes() const { return 0; }
  // `send` holds all segments' (header +) bodies back to back in segment order; each segment.body
  // points into it behind its header. Last round: fills each segment.mean. Earlier rounds (kSum
  // only): leaves the sums in segment.body.
  virtual Status Run(std::span<Segment> segments, MutableByteSpan send, int round, bool last_round,
                     const OpTag& tag, Communicator& comm, Workspace& scratch,
                     ExchangeTimes* times) const = 0;
};

// The registered exchange of that merge, or null when the program has none. Thread safe.
const Exchange* FindExchange(Merge merge);

}  // namespace tw
