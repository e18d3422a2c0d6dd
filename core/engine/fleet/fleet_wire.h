#pragma once
// The bodies of one round, in client order: kept here as they are encoded, framed and gathered from
// the other ranks. The frames are those of the gather exchange, checked in the same way. Clients
// are the host's, whatever the communicator carries.

#include <functional>
#include <vector>

#include "core/api/exchange.h"
#include "core/engine/lane.h"

namespace tw {

// What one rank says about one of its clients before bodies travel.
struct ClientNote {
  int64_t bytes = -1;  // of its frames; -1: its message did not arrive
  double loss = 0;
};

class FleetWire {
 public:
  FleetWire(Communicator* comm, Lane* lane) : comm_(comm), lane_(lane) {}

  void Clear() { used_ = 0; }
  // Room for a body of at most `bytes`; it stays until Clear, but moves with the next Room.
  MutableByteSpan Room(int64_t bytes);
  // The body in the last Room is `bytes` long: a header is put in front.
  void Close(const FrameHeader& header, int64_t bytes);
  size_t used() const { return used_; }

  // Every rank's notes on its clients, in client order; counts[r] is how many rank r has.
  Status ShareNotes(std::span<const int64_t> counts, std::span<const ClientNote> mine,
                    std::span<ClientNote> all, const OpTag& tag);
  // Every rank's numbers behind each other; counts[r] is how many rank r has.
  Status ShareNumbers(std::span<const int64_t> counts, std::span<const double> mine,
                      std::span<double> all, const OpTag& tag);
  // All frames of all ranks; bytes[r] is rank r's. Valid until the next call or Clear.
  StatusOr<ByteSpan> ShareBodies(std::span<const int64_t> bytes, const OpTag& tag);
  ByteSpan own() const { return {memory_.data(), used_}; }
  int64_t memory_bytes() const {
    return static_cast<int64_t>(memory_.capacity() + all_.capacity());
  }

 private:
  Status OnLane(const std::function<Status()>& work);
  template <class T>
  Status ShareItems(std::span<const int64_t> counts, std::span<const T> mine, std::span<T> all,
                    const OpTag& tag);

  Communicator* comm_;
  Lane* lane_;
  std::vector<uint8_t> memory_, all_;
  size_t used_ = 0;
};

// Takes the frame at the start of *bytes off it and returns its body.
StatusOr<ByteSpan> TakeBody(ByteSpan* bytes, const FrameHeader& expected);

}  // namespace tw
