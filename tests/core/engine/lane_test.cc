#include "core/engine/lane.h"

#include <gtest/gtest.h>

#include <stdexcept>
#include <vector>

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

}  // namespace
}  // namespace tw
