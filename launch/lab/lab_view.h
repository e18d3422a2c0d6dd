#pragma once
// What `lab run` shows while it works and at its end, apart from where it goes.

#include <string>
#include <vector>

#include "launch/lab/lab_files.h"
#include "launch/sinks/console_view.h"

namespace tw {

// How long a run of all experiments will still take: the expected seconds of each, corrected by how
// fast the finished ones were.
class LabClock {
 public:
  // Expected seconds, in the order they are run.
  explicit LabClock(std::vector<double> expected);
  void Finished(double seconds);  // the current one
  // `seconds` into the current one. It never counts as done before it is.
  double left(double seconds) const;
  double done(double seconds) const;  // part of the whole, 0..1

 private:
  double factor() const;

  std::vector<double> expected_;
  size_t current_ = 0;
  double expected_done_ = 0, seconds_done_ = 0;
};

// Progress: on a terminal a bar over all experiments, redrawn in place; otherwise a line for each
// that ends.
class LabProgress {
 public:
  LabProgress(ConsoleTerminal terminal, std::vector<std::string> names,
              std::vector<double> seconds);
  ~LabProgress();

  void Begin();  // the next experiment
  void Round(const LabRun& run, int64_t round);
  void End(const LabRecord& record);
  // Takes the bar away, so that something else can be printed.
  void Clear();

 private:
  void Draw(const std::string& what);

  ConsoleTerminal terminal_;
  std::vector<std::string> names_;
  LabClock clock_;
  size_t current_ = 0;  // counts from 1
  double began_ms_ = 0, drawn_ms_ = 0;
  bool bar_open_ = false;
};

// "5 PASS, 1 FAIL", "1 does not hold here".
std::string CountVerdicts(const std::vector<LabRecord>& records);
// The claims of one experiment, a line each.
std::string ClaimTable(const LabRecord& record);
// After the last experiment: how many of what, and once more what failed.
std::string Totals(const std::vector<LabRecord>& records, double seconds);

}  // namespace tw
