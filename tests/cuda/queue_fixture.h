#pragma once
// Public kernel functions on a device and on the host, side by side.
//
//   Both<float> x = New(RandomFloats(n, 1));
//   OnBoth([&] { kernels::Scale(x.span(), 2); });     // x is the host's or the device's
//   EXPECT_TRUE(x.Same());

#include <gtest/gtest.h>

#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "core/base/device.h"
#include "tests/core/kernels/sample_data.h"
#include "tests/cuda/device_memory.h"
#include "tests/cuda/test_device.h"

namespace tw {

// Two copies of a piece of memory: that of the place where this thread works.
template <class T>
class Both {
 public:
  Both(TestDevice& device, std::vector<T> values, size_t offset)
      : device_(device, values, offset), host_(std::move(values)) {}
  T* data() { return CurrentQueue() ? device_.data() : host_.data(); }
  size_t size() const { return host_.size(); }
  std::span<T> span() { return {data(), size()}; }
  TensorView view(DType dtype) { return {data(), dtype, static_cast<int64_t>(size())}; }
  testing::AssertionResult Same() const { return SameBits(host_, device_.Values()); }
  const std::vector<T>& host() const { return host_; }
  std::vector<T> device() const { return device_.Values(); }

 private:
  DeviceBuffer<T> device_;
  std::vector<T> host_;
};

// Around those of vectors, warps, tiles, and of pieces of sums.
inline const std::vector<size_t>& QueueSizes() {
  static const std::vector<size_t> sizes = {0, 1, 7, 33, 128, 1000, 1025, 0, 4096, 4099, 9001};
  return sizes;
}

struct TwoTensors {
  Both<float> x, y;
};

class QueueTest : public testing::Test {
 protected:
  template <class T>
  Both<T> New(std::vector<T> values, size_t offset = 0) {
    return Both<T>(device_, std::move(values), offset);
  }
  Both<float> Floats(size_t n, uint64_t seed) { return New(RandomFloats(n, seed)); }
  // Of sizes around those of warps, blocks and tiles.
  std::vector<TwoTensors> Tensors() {
    std::vector<TwoTensors> out;
    for (const size_t n : QueueSizes()) out.push_back({Floats(n, n), Floats(n, n + 1)});
    return out;
  }
  Both<uint8_t> Bytes(size_t n, size_t offset = 0) {
    return New(std::vector<uint8_t>(n, 0xEE), offset);
  }

  template <class Work>
  void OnDevice(Work work) {
    {
      const DeviceScope scope(queue_.get());
      work();
    }
    const Status done = queue_->Wait();
    EXPECT_TRUE(done.ok()) << done.message();
  }
  template <class Work>
  void OnBoth(Work work) {
    work();
    OnDevice(work);
  }
  // work(row) for all rows at once; how many launches there were.
  template <class Row, class Work>
  Counted Together(std::vector<Row>& rows, Work work) {
    for (Row& row : rows) work(row);
    return LaunchesOf([&] {
      OnDevice([&] {
        tw::Together together;
        for (Row& row : rows) {
          together.Next();
          work(row);
        }
      });
    });
  }

  TestDevice device_;
  std::unique_ptr<kernels::DeviceKernels> queue_ = device_.NewQueue();
};

}  // namespace tw
