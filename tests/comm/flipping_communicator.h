#pragma once
// A communicator that spoils what it brings, for tests.

#include <memory>
#include <string>
#include <utility>

#include "core/api/communicator.h"

namespace tw {

// Passes everything on, but flips one bit of what the operation named `what` brings.
class FlippingCommunicator : public Communicator {
 public:
  FlippingCommunicator(Communicator& inner, std::string what, size_t at)
      : inner_(inner), what_(std::move(what)), at_(at) {}
  int rank() const override { return inner_.rank(); }
  int size() const override { return inner_.size(); }
  const char* name() const override { return "flipping"; }
  int64_t bytes_sent() const override { return inner_.bytes_sent(); }
  void Abort(int code) override { inner_.Abort(code); }
  std::unique_ptr<Ticket> StartAllGatherV(ByteSpan mine, std::span<const int64_t> sizes,
                                          MutableByteSpan all, const OpTag& tag) override {
    return Flip(inner_.StartAllGatherV(mine, sizes, all, tag), all, tag);
  }
  std::unique_ptr<Ticket> StartAllToAllV(ByteSpan send, std::span<const int64_t> send_sizes,
                                         MutableByteSpan recv, std::span<const int64_t> recv_sizes,
                                         const OpTag& tag) override {
    return Flip(inner_.StartAllToAllV(send, send_sizes, recv, recv_sizes, tag), recv, tag);
  }
  StatusOr<std::unique_ptr<Communicator>> Split(int color) override { return inner_.Split(color); }
  std::unique_ptr<Ticket> StartBroadcast(MutableByteSpan bytes, int root,
                                         const OpTag& tag) override {
    return inner_.StartBroadcast(bytes, root, tag);
  }

 private:
  struct FlippedTicket : Ticket {
    FlippedTicket(std::unique_ptr<Ticket> i, uint8_t* b) : inner(std::move(i)), byte(b) {}
    StatusOr<Progress> Test() override {
      const StatusOr<Progress> progress = inner->Test();
      if (progress.ok() && *progress == Progress::kDone) *byte ^= 4;
      return progress;
    }
    Status Wait() override {
      Status status = inner->Wait();
      *byte ^= 4;
      return status;
    }
    std::unique_ptr<Ticket> inner;
    uint8_t* byte;
  };
  std::unique_ptr<Ticket> Flip(std::unique_ptr<Ticket> ticket, MutableByteSpan bytes,
                               const OpTag& tag) {
    if (what_ != tag.what) return ticket;
    return std::make_unique<FlippedTicket>(std::move(ticket), &bytes[at_]);
  }

  Communicator& inner_;
  std::string what_;
  size_t at_;
};

}  // namespace tw
