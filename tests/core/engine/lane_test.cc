#include "core/engine/lane.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

#include "core/engine/catch_torch.h"

namespace tw {
namespace {

TEST(Lane, RunsWorkInTheOrderItWasPosted) {
  Lane lane;
  std::vector<int> order;
  for (int i = 0; i < 200; ++i) {
    lane.Post([&order, i] {
      order.push_back(i);
      return OkStatus();
    });
  }
  ASSERT_TRUE(lane.Wait().ok());
  ASSERT_EQ(order.size(), 200u);
  for (int i = 0; i < 200; ++i) EXPECT_EQ(order[static_cast<size_t>(i)], i);
}

TEST(Lane, WorkRunsOnOneThreadOfItsOwn) {
  Lane lane;
  std::vector<std::thread::id> ids;
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(lane.Run([&] {
                      ids.push_back(std::this_thread::get_id());
                      return OkStatus();
                    })
                    .ok());
  }
  EXPECT_NE(ids[0], std::this_thread::get_id());
  EXPECT_EQ(ids[0], ids[1]);
  EXPECT_EQ(ids[0], ids[2]);
}

TEST(Lane, TheFirstErrorStaysAndLaterWorkIsSkipped) {
  Lane lane;
  bool later = false;
  lane.Post([] { return PeerError("first"); });
  lane.Post([&] {
    later = true;
    return DataError("second");
  });
  for (int i = 0; i < 2; ++i) {
    const Status status = lane.Wait();
    EXPECT_EQ(status.message(), "first");
    EXPECT_EQ(ExitCode(status), 4);
  }
  EXPECT_EQ(lane.Run([&] {
                  later = true;
                  return OkStatus();
                })
                .message(),
            "first");
  EXPECT_FALSE(later);
}

TEST(Lane, AnExceptionBecomesAStatus) {
  Lane lane;
  const Status status = lane.Run([]() -> Status { throw std::runtime_error("out of luck"); });
  EXPECT_EQ(ExitCode(status), 70);
  EXPECT_NE(std::string(status.message()).find("out of luck"), std::string::npos) << status;
}

TEST(Lane, MemoryThatIsNotThereIsNoBug) {
  Lane lane;
  const Status status = lane.Run([]() -> Status { throw std::bad_alloc(); });
  EXPECT_EQ(ExitCode(status), 2);
  EXPECT_EQ(status.message(),
            "out of memory (std::bad_alloc); a smaller model, batch or context needs less");
  EXPECT_EQ(
      TorchError(std::runtime_error("CUDA out of memory. Tried to allocate 2 GiB.\nAt:")).message(),
      "out of memory (CUDA out of memory. Tried to allocate 2 GiB.); a smaller model, batch "
      "or context needs less");
}

TEST(Lane, FinishesWhatWasPostedBeforeItEnds) {
  int done = 0;
  {
    Lane lane;
    for (int i = 0; i < 50; ++i) {
      lane.Post([&done] {
        ++done;
        return OkStatus();
      });
    }
  }
  EXPECT_EQ(done, 50);
}

// Done after a number of looks.
class SlowTicket : public Ticket {
 public:
  explicit SlowTicket(int looks) : looks_(looks) {}
  StatusOr<Progress> Test() override { return looks_-- > 0 ? Progress::kIdle : Progress::kDone; }
  Status Wait() override { return OkStatus(); }

 private:
  int looks_;
};

Async Note(std::vector<std::string>* log, std::string name, int looks, int* under_way, int* most) {
  *most = std::max(*most, ++*under_way);
  log->push_back(name + " starts");
  SlowTicket ticket(looks);
  TW_CO_RETURN_IF_ERROR(co_await ticket);
  log->push_back(name + " ends");
  --*under_way;
  co_return OkStatus();
}

TEST(Lane, LaunchedWorkSharesTheThreadUpToTheLimit) {
  for (const int limit : {1, 2, 3}) {
    Lane lane(limit);
    std::vector<std::string> log;
    int under_way = 0, most = 0;
    for (int i = 0; i < 6; ++i) {
      lane.Launch(
          [&, i] { return Note(&log, "work" + std::to_string(i), 6 - i, &under_way, &most); });
    }
    ASSERT_TRUE(lane.Wait().ok());
    EXPECT_EQ(most, limit);
    EXPECT_EQ(log.size(), 12u);
  }
}

TEST(Lane, PostedWorkRunsAlone) {
  Lane lane(3);
  std::vector<std::string> log;
  int under_way = 0, most = 0, seen = -1;
  lane.Launch([&] { return Note(&log, "a", 5, &under_way, &most); });
  lane.Launch([&] { return Note(&log, "b", 2, &under_way, &most); });
  lane.Post([&] {
    seen = under_way;
    log.push_back("alone");
    return OkStatus();
  });
  lane.Launch([&] { return Note(&log, "c", 0, &under_way, &most); });
  ASSERT_TRUE(lane.Wait().ok());
  EXPECT_EQ(seen, 0);
  ASSERT_EQ(log.size(), 7u);
  EXPECT_EQ(log[4], "alone");
  EXPECT_EQ(log[5], "c starts");
}

TEST(Lane, AnErrorWhileOthersAreUnderWayEndsThem) {
  Lane lane(2);
  bool ended = false;
  const auto forever = [](bool* flag) -> Async {
    SlowTicket ticket(1 << 30);
    TW_CO_RETURN_IF_ERROR(co_await ticket);
    *flag = true;
    co_return OkStatus();
  };
  const auto fails = []() -> Async {
    SlowTicket ticket(3);
    TW_CO_RETURN_IF_ERROR(co_await ticket);
    co_return PeerError("lost");
  };
  lane.Launch([&] { return forever(&ended); });
  lane.Launch([&] { return fails(); });
  EXPECT_EQ(lane.Wait().message(), "lost");
  EXPECT_FALSE(ended);
}

}  // namespace
}  // namespace tw
