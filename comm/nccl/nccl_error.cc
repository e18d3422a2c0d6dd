#include "comm/nccl/nccl_error.h"

#include <algorithm>

namespace tw {

Status NcclStatus(ncclResult_t code, ncclComm_t comm, const std::string& what) {
  if (code == ncclSuccess || code == ncclInProgress) return OkStatus();
  std::string message = what + ": NCCL: " + ncclGetErrorString(code);
  const char* last = ncclGetLastError(comm);
  if (last && *last) message += " (" + std::string(last) + ")";
  std::replace(message.begin(), message.end(), '\n', ' ');
  return PeerError(message);
}

Status CudaStatus(cudaError_t code, const std::string& what) {
  if (code == cudaSuccess) return OkStatus();
  return DataError(what + ": CUDA: " + cudaGetErrorString(code));
}

}  // namespace tw
