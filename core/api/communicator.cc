#include "core/api/communicator.h"

#include <numeric>

namespace tw {

std::string ToString(const OpTag& tag) {
  std::string out = tag.what;
  if (tag.bucket >= 0) out += " of bucket " + std::to_string(tag.bucket);
  return out + " in step " + std::to_string(tag.step);
}

Status Communicator::AllGatherV(ByteSpan mine, std::span<const int64_t> sizes, MutableByteSpan all,
                                const OpTag& tag) {
  return StartAllGatherV(mine, sizes, all, tag)->Wait();
}

Status Communicator::AllToAllV(ByteSpan send, std::span<const int64_t> send_sizes,
                               MutableByteSpan recv, std::span<const int64_t> recv_sizes,
                               const OpTag& tag) {
  return StartAllToAllV(send, send_sizes, recv, recv_sizes, tag)->Wait();
}

Status Communicator::Broadcast(MutableByteSpan bytes, int root, const OpTag& tag) {
  return StartBroadcast(bytes, root, tag)->Wait();
}

Status Communicator::Barrier(const OpTag& tag) { return AllGatherInt(0, tag).status(); }

StatusOr<std::vector<int64_t>> Communicator::AllGatherInt(int64_t value, const OpTag& tag) {
  const size_t n = static_cast<size_t>(size());
  std::vector<int64_t> all(n), sizes(n, sizeof(int64_t));
  TW_RETURN_IF_ERROR(
      control().AllGatherV({reinterpret_cast<const uint8_t*>(&value), sizeof(value)}, sizes,
                           {reinterpret_cast<uint8_t*>(all.data()), n * sizeof(int64_t)}, tag));
  return all;
}

Status Communicator::AllReduceSum(std::span<double> values, const OpTag& tag) {
  const size_t n = static_cast<size_t>(size());
  std::vector<double> all(n * values.size());
  std::vector<int64_t> sizes(n, static_cast<int64_t>(values.size_bytes()));
  TW_RETURN_IF_ERROR(control().AllGatherV(
      {reinterpret_cast<const uint8_t*>(values.data()), values.size_bytes()}, sizes,
      {reinterpret_cast<uint8_t*>(all.data()), all.size() * sizeof(double)}, tag));
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = 0;
    for (size_t r = 0; r < n; ++r) values[i] += all[r * values.size() + i];
  }
  return OkStatus();
}

Status Communicator::Agree(uint64_t fingerprint, const std::string& what, Fault differing) {
  TW_ASSIGN_OR_RETURN(const std::vector<int64_t> all,
                      AllGatherInt(static_cast<int64_t>(fingerprint), {0, -1, "agreement"}));
  std::string ranks;
  int count = 0;
  for (size_t r = 1; r < all.size(); ++r) {
    if (all[r] == all[0]) continue;
    ranks += (ranks.empty() ? "" : ", ") + std::to_string(r);
    ++count;
  }
  if (count == 0) return OkStatus();
  return WithFault(
      PeerError((count == 1 ? "rank " : "ranks ") + ranks + (count == 1 ? " has" : " have") +
                " a different " + what + " than rank 0"),
      differing);
}

}  // namespace tw
