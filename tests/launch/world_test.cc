#include "launch/world.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <string>
#include <thread>

namespace tw {
namespace {

class ThreadsTest : public testing::Test {
 protected:
  void SetUp() override {
    if (const char* was = std::getenv("OMP_NUM_THREADS")) saved_ = was;
  }
  void TearDown() override {
    saved_.empty() ? ::unsetenv("OMP_NUM_THREADS")
                   : ::setenv("OMP_NUM_THREADS", saved_.c_str(), /*overwrite=*/1);
  }

 private:
  std::string saved_;
};

TEST_F(ThreadsTest, TheEnvironmentsNumberHoldsForAnyNumberOfRanks) {
  ::setenv("OMP_NUM_THREADS", "3", 1);
  EXPECT_EQ(DefaultThreads(1), 3);
  EXPECT_EQ(DefaultThreads(1000), 3);
}

TEST_F(ThreadsTest, OtherwiseCoresAreSharedAndNobodyHasNone) {
  const int cores = static_cast<int>(std::thread::hardware_concurrency());
  for (const char* nothing : {"", "0", "-2", "many"}) {
    ::setenv("OMP_NUM_THREADS", nothing, 1);
    EXPECT_EQ(DefaultThreads(1), cores) << nothing;
    EXPECT_EQ(DefaultThreads(cores), 1) << nothing;
    EXPECT_EQ(DefaultThreads(cores + 1), 1) << nothing;
  }
}

}  // namespace
}  // namespace tw
