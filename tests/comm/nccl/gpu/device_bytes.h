#pragma once
// Bytes in device memory, filled from and read back to the host.

#include <cuda_runtime_api.h>

#include <vector>

#include "core/base/bytes.h"
#include "core/base/status.h"

namespace tw {

class DeviceBytes {
 public:
  explicit DeviceBytes(size_t bytes) : size_(bytes) {
    if (bytes) TW_CHECK_EQ(cudaMalloc(reinterpret_cast<void**>(&data_), bytes), cudaSuccess);
    if (bytes) TW_CHECK_EQ(cudaMemset(data_, 0xEE, bytes), cudaSuccess);
  }
  explicit DeviceBytes(const std::vector<uint8_t>& bytes) : DeviceBytes(bytes.size()) {
    if (size_) {
      TW_CHECK_EQ(cudaMemcpy(data_, bytes.data(), size_, cudaMemcpyHostToDevice), cudaSuccess);
    }
  }
  ~DeviceBytes() { cudaFree(data_); }
  DeviceBytes(const DeviceBytes&) = delete;
  DeviceBytes& operator=(const DeviceBytes&) = delete;

  MutableByteSpan span() { return {data_, size_}; }
  std::vector<uint8_t> Read() const {
    std::vector<uint8_t> bytes(size_);
    if (size_) {
      TW_CHECK_EQ(cudaMemcpy(bytes.data(), data_, size_, cudaMemcpyDeviceToHost), cudaSuccess);
    }
    return bytes;
  }

 private:
  uint8_t* data_ = nullptr;
  size_t size_;
};

}  // namespace tw
