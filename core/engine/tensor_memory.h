#pragma once
// Exact bytes of tensors: what is alive now and the most there ever was, temporaries of convolution
// and attention included. The state bag and the workspaces of the lane are not tensors and are not
// in it. On a device they are those that LibTorch's allocator for it has given out, in its steps of
// 512; until LibTorch's library for such devices is loaded there are none.
//
// Thread safe. Counting costs two atomic operations and 64 bytes an allocation on the CPU.

#include <c10/core/Device.h>

#include <cstdint>

namespace tw {

// Replaces LibTorch's CPU allocator by one that counts. Call before the first tensor is made;
// tensors from before are freed by whoever made them and never counted. Later calls do nothing.
// Devices' allocators count by themselves.
void InstallTensorMemoryCounter();

// Bytes asked for and not yet freed; 0 before the counter is installed.
int64_t LiveTensorBytes(c10::Device device = c10::Device(c10::DeviceType::CPU));
// High-water mark of LiveTensorBytes() since installation or the last reset.
int64_t PeakTensorBytes(c10::Device device = c10::Device(c10::DeviceType::CPU));
// The mark becomes what is alive now.
void ResetPeakTensorBytes(c10::Device device = c10::Device(c10::DeviceType::CPU));

// LibTorch's allocator for the device gives back what no tensor uses. Nothing on the CPU.
void GiveBackUnusedTensorMemory(c10::Device device);

}  // namespace tw
