#include "core/kernels/launch.cuh"

namespace tw::kernels::device {

const char* TakeError() {
  const cudaError_t error = cudaGetLastError();
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

}  // namespace tw::kernels::device
