#include "core/kernels/device_staging.h"

#include <algorithm>
#include <new>
#include <string>
#include <utility>

namespace tw::kernels {

bool CudaErrors::Succeeds(cudaError_t error) {
  if (error == cudaSuccess) return true;
  cudaGetLastError();  // told here, not at the next launch
  Note(cudaGetErrorString(error));
  return false;
}

void CudaErrors::Note(const char* what) {
  if (status_.ok()) status_ = DataError("GPU " + std::to_string(device_) + ": " + what);
}

uint8_t* AllocatePinnedBytes(size_t bytes) {
  void* memory = nullptr;
  if (cudaMallocHost(&memory, std::max<size_t>(bytes, 1)) != cudaSuccess) {
    cudaGetLastError();
    throw std::bad_alloc();
  }
  return static_cast<uint8_t*>(memory);
}

StagingRing::StagingRing(DeviceMemory& memory, cudaStream_t stream, CudaErrors& errors)
    : memory_(memory), stream_(stream), errors_(errors) {
  for (cudaEvent_t& event : left_) {
    errors_.Succeeds(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
  }
  Grow(size_t{256} << 10);
}

StagingRing::~StagingRing() {
  cudaStreamSynchronize(stream_);
  old_.push_back(std::move(now_));
  FreeOld();
  for (cudaEvent_t event : left_) cudaEventDestroy(event);
}

void StagingRing::Grow(size_t part_bytes) {
  DeviceBlock device(&memory_, kParts * part_bytes);
  uint8_t* const host = AllocatePinnedBytes(kParts * part_bytes);
  if (now_.host) old_.push_back(std::move(now_));
  now_ = {host, std::move(device)};
  part_bytes_ = part_bytes;
  part_ = used_ = 0;
}

void StagingRing::FreeOld() {
  for (const Memory& memory : old_) {
    if (memory.host) cudaFreeHost(memory.host);
  }
  old_.clear();
}

StagingRing::Piece StagingRing::Take(size_t bytes) {
  bytes = (bytes + 255) / 256 * 256;
  if (bytes > part_bytes_) Grow(std::max(2 * part_bytes_, bytes));
  if (used_ + bytes > part_bytes_) {
    errors_.Succeeds(cudaEventRecord(left_[part_], stream_));
    part_ = (part_ + 1) % kParts;
    used_ = 0;
    errors_.Succeeds(cudaEventSynchronize(left_[part_]));
  }
  const size_t at = part_ * part_bytes_ + used_;
  used_ += bytes;
  return {now_.host + at, now_.device.data() + at};
}

uint8_t* DeviceScratch::AtLeast(size_t bytes) {
  if (bytes > block_.size()) {
    const size_t wanted = std::max(bytes, 2 * block_.size());
    block_ = {};  // what is under way may go on with it
    block_ = DeviceBlock(&memory_, wanted);
  }
  return block_.data();
}

}  // namespace tw::kernels
