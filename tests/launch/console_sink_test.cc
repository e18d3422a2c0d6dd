#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

#include "launch/sinks/console_view.h"

namespace tw {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class Console : public ::testing::Test {
 protected:
  ConsoleTerminal Terminal(bool interactive) {
    ConsoleTerminal t;
    t.interactive = interactive;
    t.columns = 100;
    t.print = [this](const std::string& text) { printed_.push_back(text); };
    t.now_ms = [this] { return now_ms_; };
    return t;
  }
  void Steps(ConsoleView& view, int64_t from, int64_t to, double ms) {
    for (int64_t step = from; step <= to; ++step) {
      now_ms_ += ms;
      StepRecord record;
      record.step = step;
      record.loss = 2.5;
      record.step_ms = ms;
      record.wire_bytes = 1234567;
      TW_CHECK_OK(view.Write(record));
    }
  }
  RunInfo Info(int64_t total) {
    RunInfo info;
    info.total_steps = total;
    return info;
  }
  double now_ms_ = 1e6;
  std::vector<std::string> printed_;
};

TEST_F(Console, PrintsAboutTwentyPlainLinesARun) {
  ConsoleView view(Info(1000), Terminal(false));
  Steps(view, 1, 1000, 10);
  EXPECT_EQ(printed_.size(), 21u);  // the first step and every 50th
  EXPECT_EQ(printed_[0], "step 1/1000  loss 2.5000  10.0 ms/step  1.23 MB/step\n");
  EXPECT_EQ(printed_[1], "step 50/1000  loss 2.5000  10.0 ms/step  1.23 MB/step  ETA 0:10\n");
  EXPECT_THAT(printed_.back(), HasSubstr("step 1000/1000"));
  EXPECT_THAT(printed_.back(), HasSubstr("took 0:10"));
}

TEST_F(Console, PrintsTheLastStepOfAnOddRun) {
  ConsoleView view(Info(47), Terminal(false));
  Steps(view, 1, 47, 10);
  EXPECT_THAT(printed_.back(), HasSubstr("step 47/47"));
}

TEST_F(Console, KeepsLinesAndEtaRightWhenRecordsAreSparse) {
  ConsoleView view(Info(1000), Terminal(false));
  for (int64_t step = 7; step <= 994; step += 7) {
    now_ms_ += 60;
    Steps(view, step, step, 10);
  }
  EXPECT_EQ(printed_.size(), 20u);
  EXPECT_THAT(printed_[1], HasSubstr("step 56/1000"));
  EXPECT_THAT(printed_[1], HasSubstr("ETA 0:09"));  // 944 steps of 10 ms
}

TEST_F(Console, RedrawsTheBarInPlaceAndNotTooOften) {
  ConsoleView view(Info(100), Terminal(true));
  Steps(view, 1, 50, 10);
  EXPECT_LE(printed_.size(), 6u);  // 500 ms
  for (const std::string& text : printed_) {
    EXPECT_EQ(text.substr(0, 4), "\r\x1b[K");
    EXPECT_LE(text.size() - 4, 99u);
    EXPECT_THAT(text, Not(HasSubstr("\n")));
  }
  Steps(view, 51, 100, 10);
  EXPECT_EQ(printed_.back(), "\n");  // the shell's prompt must not follow the bar
  EXPECT_THAT(printed_[printed_.size() - 2], HasSubstr("100% step 100/100 [####"));
}

TEST_F(Console, EndsAnOpenBarBeforeOthersPrint) {
  ConsoleView view(Info(100), Terminal(true));
  Steps(view, 1, 1, 10);
  ASSERT_TRUE(view.Flush().ok());
  ASSERT_TRUE(view.Flush().ok());
  EXPECT_EQ(std::count(printed_.begin(), printed_.end(), "\n"), 1);
}

TEST_F(Console, NarrowTerminalNeverWraps) {
  ConsoleTerminal terminal = Terminal(true);
  terminal.columns = 30;
  ConsoleView view(Info(100), std::move(terminal));
  Steps(view, 1, 1, 10);
  EXPECT_EQ(printed_[0].size() - 4, 29u);
}

TEST_F(Console, CountsSkippedStepsAndLeavesTheirLossOut) {
  ConsoleView view(Info(20), Terminal(false));
  Steps(view, 1, 1, 10);
  StepRecord bad;
  bad.step = 2;
  bad.loss = std::numeric_limits<double>::quiet_NaN();
  bad.skipped = true;
  ASSERT_TRUE(view.Write(bad).ok());
  EXPECT_THAT(printed_.back(), HasSubstr("loss 2.5000"));
  EXPECT_THAT(printed_.back(), HasSubstr("1 skipped"));
}

TEST_F(Console, EtaOfAResumedRunCountsItsOwnStepsOnly) {
  RunInfo info = Info(1000);
  info.first_step = 900;
  ConsoleView view(info, Terminal(false));
  Steps(view, 901, 950, 1000);
  EXPECT_THAT(printed_.back(), HasSubstr("ETA 0:50"));
}

TEST(HumanBytes, HasThreeDigits) {
  EXPECT_EQ(HumanBytes(0), "0 B");
  EXPECT_EQ(HumanBytes(999), "999 B");
  EXPECT_EQ(HumanBytes(1000), "1 kB");
  EXPECT_EQ(HumanBytes(123456), "123 kB");
  EXPECT_EQ(HumanBytes(999900), "1 MB");
  EXPECT_EQ(HumanBytes(7.5e9), "7.5 GB");
}

TEST(HumanDuration, GrowsFromSecondsToDays) {
  EXPECT_EQ(HumanDuration(7.4), "0:07");
  EXPECT_EQ(HumanDuration(754), "12:34");
  EXPECT_EQ(HumanDuration(10921), "3:02:01");
  EXPECT_EQ(HumanDuration(2 * 86400 + 3 * 3600 + 59), "2d 03:00");
}

}  // namespace
}  // namespace tw
