#include "core/engine/fleet/fleet_wire.h"

namespace tw {

Status FleetWire::OnLane(const std::function<Status()>& work) {
  return lane_ ? lane_->Run(work) : work();
}

MutableByteSpan FleetWire::Room(int64_t bytes) {
  const size_t begin = used_ + static_cast<size_t>(kFrameHeaderBytes);
  const size_t end = begin + static_cast<size_t>(bytes);
  if (memory_.size() < end) memory_.resize(end);
  return {memory_.data() + begin, static_cast<size_t>(bytes)};
}

void FleetWire::Close(const FrameHeader& header, int64_t bytes) {
  uint8_t* const frame = memory_.data() + used_;
  WriteFrameHeader(header, {frame + kFrameHeaderBytes, static_cast<size_t>(bytes)}, frame);
  used_ += static_cast<size_t>(kFrameHeaderBytes + bytes);
}

template <class T>
Status FleetWire::ShareItems(std::span<const int64_t> counts, std::span<const T> mine,
                             std::span<T> all, const OpTag& tag) {
  if (comm_->size() == 1) {
    std::copy(mine.begin(), mine.end(), all.begin());
    return OkStatus();
  }
  std::vector<int64_t> sizes(counts.begin(), counts.end());
  for (int64_t& size : sizes) size *= static_cast<int64_t>(sizeof(T));
  const ByteSpan send(reinterpret_cast<const uint8_t*>(mine.data()), mine.size_bytes());
  const MutableByteSpan receive(reinterpret_cast<uint8_t*>(all.data()), all.size_bytes());
  return OnLane([&] { return comm_->control().AllGatherV(send, sizes, receive, tag); });
}

Status FleetWire::ShareNotes(std::span<const int64_t> counts, std::span<const ClientNote> mine,
                             std::span<ClientNote> all, const OpTag& tag) {
  TW_RETURN_IF_ERROR(ShareItems(counts, mine, all, tag));
  for (const ClientNote& note : all) {
    if (note.bytes < -1) return DataLoss("a negative length among the notes on clients");
  }
  return OkStatus();
}

Status FleetWire::ShareNumbers(std::span<const int64_t> counts, std::span<const double> mine,
                               std::span<double> all, const OpTag& tag) {
  return ShareItems(counts, mine, all, tag);
}

StatusOr<ByteSpan> FleetWire::ShareBodies(std::span<const int64_t> bytes, const OpTag& tag) {
  if (comm_->size() == 1) return own();
  size_t total = 0;
  for (const int64_t b : bytes) total += static_cast<size_t>(b);
  if (all_.size() < total) all_.resize(total);
  const MutableByteSpan all(all_.data(), total);
  TW_RETURN_IF_ERROR(OnLane([&] { return comm_->control().AllGatherV(own(), bytes, all, tag); }));
  return ByteSpan(all);
}

StatusOr<ByteSpan> TakeBody(ByteSpan* bytes, const FrameHeader& expected) {
  TW_ASSIGN_OR_RETURN(const Frame frame, ParseFrame(*bytes));
  TW_RETURN_IF_ERROR(CheckFrame(frame, expected));
  *bytes = bytes->subspan(static_cast<size_t>(frame.total_bytes));
  return frame.body;
}

}  // namespace tw
