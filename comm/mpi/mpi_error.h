#pragma once
// MPI's return codes as Status. REQUIRES: error handlers that return.

#include <string>

#include "core/base/status.h"

namespace tw {

// OK for MPI_SUCCESS; otherwise a PeerError "<what>: <MPI's text>".
Status MpiStatus(int code, const std::string& what);

}  // namespace tw
