#include "core/engine/agree.h"

#include <numeric>

namespace tw {
namespace {

ByteSpan BytesOf(const std::string& text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

}  // namespace

StatusOr<std::vector<std::string>> GatherTexts(Communicator& comm, const std::string& text,
                                               const OpTag& tag) {
  TW_ASSIGN_OR_RETURN(const std::vector<int64_t> sizes,
                      comm.AllGatherInt(static_cast<int64_t>(text.size()), tag));
  std::vector<uint8_t> all(
      static_cast<size_t>(std::accumulate(sizes.begin(), sizes.end(), int64_t{0})));
  TW_RETURN_IF_ERROR(comm.control().AllGatherV(BytesOf(text), sizes, all, tag));
  std::vector<std::string> out;
  size_t at = 0;
  for (int64_t size : sizes) {
    out.emplace_back(reinterpret_cast<const char*>(all.data()) + at, static_cast<size_t>(size));
    at += static_cast<size_t>(size);
  }
  return out;
}

StatusOr<std::string> BroadcastText(Communicator& comm, const std::string& text, int root,
                                    const OpTag& tag) {
  TW_ASSIGN_OR_RETURN(std::vector<std::string> all,
                      GatherTexts(comm, comm.rank() == root ? text : std::string(), tag));
  return std::move(all[static_cast<size_t>(root)]);
}

Status AgreeStatus(Communicator& comm, const Status& mine, const OpTag& tag) {
  std::string text;  // "code fault message"
  if (!mine.ok()) {
    text = std::to_string(static_cast<int>(mine.code())) + " " +
           std::to_string(static_cast<int>(FaultOf(mine))) + " " + std::string(mine.message());
  }
  TW_ASSIGN_OR_RETURN(const std::vector<std::string> all, GatherTexts(comm, text, tag));
  for (size_t rank = 0; rank < all.size(); ++rank) {
    if (all[rank].empty()) continue;
    std::istringstream in(all[rank]);
    int code = 0, fault = 0;
    in >> code >> fault;
    std::string message;
    std::getline(in.ignore(1), message, '\0');
    if (all.size() > 1) message = "rank " + std::to_string(rank) + ": " + message;
    return WithFault(Status(static_cast<absl::StatusCode>(code), message),
                     static_cast<Fault>(fault));
  }
  return OkStatus();
}

}  // namespace tw
