// What only the emulated device shows of a queue: that the host stays away from its memory, how
// late things are done, allocations and copies counted, errors to order.
#include <new>

#include "core/kernels/elementwise.h"
#include "core/kernels/optimizer.h"
#include "core/kernels/quantize.h"
#include "core/kernels/reduce.h"
#include "core/kernels/topk.h"
#include "tests/cuda/emulation/emulated_device.h"
#include "tests/cuda/queue_fixture.h"

namespace tw {
namespace {

class EmulatedQueue : public QueueTest {};
using EmulatedQueueDeathTest = EmulatedQueue;

TEST_F(EmulatedQueueDeathTest, TheHostCannotTouchTheDevicesMemory) {
  const DeviceBuffer<float> x(device_, std::vector<float>{1, 2, 3});
  EXPECT_EQ(x.Values(), (std::vector<float>{1, 2, 3}));
  GTEST_FLAG_SET(death_test_style, "fast");
  EXPECT_DEATH(*const_cast<volatile float*>(x.data()) = 1.0f, "");
  EXPECT_DEATH(kernels::Scale(x.span(), 2.0f), "");  // no scope: the host's kernel
  EXPECT_DEATH(
      {
        const DeviceScope scope(queue_.get());
        kernels::AllFinite(x.span());
      },
      "check failed");
  std::vector<float> host(3);
  EXPECT_DEATH(
      {
        const DeviceScope scope(queue_.get());
        kernels::AddInPlace(x.span(), 1.0f, host);
        queue_->Wait().IgnoreError();
      },
      "an address of the host");
}

TEST_F(EmulatedQueue, NothingIsAllocatedAfterTheFirstStep) {
  std::vector<TwoTensors> tensors = Tensors();
  Both<kernels::IndexedValue> list = New(std::vector<kernels::IndexedValue>(4096 + 64));
  Both<uint8_t> body = Bytes(20000);
  kernels::QuantizeSpec spec;
  const kernels::AdamWCoefficients<float> c = {1, 1, 0.9f, 0.1f, 0.99f, 0.01f, 0.1f, 1, 1e-8f};
  const auto step = [&] {
    OnDevice([&] {
      {
        tw::Together together;
        for (TwoTensors& t : tensors) {
          together.Next();
          kernels::AdamWStep(t.x.span(), t.y.span(), t.x.span(), t.y.span(), c);
          kernels::Scale(t.x.span(), 0.5f);
        }
      }
      kernels::Quantize({tensors.back().x.span()}, spec, {}, body.data());
      kernels::TakeTopK({tensors.back().x.span()}, 10, list.span());
      queue_->CheckFinite(tensors.back().x.view(DType::kF32));
      queue_->TakeAllFinite();
      const auto mark = queue_->Mark();
      mark->reached();
    });
  };
  step();
  const int64_t before = emulation::CountsOfRuntime().allocations;
  for (int i = 0; i < 50; ++i) step();
  EXPECT_EQ(emulation::CountsOfRuntime().allocations, before);
}

TEST_F(EmulatedQueue, AFlushIsOneCopyToTheDevice) {
  std::vector<TwoTensors> tensors = Tensors();
  const int64_t before = emulation::CountsOfRuntime().copies;
  const kernels::AdamWCoefficients<float> c = {1, 1, 0.9f, 0.1f, 0.99f, 0.01f, 0.1f, 1, 1e-8f};
  std::vector<TwoTensors> moments = Tensors();
  OnDevice([&] {
    tw::Together together;
    for (size_t i = 0; i < tensors.size(); ++i) {
      together.Next();
      kernels::AdamWStep(tensors[i].x.span(), tensors[i].y.span(), moments[i].x.span(),
                         moments[i].y.span(), c);
      kernels::Scale(tensors[i].x.span(), 0.5f);
      ZeroBytes(tensors[i].y.data(), tensors[i].y.size() * sizeof(float));
    }
  });
  EXPECT_EQ(emulation::CountsOfRuntime().copies - before, 1);
}

TEST_F(EmulatedQueue, WhatThereIsNoMemoryForIsSaid) {
  try {
    device_.memory().Allocate(size_t{5} << 30);
    FAIL();
  } catch (const std::bad_alloc& e) {
    EXPECT_STREQ(e.what(), "GPU 0 has no 5368709120 bytes left");
  }
}

TEST_F(EmulatedQueue, MarksAreReachedLater) {
  Both<float> x = Floats(5000, 1);
  const DeviceScope scope(queue_.get());
  kernels::Scale(x.span(), 2.0f);
  const auto mark = queue_->Mark();
  EXPECT_FALSE(mark->reached());
  EXPECT_TRUE(queue_->Wait().ok());
  EXPECT_TRUE(mark->reached());
  // Of what has not been told anything, at once; and it comes about by looking.
  EXPECT_TRUE(queue_->Mark()->reached());
  kernels::Scale(x.span(), 1.0f);
  const auto later = queue_->Mark();
  int looks = 0;
  while (!later->reached()) ++looks;
  EXPECT_GT(looks, 0);
}

TEST(EmulatedMemory, AsksOthersForTheirsBeforeItGivesUp) {
  const EmulatedDevice device;
  int asked = 0;
  auto memory = kernels::MakeDeviceMemory(0, [&] { ++asked; });
  TW_CHECK_OK(memory);
  emulation::FailAllocations(2);
  uint8_t* block = (*memory)->Allocate(100);
  EXPECT_NE(block, nullptr);
  EXPECT_EQ(asked, 1);
  emulation::FailAllocations(3);
  try {
    (*memory)->Allocate(100);
    ADD_FAILURE() << "there was none left";
  } catch (const std::bad_alloc& error) {
    EXPECT_STREQ(error.what(), "GPU 0 has no 100 bytes left");
  }
  EXPECT_EQ(asked, 2);
  (*memory)->Free(block);
  emulation::FailAllocations(1);
  (*memory)->Free(
      (*memory)->Allocate(100));  // what was freed is given back before anybody is asked
  EXPECT_EQ(asked, 2);
}

// The thread that frees may be the one that has to notice that a peer is gone.
TEST_F(EmulatedQueue, MemoryIsFreedWithoutAWait) {
  auto memory = kernels::MakeDeviceMemory(0);
  TW_CHECK_OK(memory);
  auto made = kernels::MakeDeviceQueue({0, kernels::QueueStream::kOwn, memory->get()});
  TW_CHECK_OK(made);
  kernels::DeviceKernels& queue = **made;
  auto* x = reinterpret_cast<float*>((*memory)->Allocate(400));
  queue.Zero(x, 400);
  queue.Scale({x, 100}, 2.0f);
  const auto mark = queue.Mark();
  const emulation::RuntimeCounts before = emulation::CountsOfRuntime();
  (*memory)->Free(reinterpret_cast<uint8_t*>(x));
  EXPECT_EQ(emulation::CountsOfRuntime().waits, before.waits);
  EXPECT_EQ(emulation::CountsOfRuntime().frees, before.frees);
  EXPECT_FALSE(mark->reached());
  EXPECT_TRUE(queue.Wait().ok());
  EXPECT_EQ(emulation::CountsOfRuntime().frees, before.frees + 1);
}

TEST_F(EmulatedQueue, TheFirstErrorStays) {
  DeviceBuffer<float> x(device_, std::vector<float>(100, 1.0f));
  const DeviceScope scope(queue_.get());
  kernels::Scale(x.span(), 2.0f);
  emulation::FailLaunch();
  kernels::Scale(x.span(), 2.0f);
  Status status = queue_->Wait();
  EXPECT_EQ(status.message(), "GPU 0: unspecified launch failure");
  EXPECT_EQ(FaultOf(status), Fault::kData);
  const int64_t launches = emulation::LaunchCount();
  kernels::Scale(x.span(), 2.0f);
  {
    tw::Together together;
    together.Next();
    kernels::Scale(x.span(), 2.0f);
    CopyBytes(x.data(), x.data() + 4, 16);
  }
  float got = 1;
  GetBytes(&got, x.data(), sizeof(got));
  EXPECT_EQ(got, 0.0f);
  EXPECT_TRUE(queue_->Mark()->reached());
  EXPECT_EQ(emulation::LaunchCount(), launches);
  EXPECT_EQ(queue_->Wait(), status);

  const auto other = device_.NewQueue();
  emulation::FailCopies(true);
  other->Scale(x.span(), 2.0f);
  emulation::FailCopies(false);
  EXPECT_EQ(other->Wait().message(), "GPU 0: an illegal memory access was encountered");
}

}  // namespace
}  // namespace tw
