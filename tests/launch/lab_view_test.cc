#include "launch/lab/lab_view.h"

#include <gtest/gtest.h>

namespace tw {
namespace {

TEST(LabClock, CorrectsWhatIsExpectedByWhatWasMeasured) {
  LabClock clock({10, 20, 30});
  EXPECT_DOUBLE_EQ(clock.left(0), 60);
  EXPECT_DOUBLE_EQ(clock.done(0), 0);
  EXPECT_DOUBLE_EQ(clock.left(4), 56);
  // It never counts as done before it is.
  EXPECT_DOUBLE_EQ(clock.left(100), 0.2 + 20 + 30);
  clock.Finished(20);  // half as fast: (20 + 3) / (10 + 3)
  EXPECT_DOUBLE_EQ(clock.left(0), 50 * 23.0 / 13);
  clock.Finished(40);
  clock.Finished(60);
  EXPECT_DOUBLE_EQ(clock.left(0), 0);
  EXPECT_DOUBLE_EQ(clock.done(0), 1);
}

struct Screen {
  std::string text;
  double now = 0;
  ConsoleTerminal terminal(bool interactive) {
    return {interactive, 100, [this](const std::string& t) { text += t; }, [this] { return now; }};
  }
};

LabRecord Record(const std::string& name, double seconds) {
  LabRecord record{.name = name, .info = {"Nobody", "", {}, 1}, .seconds = seconds};
  record.claims = {{.claim = "a", .measured = 1, .threshold = "< 2", .pass = true},
                   {.claim = "b", .measured = 3, .threshold = "< 2", .seeds = 3}};
  return record;
}

TEST(LabProgress, SaysALineAnExperimentWithoutATerminal) {
  Screen screen;
  LabProgress progress(screen.terminal(false), {"one", "two"}, {1, 1});
  progress.Begin();
  progress.Round({.label = "sgd", .rounds = 10}, 5);
  EXPECT_EQ(screen.text, "");
  progress.End(Record("one", 1.25));
  progress.Begin();
  LabRecord broken = Record("two", 0);
  broken.error = "no file";
  progress.End(broken);
  EXPECT_EQ(screen.text,
            "lab 1/2: one: 1 PASS, 1 FAIL (1.2 s)\nlab 2/2: two: could not run (0.0 s)\n");
}

TEST(LabProgress, DrawsABarWithTheTimeLeftOnATerminal) {
  Screen screen;
  LabProgress progress(screen.terminal(true), {"one", "two"}, {60, 60});
  progress.Begin();
  screen.text.clear();
  screen.now = 30e3;
  const LabRun run{.label = "ef14, zeta 1", .seed = 2, .rounds = 4000};
  progress.Round(run, 1000);
  EXPECT_EQ(screen.text.rfind("\r\x1b[K 25% 1/2 one [", 0), 0u) << screen.text;
  EXPECT_NE(screen.text.find("] ETA 1:30  ef14, zeta 1, seed 2: round 1000/4000"),
            std::string::npos);
  EXPECT_LT(screen.text.size(), 100u + 5);  // one line of the terminal
  screen.text.clear();
  progress.Round(run, 1001);  // not ten times a millisecond
  EXPECT_EQ(screen.text, "");
  progress.End(Record("one", 30));
  EXPECT_EQ(screen.text, "\r\x1b[K");  // the table has the place to itself
}

TEST(LabTables, ShowEveryClaimAndRepeatWhatFailed) {
  LabRecord record = Record("one", 1.25);
  record.claims.push_back(
      {.claim = "c", .measured = 3, .threshold = "< 2", .does_not_hold = "too few"});
  const std::string table = ClaimTable(record);
  EXPECT_EQ(table.rfind("one: Nobody, 1.2 s\n", 0), 0u) << table;
  for (const char* part :
       {"  PASS  ", "  FAIL  ", "  does not hold here  ", "too few\n", "3 seeds"}) {
    EXPECT_NE(table.find(part), std::string::npos) << part;
  }
  const std::string totals = Totals({record, Record("two", 2)}, 65);
  EXPECT_EQ(totals,
            "2 experiments, 5 claims: 2 PASS, 2 FAIL, 1 does not hold here; 1:05\n"
            "  FAIL  one: b: 3, to be < 2\n"
            "  FAIL  two: b: 3, to be < 2\n");
}

}  // namespace
}  // namespace tw
