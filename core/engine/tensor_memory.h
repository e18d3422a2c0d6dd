#pragma once
// Exact bytes of CPU tensors: what is alive now and the most there ever was, temporaries of
// convolution and attention included. The state bag and the workspaces of the lane are not tensors
// and are not in it.
//
// Thread safe. Counting costs two atomic operations and 64 bytes an allocation.

#include <cstdint>

namespace tw {

// Replaces LibTorch's CPU allocator by one that counts. Call before the first tensor is made;
// tensors from before are freed by whoever made them and never counted. Later calls do nothing.
void InstallTensorMemoryCounter();

// Bytes asked for and not yet freed; 0 before the counter is installed.
int64_t LiveTensorBytes();
// High-water mark of LiveTensorBytes() since installation or the last reset.
int64_t PeakTensorBytes();
// The mark becomes what is alive now.
void ResetPeakTensorBytes();

}  // namespace tw
