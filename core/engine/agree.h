#pragma once
// Short texts and verdicts between ranks: what the checkpoint needs to do one thing on all of them
// or on none. Every function is collective and runs where the communicator may be used. Control
// data: a few kilobytes a rank.

#include <string>
#include <vector>

#include "core/api/communicator.h"

namespace tw {

// Each rank's text, in rank order.
StatusOr<std::vector<std::string>> GatherTexts(Communicator& comm, const std::string& text,
                                               const OpTag& tag);
// Root's text on every rank.
StatusOr<std::string> BroadcastText(Communicator& comm, const std::string& text, int root,
                                    const OpTag& tag);
// OK when `mine` is OK on every rank; otherwise the error of the lowest rank that has one, code,
// fault and text, on all of them.
Status AgreeStatus(Communicator& comm, const Status& mine, const OpTag& tag);

}  // namespace tw
