#pragma once
// What `lab run` shows while it works and at its end, apart from where it goes.

#include <map>
#include <string>
#include <vector>

#include "launch/lab/lab_files.h"
#include "launch/sinks/console_view.h"

namespace tw {

// How long a run of all experiments will still take: the expected seconds of each, corrected by how
// fast the finished ones were. Times in seconds, of any clock.
class LabClock {
 public:
  // Expected seconds, and how many run at once.
  explicit LabClock(std::map<std::string, double> expected, int at_once = 1);
  void Began(const std::string& name, double now);
  void Finished(const std::string& name, double seconds);
  // What runs never counts as done before it is.
  double left(double now) const;
  double done(double now) const;  // part of the whole, 0..1

 private:
  double factor() const;

  std::map<std::string, double> waiting_;  // expected
  struct Running {
    double expected, began;
  };
  std::map<std::string, Running> running_;
  int at_once_;
  double expected_done_ = 0, seconds_done_ = 0;
};

// Progress: on a terminal a bar over all experiments, redrawn in place; otherwise a line for each
// that ends.
class LabProgress {
 public:
  // Expected seconds of each experiment, and how many run at once.
  LabProgress(ConsoleTerminal terminal, std::map<std::string, double> expected, int at_once = 1);
  ~LabProgress();

  void Begin(const std::string& name);
  void Round(const LabRun& run, int64_t round);
  void Tick();  // time has passed
  void End(const LabRecord& record);
  // Takes the bar away, so that something else can be printed.
  void Clear();

 private:
  void Draw(const std::string& what);

  double now() const { return terminal_.now_ms() / 1e3; }

  ConsoleTerminal terminal_;
  size_t all_;
  LabClock clock_;
  std::vector<std::string> running_;
  size_t begun_ = 0, ended_ = 0;
  double drawn_ms_ = 0;
  bool bar_open_ = false;
};

// "5 PASS, 1 FAIL", "1 does not hold here".
std::string CountVerdicts(const std::vector<LabRecord>& records);
// The claims of one experiment, a line each.
std::string ClaimTable(const LabRecord& record);
// After the last experiment: how many of what, and once more what failed.
std::string Totals(const std::vector<LabRecord>& records, double seconds);

}  // namespace tw
