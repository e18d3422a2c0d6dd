#pragma once
// Memory that kernels see, for tests that run as they are on a GPU and in the emulation: two
// implementations, real/ with CUDA and emulation/ in the host's memory, of which a program links
// one.
//
//   class Sums : public DeviceTest {};
//   TEST_F(Sums, ...) { float* x = Upload(values); ...; EXPECT_EQ(Download(x, n), want); }
//
// Every piece of memory has guards around it, which are looked at when the test ends. Not thread
// safe.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "core/kernels/device.h"

namespace tw {

class KernelMemory {
 public:
  virtual ~KernelMemory() = default;
  // Null with the reason in *why when this machine cannot run kernels.
  static std::unique_ptr<KernelMemory> Open(std::string* why);

  virtual void* Allocate(size_t bytes) = 0;  // aligned to 256, freed with the object
  virtual void Free(void* memory) = 0;
  virtual void CopyIn(void* device, const void* host, size_t bytes) = 0;
  virtual void CopyOut(void* host, const void* device, size_t bytes) = 0;  // waits
  virtual kernels::device::Stream stream() = 0;
  // How many launches there were; -1 where nobody counts.
  virtual int64_t launches() = 0;
  // Other orders of threads where there is a choice.
  virtual void SetSeed(uint64_t seed) = 0;
};

class DeviceTest : public testing::Test {
 protected:
  static constexpr size_t kGuard = 256;

  void SetUp() override {
    std::string why;
    memory_ = KernelMemory::Open(&why);
    if (!memory_) GTEST_SKIP() << why;
  }
  void TearDown() override {
    if (!memory_) return;
    Synchronize();
    for (const Piece& piece : pieces_) {
      std::vector<uint8_t> bytes(piece.bytes + 2 * kGuard);
      memory_->CopyOut(bytes.data(), piece.start, bytes.size());
      bool whole = true;
      for (size_t i = 0; i < kGuard; ++i) {
        whole = whole && bytes[i] == 0xA5 && bytes[kGuard + piece.bytes + i] == 0xA5;
      }
      EXPECT_TRUE(whole) << "a kernel wrote outside of its memory of " << piece.bytes << " bytes";
      memory_->Free(piece.start);
    }
    pieces_.clear();
  }

  // Bytes of noise, `offset` bytes behind an aligned address.
  uint8_t* Allocate(size_t bytes, size_t offset = 0) {
    bytes += offset;
    auto* start = static_cast<uint8_t*>(memory_->Allocate(bytes + 2 * kGuard));
    std::vector<uint8_t> fill(bytes + 2 * kGuard, 0xA5);
    std::fill_n(fill.begin() + kGuard, bytes, uint8_t{0xCD});
    memory_->CopyIn(start, fill.data(), fill.size());
    pieces_.push_back({start, bytes});
    return start + kGuard + offset;
  }
  template <class T>
  T* AllocateOf(size_t count) {
    return reinterpret_cast<T*>(Allocate(count * sizeof(T)));
  }
  template <class T>
  T* Upload(const std::vector<T>& values) {
    return UploadAt(values, 0);
  }
  // `offset` bytes behind an aligned address.
  template <class T>
  T* UploadAt(const std::vector<T>& values, size_t offset) {
    T* out = reinterpret_cast<T*>(Allocate(values.size() * sizeof(T), offset));
    memory_->CopyIn(out, values.data(), values.size() * sizeof(T));
    return out;
  }
  void CopyIn(void* device, const std::vector<uint8_t>& bytes) {
    memory_->CopyIn(device, bytes.data(), bytes.size());
  }
  template <class T>
  std::vector<T> Download(const T* device, size_t count) {
    std::vector<T> out(count);
    memory_->CopyOut(out.data(), device, count * sizeof(T));
    return out;
  }
  // Segments whose tiles are numbered.
  template <class Segment>
  kernels::device::Table<Segment> TableOf(std::vector<Segment> segments) {
    const int64_t tiles = kernels::device::PlaceTiles<Segment>(segments);
    return {Upload(segments), static_cast<int32_t>(segments.size()), tiles};
  }
  void Synchronize() {
    uint8_t byte;
    const uint8_t* any = pieces_.empty() ? Allocate(1) : pieces_[0].start;
    memory_->CopyOut(&byte, any, 1);
    const char* error = kernels::device::TakeError();
    EXPECT_EQ(error, nullptr) << error;
  }
  kernels::device::Stream stream() { return memory_->stream(); }

  // How many launches `work` makes; `expected` where nobody counts.
  template <class Work>
  int64_t LaunchesOf(int64_t expected, Work work) {
    const int64_t before = memory_->launches();
    work();
    return before < 0 ? expected : memory_->launches() - before;
  }
  void SetSeed(uint64_t seed) { memory_->SetSeed(seed); }

 private:
  struct Piece {
    uint8_t* start;
    size_t bytes;
  };
  std::unique_ptr<KernelMemory> memory_;
  std::vector<Piece> pieces_;
};

// Bit by bit, where NaN is NaN.
template <class T>
testing::AssertionResult SameBits(const std::vector<T>& want, const std::vector<T>& got) {
  if (want.size() != got.size()) {
    return testing::AssertionFailure() << want.size() << " elements, got " << got.size();
  }
  for (size_t i = 0; i < want.size(); ++i) {
    if (std::memcmp(&want[i], &got[i], sizeof(T)) == 0) continue;
    if constexpr (std::is_floating_point_v<T>) {
      if (std::isnan(want[i]) && std::isnan(got[i])) continue;
    }
    return testing::AssertionFailure() << "element " << i << " of " << want.size() << ": want "
                                       << +want[i] << ", got " << +got[i];
  }
  return testing::AssertionSuccess();
}

// Sizes of tensors in tests of kernels for GPUs: around those of warps, blocks and tiles.
inline const std::vector<size_t>& DeviceSizes() {
  static const std::vector<size_t> sizes = {0, 1, 7, 31, 0, 127, 128, 129, 1000, 4099, 0};
  return sizes;
}

}  // namespace tw
