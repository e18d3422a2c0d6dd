#pragma once
// Return codes of NCCL and of the CUDA runtime as Status.

#include <cuda_runtime_api.h>
#include <nccl.h>

#include <string>

#include "core/base/status.h"

namespace tw {

// OK for ncclSuccess and ncclInProgress; otherwise a PeerError "<what>: <NCCL's text>", with what
// NCCL last said about `comm` (may be null) behind it.
Status NcclStatus(ncclResult_t code, ncclComm_t comm, const std::string& what);
// OK for cudaSuccess; otherwise a DataError "<what>: <CUDA's text>": the machine's fault.
Status CudaStatus(cudaError_t code, const std::string& what);

}  // namespace tw
