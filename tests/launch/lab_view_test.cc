#include "launch/lab/lab_view.h"

#include <gtest/gtest.h>

namespace tw {
namespace {

TEST(LabClock, CorrectsWhatIsExpectedByWhatWasMeasured) {
  LabClock clock({{"a", 10}, {"b", 20}, {"c", 30}});
  EXPECT_DOUBLE_EQ(clock.left(7), 60);
  EXPECT_DOUBLE_EQ(clock.done(7), 0);
  clock.Began("a", 7);
  EXPECT_DOUBLE_EQ(clock.left(11), 56);
  // It never counts as done before it is.
  EXPECT_DOUBLE_EQ(clock.left(107), 0.2 + 20 + 30);
  clock.Finished("a", 20);  // half as fast: (20 + 3) / (10 + 3)
  EXPECT_DOUBLE_EQ(clock.left(27), 50 * 23.0 / 13);
  clock.Began("b", 27);
  clock.Finished("b", 40);
  clock.Began("c", 67);
  clock.Finished("c", 60);
  EXPECT_DOUBLE_EQ(clock.left(127), 0);
  EXPECT_DOUBLE_EQ(clock.done(127), 1);
}

TEST(LabClock, DividesByWhatRunsAtOnceButNotWhatIsOne) {
  LabClock clock({{"a", 40}, {"b", 10}, {"c", 10}}, 2);
  EXPECT_DOUBLE_EQ(clock.left(0), 40);  // the long one alone takes as much
  clock.Began("a", 0);
  clock.Began("b", 0);
  EXPECT_DOUBLE_EQ(clock.left(5), 35);
  EXPECT_DOUBLE_EQ(clock.done(5), 10.0 / (10 + 2 * 35));
  clock.Finished("b", 10);
  clock.Began("c", 10);
  clock.Finished("a", 40);
  EXPECT_DOUBLE_EQ(clock.left(40), 0.2);
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
  LabProgress progress(screen.terminal(false), {{"one", 1}, {"two", 1}});
  progress.Begin("one");
  progress.Round({.label = "sgd", .rounds = 10}, 5);
  EXPECT_EQ(screen.text, "");
  progress.End(Record("one", 1.25));
  progress.Begin("two");
  LabRecord broken = Record("two", 0);
  broken.error = "no file";
  progress.End(broken);
  EXPECT_EQ(screen.text,
            "lab 1/2: one: 1 PASS, 1 FAIL (1.2 s)\nlab 2/2: two: could not run (0.0 s)\n");
}

TEST(LabProgress, DrawsABarWithTheTimeLeftOnATerminal) {
  Screen screen;
  LabProgress progress(screen.terminal(true), {{"one", 60}, {"two", 60}});
  progress.Begin("one");
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

TEST(LabProgress, NamesAllThatRunAndCountsThoseThatEnd) {
  Screen screen;
  LabProgress bar(screen.terminal(true), {{"one", 60}, {"two", 60}, {"three", 60}}, 2);
  bar.Begin("one");
  bar.Begin("two");
  screen.text.clear();
  screen.now = 30e3;
  bar.Tick();
  EXPECT_EQ(screen.text.rfind("\r\x1b[K 33% 2/3 one, two [", 0), 0u) << screen.text;
  EXPECT_NE(screen.text.find("] ETA 1:00 "), std::string::npos) << screen.text;
  screen.text.clear();
  bar.Tick();
  EXPECT_EQ(screen.text, "");

  LabProgress lines(screen.terminal(false), {{"one", 60}, {"two", 60}}, 2);
  lines.Begin("one");
  lines.Begin("two");
  lines.Tick();
  lines.End(Record("two", 1));
  lines.End(Record("one", 2));
  EXPECT_EQ(screen.text,
            "lab 1/2: two: 1 PASS, 1 FAIL (1.0 s)\nlab 2/2: one: 1 PASS, 1 FAIL (2.0 s)\n");
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
