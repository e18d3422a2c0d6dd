#include "core/api/async.h"

#include <gtest/gtest.h>

#include <deque>
#include <stdexcept>
#include <string>

namespace tw {
namespace {

// Arrives after so many looks, with `status`.
class CountedTicket : public Ticket {
 public:
  explicit CountedTicket(int looks, Status status = OkStatus())
      : looks_(looks), status_(std::move(status)) {}
  StatusOr<Progress> Test() override {
    if (looks_-- > 0) return Progress::kIdle;
    if (!status_.ok()) return status_;
    return Progress::kDone;
  }
  Status Wait() override {
    looks_ = 0;
    return status_;
  }

 private:
  int looks_;
  Status status_;
};

Async Waits(Ticket& ticket, std::string* log, const char* name) {
  *log += std::string(name) + "(";
  TW_CO_RETURN_IF_ERROR(co_await ticket);
  *log += std::string(name) + ")";
  co_return OkStatus();
}

Async Twice(Ticket& first, Ticket& second, std::string* log) {
  TW_CO_RETURN_IF_ERROR(co_await Waits(first, log, "a"));
  TW_CO_RETURN_IF_ERROR(co_await Waits(second, log, "b"));
  *log += "end";
  co_return OkStatus();
}

Async Throws(Ticket& ticket) {
  TW_CO_RETURN_IF_ERROR(co_await ticket);
  throw std::runtime_error("thrown inside");
}

Async Outer(Ticket& ticket) { co_return co_await Throws(ticket); }

TEST(Async, StartsWhenItIsDrivenAndRunsToItsFirstWait) {
  CountedTicket first(1), second(1);
  std::string log;
  AsyncRun run(Twice(first, second, &log));
  EXPECT_EQ(log, "");
  run.Resume();
  EXPECT_EQ(log, "a(");
  ASSERT_EQ(run.waiting(), &first);
  run.Arrived(OkStatus());
  EXPECT_EQ(log, "a(a)b(");
  ASSERT_EQ(run.waiting(), &second);
  run.Arrived(OkStatus());
  EXPECT_EQ(log, "a(a)b(b)end");
  ASSERT_TRUE(run.done());
  EXPECT_TRUE(run.TakeResult().ok());
}

TEST(Async, WhatHasArrivedIsNotWaitedFor) {
  CountedTicket first(0), second(0);
  std::string log;
  AsyncRun run(Twice(first, second, &log));
  run.Resume();
  EXPECT_TRUE(run.done());
  EXPECT_EQ(log, "a(a)b(b)end");
}

TEST(Async, AnErrorOfATicketEndsTheChain) {
  for (const int looks : {0, 1}) {
    CountedTicket first(looks, PeerError("gone")), second(0);
    std::string log;
    EXPECT_EQ(RunBlocking(Twice(first, second, &log)).message(), "gone");
    EXPECT_EQ(log, "a(");
  }
}

TEST(Async, AnExceptionReachesWhoeverDrives) {
  for (const int looks : {0, 1}) {
    CountedTicket ticket(looks);
    EXPECT_THROW((void)RunBlocking(Outer(ticket)), std::runtime_error);
  }
}

TEST(Async, MayBeDroppedHalfWay) {
  CountedTicket first(1), second(1);
  std::string log;
  {
    AsyncRun run(Twice(first, second, &log));
    run.Resume();
    AsyncRun moved = std::move(run);
    EXPECT_EQ(moved.waiting(), &first);
  }
  EXPECT_EQ(log, "a(");
}

TEST(Async, FramesAreUsedAgain) {
  void* first = internal::NewFrame(500);
  internal::DeleteFrame(first, 500);
  void* second = internal::NewFrame(500);
  EXPECT_EQ(first, second);
  internal::DeleteFrame(second, 500);
}

}  // namespace
}  // namespace tw
