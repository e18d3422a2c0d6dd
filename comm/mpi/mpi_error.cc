#include "comm/mpi/mpi_error.h"

#include <mpi.h>

namespace tw {

Status MpiStatus(int code, const std::string& what) {
  if (code == MPI_SUCCESS) return OkStatus();
  char text[MPI_MAX_ERROR_STRING] = "";
  int length = 0;
  MPI_Error_string(code, text, &length);
  return PeerError(what + ": " + std::string(text, static_cast<size_t>(length)));
}

}  // namespace tw
