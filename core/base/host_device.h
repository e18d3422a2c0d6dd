#pragma once
// Functions that the CPU and a CUDA kernel both compile, so that their arithmetic is written once.

#if defined(__CUDACC__)
#define TW_HOST_DEVICE __host__ __device__
#else
#define TW_HOST_DEVICE
#endif
