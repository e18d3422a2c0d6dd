// Rows, moves, marks, memory and errors of a device's queue.
#include <new>
#include <thread>

#include "core/kernels/elementwise.h"
#include "core/kernels/feedback.h"
#include "core/kernels/natural.h"
#include "core/kernels/optimizer.h"
#include "core/kernels/quantize.h"
#include "core/kernels/reduce.h"
#include "core/kernels/signs.h"
#include "core/kernels/subset.h"
#include "core/kernels/topk.h"
#include "tests/cuda/queue_fixture.h"

namespace tw {
namespace {

class Queue : public QueueTest {
 protected:
  static void ExpectSame(const std::vector<TwoTensors>& tensors) {
    for (const TwoTensors& t : tensors) {
      EXPECT_TRUE(t.x.Same());
      EXPECT_TRUE(t.y.Same());
    }
  }
};
TEST_F(Queue, ACallIsDoneAtOnceOutsideOfRows) {
  Both<float> x = Floats(5000, 1), y = Floats(5000, 2);
  const auto work = [&] {
    kernels::Scale(x.span(), 2.0f);
    kernels::AddInPlace(x.span(), 0.5f, y.span());
  };
  EXPECT_EQ(LaunchesOf([&] { OnBoth(work); }), 2);
  EXPECT_TRUE(x.Same());
}

TEST_F(Queue, CallsAtThePlaceOfARowAreOneLaunch) {
  std::vector<TwoTensors> tensors = Tensors();
  EXPECT_EQ(Together(tensors,
                     [](TwoTensors& t) {
                       kernels::Scale(t.x.span(), 3.0f);
                       kernels::AddInPlace(t.y.span(), 2.0f, t.x.span());
                       kernels::ErrorMemory(t.x.span(), t.y.span(), 0.9f);
                     }),
            3);
  ExpectSame(tensors);
}

TEST_F(Queue, OtherKernelsAndOtherArgumentsAreLaunchesOfTheirOwn) {
  std::vector<TwoTensors> tensors = Tensors();
  // At place 0: two kernels, one of them with two arguments.
  EXPECT_EQ(Together(tensors,
                     [](TwoTensors& t) {
                       if (t.x.size() < 100) return kernels::Scale(t.x.span(), 2.0f);
                       const float keep = t.x.size() % 2 ? 0.5f : 0.25f;
                       kernels::ErrorMemory(t.x.span(), t.y.span(), keep);
                     }),
            3);
  ExpectSame(tensors);
  EXPECT_EQ(Together(tensors, [](TwoTensors&) {}), 0);
}

TEST_F(Queue, RowsMayBeOfUnequalLengthsAndKeepTheirOrder) {
  std::vector<TwoTensors> tensors = Tensors();
  EXPECT_EQ(Together(tensors,
                     [](TwoTensors& t) {
                       for (size_t i = 0; i <= t.x.size() % 5; ++i) {
                         kernels::AddInPlace(t.x.span(), 0.5f, t.y.span());
                         kernels::AddInPlace(t.y.span(), 0.25f, t.x.span());
                       }
                     }),
            2 * 5);
  ExpectSame(tensors);
}

TEST_F(Queue, RowsWithinRowsStartWhereTheyAre) {
  struct Group {
    Both<float> shared;
    std::vector<Both<float>> own;
  };
  std::vector<Group> groups;
  for (uint64_t seed = 0; seed < 3; ++seed) {
    Group group{Floats(70, seed), {}};
    for (uint64_t i = 0; i < 4; ++i) group.own.push_back(Floats(70, 10 * seed + i));
    groups.push_back(std::move(group));
  }
  const auto work = [](Group& group) {
    kernels::Scale(group.shared.span(), 1.5f);  // place 0
    {
      tw::Together inner;
      for (size_t i = 0; i < group.own.size(); ++i) {
        inner.Next();
        kernels::AddInPlace(group.own[i].span(), 2.0f, group.shared.span());  // 1
        if (i == 2) kernels::Scale(group.own[i].span(), 0.5f);                // 2
      }
    }
    kernels::AddInPlace(group.shared.span(), 1.0f, group.own[2].span());  // 3, behind the furthest
  };
  EXPECT_EQ(Together(groups, work), 4);
  for (const Group& group : groups) {
    EXPECT_TRUE(group.shared.Same());
    for (const auto& own : group.own) EXPECT_TRUE(own.Same());
  }
}

TEST_F(Queue, NumbersForTheHostMayBeAskedForInTheMiddleOfRows) {
  std::vector<TwoTensors> tensors = Tensors();
  std::vector<float> seen;
  const auto work = [&](TwoTensors& t) {
    kernels::Scale(t.x.span(), 3.0f);
    if (t.x.size() == 1000)
      seen.push_back(GetNumber<float>(reinterpret_cast<uint8_t*>(t.x.data())));
    kernels::AddInPlace(t.x.span(), 1.0f, t.y.span());
    kernels::Scale(t.y.span(), 0.5f);
  };
  EXPECT_GT(Together(tensors, work), 3);
  ExpectSame(tensors);
  ASSERT_EQ(seen.size(), 2u);
  EXPECT_EQ(seen[0], seen[1]);
}

TEST_F(Queue, BytesAreCopiedAndClearedAtAnyAddress) {
  struct Piece {
    Both<uint8_t> to, from, cleared;
    size_t bytes;
  };
  std::vector<Piece> pieces;
  for (const size_t bytes : {0, 1, 3, 15, 16, 17, 255, 4096, 16384, 16385, 40000}) {
    for (const size_t offset : {0, 1, 4, 16, 37}) {
      std::vector<uint8_t> values(bytes + 64);
      for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<uint8_t>(i * 7 + offset);
      pieces.push_back({Bytes(bytes + 64, offset), New(values, bytes % 5 == 0 ? 4 : 1),
                        New(values, offset), bytes});
    }
  }
  const auto work = [](Piece& p) {
    CopyBytes(p.to.data() + 8, p.from.data() + 4, p.bytes);
    ZeroBytes(p.cleared.data() + 16, p.bytes);
    const std::vector<uint8_t> few(p.bytes % 17, 0x5A), many(p.bytes % 3000, 0x77);
    PutBytes(p.to.data(), few.data(), few.size());
    PutBytes(p.from.data(), many.data(), many.size());
    PutNumber(p.cleared.data() + 3, 0x0123456789ABCDEFull);
  };
  // Whatever is copied, put or cleared is one launch a place.
  EXPECT_EQ(Together(pieces, work), 5);
  for (const Piece& p : pieces) EXPECT_TRUE(p.to.Same() && p.from.Same() && p.cleared.Same());
  for (Piece& p : pieces) OnBoth([&] { work(p); });
  for (const Piece& p : pieces) EXPECT_TRUE(p.to.Same() && p.from.Same() && p.cleared.Same());
}

TEST_F(Queue, TheHostsMemoryIsFreeWhenPutReturns) {
  struct Piece {
    Both<uint8_t> to;
    uint8_t value;
  };
  std::vector<Piece> pieces;
  const auto add = [&](size_t bytes) {
    pieces.push_back({Bytes(bytes, 1), static_cast<uint8_t>(pieces.size())});
  };
  for (size_t i = 0; i < 60; ++i) add(90000 + 7919 * (i % 5));  // wait in the ring for their turn
  for (size_t i = 0; i < 5; ++i) add(200000 + i);
  add(5000000);
  Together(pieces, [](Piece& piece) {
    std::vector<uint8_t> host(piece.to.size(), piece.value);
    PutBytes(piece.to.data(), host.data(), host.size());
    std::fill(host.begin(), host.end(), uint8_t{0xFF});
  });
  for (const Piece& piece : pieces) EXPECT_TRUE(piece.to.Same());
}

class QueueOfManyTensors : public Queue {
 protected:
  std::vector<Both<float>> Many(int count) {
    const HostMayLook look;
    std::vector<Both<float>> out;
    for (int i = 0; i < count; ++i) out.push_back(Floats(2, static_cast<uint64_t>(i)));
    return out;
  }
  static void ExpectSame(const std::vector<Both<float>>& many) {
    const HostMayLook look;
    for (const auto& t : many) EXPECT_TRUE(t.Same());
  }
  void TearDown() override {
    const HostMayLook look;
    many_.clear();
  }
  std::vector<Both<float>> many_;
};

TEST_F(QueueOfManyTensors, TheRingComesRoundManyTimes) {
  many_ = Many(800);
  for (int step = 0; step < 80; ++step) {  // tables of 32 kB, of which the ring has room for 64
    const float factor = 1.0f + 0.001f * static_cast<float>(step);
    Together(many_, [&](Both<float>& t) { kernels::Scale(t.span(), factor); });
  }
  const auto alone = [&] {
    for (int i = 0; i < 9000; ++i) kernels::Scale(many_[0].span(), i % 2 ? 2.0f : 0.5f);
  };
  OnBoth(alone);
  ExpectSame(many_);
}

TEST_F(QueueOfManyTensors, TablesMayBeLargerThanTheRingsParts) {
  many_ = Many(7000);  // 280 kB
  // Bytes that wait in the ring while it grows.
  std::vector<uint8_t> bytes(100000, 0x42);
  Both<uint8_t> to = Bytes(bytes.size());
  OnBoth([&] {
    tw::Together together;
    together.Next();
    PutBytes(to.data(), bytes.data(), bytes.size());
    for (auto& t : many_) {
      together.Next();
      kernels::Scale(t.span(), 0.5f);
    }
  });
  EXPECT_TRUE(to.Same());
  ExpectSame(many_);
}

TEST_F(Queue, MarksOrderQueues) {
  const auto other = device_.NewQueue();
  Both<float> x = Floats(5000, 1), y = Floats(5000, 2);
  std::unique_ptr<DeviceMark> mark;
  {
    const DeviceScope scope(queue_.get());
    kernels::Scale(x.span(), 2.0f);
    kernels::Scale(x.span(), 3.0f);
    mark = queue_->Mark();
  }
  {
    const DeviceScope scope(other.get());
    other->After(*mark);
    kernels::AddInPlace(y.span(), 1.0f, x.span());
  }
  EXPECT_TRUE(other->Wait().ok());  // which has made the first queue work
  EXPECT_TRUE(mark->reached());
  kernels::Scale(x.span(), 2.0f);
  kernels::Scale(x.span(), 3.0f);
  kernels::AddInPlace(y.span(), 1.0f, x.span());
  EXPECT_TRUE(y.Same());
}

TEST_F(Queue, PinnedCopiesArriveWithALaterMark) {
  Both<float> x = Floats(1000, 1);
  const DeviceScope scope(queue_.get());
  uint8_t* pinned = queue_->AllocatePinned(x.size() * sizeof(float));
  kernels::Scale(x.span(), 2.0f);
  queue_->StartCopyOut(pinned, x.data(), x.size() * sizeof(float));
  const auto mark = queue_->Mark();
  kernels::Scale(x.span(), 2.0f);  // behind the copy
  while (!mark->reached()) {
  }
  for (size_t i = 0; i < x.size(); ++i) {
    EXPECT_EQ(LoadLE<float>(pinned + i * sizeof(float)), 2.0f * x.host()[i]);
  }
  queue_->FreePinned(pinned);
}

TEST_F(Queue, CopiesFromPinnedMemoryKeepTheirOrder) {
  Both<float> x = Floats(1000, 1);
  const size_t bytes = x.size() * sizeof(float);
  const DeviceScope scope(queue_.get());
  uint8_t* pinned = queue_->AllocatePinned(bytes);
  std::vector<float> y(x.size());
  for (size_t i = 0; i < y.size(); ++i) StoreLE(pinned + i * sizeof(float), y[i] = 0.5f * i);
  std::unique_ptr<DeviceMark> mark;
  {
    tw::Together together;  // within rows too
    together.Next();
    kernels::Scale(x.span(), 2.0f);
    queue_->StartCopyIn(x.data(), pinned, bytes);
    kernels::Scale(x.span(), 3.0f);
  }
  mark = queue_->Mark();
  EXPECT_TRUE(queue_->WaitFor(*mark).ok());
  EXPECT_TRUE(mark->reached());
  std::memset(pinned, 0, bytes);
  queue_->StartCopyIn(x.data(), pinned, 0);
  for (float& number : y) number *= 3;
  EXPECT_EQ(x.device(), y);
  queue_->FreePinned(pinned);
}

TEST_F(Queue, TheDefaultStreamIsSharedAndEachDeviceHasItsOwn) {
  const auto first = device_.NewQueue(kernels::QueueStream::kDefault);
  const auto second = device_.NewQueue(kernels::QueueStream::kDefault);
  DeviceBuffer<float> x(device_, std::vector<float>(100, 1.0f));
  first->Scale(x.span(), 2.0f);
  second->Scale(x.span(), 3.0f);  // in one order without a mark
  float got = 0;
  second->CopyOut(&got, x.data(), sizeof(got));
  EXPECT_EQ(got, 6.0f);
  EXPECT_FALSE(kernels::MakeDeviceMemory(99).ok());
  const auto none = kernels::MakeDeviceQueue({99, kernels::QueueStream::kOwn, &device_.memory()});
  EXPECT_EQ(none.status().message(), "GPU 99: invalid device ordinal");
  // Nor is that an error of who launches next.
  second->Scale(x.span(), 2.0f);
  EXPECT_TRUE(second->Wait().ok());
}

// Passes on to a device's memory as long as there is room.
class MemoryWithAnEnd : public DeviceMemory {
 public:
  explicit MemoryWithAnEnd(DeviceMemory& memory) : memory_(memory) {}
  uint8_t* Allocate(size_t bytes) override {
    if (full) throw std::bad_alloc();
    return memory_.Allocate(bytes);
  }
  void Free(uint8_t* memory) override { memory_.Free(memory); }
  bool full = false;

 private:
  DeviceMemory& memory_;
};

TEST_F(Queue, WithoutMemoryForScratchThereIsAnError) {
  MemoryWithAnEnd memory(device_.memory());
  auto made = kernels::MakeDeviceQueue({0, kernels::QueueStream::kOwn, &memory});
  TW_CHECK_OK(made);
  kernels::DeviceKernels& queue = **made;
  DeviceBuffer<float> x(device_, std::vector<float>(3, 2.0f));
  const TensorView views[] = {{x.data(), DType::kF32, 3}};
  double sum = 1;
  memory.full = true;
  {
    const DeviceScope scope(&queue);
    tw::Together together;  // whose end launches: no place for an exception
    together.Next();
    queue.AdamMiniBlocks(x.span(), x.span(), x.span(), x.span().first(1), 3, {});
    queue.SumsOfSquares(views, {&sum, 1});
    queue.EncodeSigns({x.span()}, kernels::SignMeans::kOne, nullptr, nullptr);
  }
  EXPECT_EQ(sum, 0);
  EXPECT_EQ(queue.Wait().message(), "GPU 0: no memory is left for tables and scratch of kernels");
  memory.full = false;
  EXPECT_FALSE(queue.Wait().ok());
}

TEST_F(Queue, ThreadsHaveQueuesOfTheirOwn) {
  std::vector<std::thread> threads;
  std::vector<int> wrong(3);
  for (size_t i = 0; i < wrong.size(); ++i) {
    threads.emplace_back([this, i, &wrong] {
      TestDevice device(static_cast<int>(i));
      const auto queue = device.NewQueue();
      DeviceBuffer<float> x(device, std::vector<float>(6000, 1.0f));
      for (int round = 0; round < 20; ++round) {
        const DeviceScope scope(queue.get());
        kernels::Scale(x.span(), 2.0f);
        wrong[i] += GetNumber<float>(reinterpret_cast<uint8_t*>(x.data())) !=
                    std::exp2(static_cast<float>(round + 1));
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(wrong, std::vector<int>(3));
}

}  // namespace
}  // namespace tw
