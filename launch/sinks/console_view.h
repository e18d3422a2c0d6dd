#pragma once
// What the console sink shows, apart from where it goes: tests hand in text, clock and width.

#include <deque>
#include <functional>
#include <string>

#include "core/api/metrics.h"

namespace tw {

struct ConsoleTerminal {
  bool interactive = false;  // a progress bar redrawn in place; else plain lines
  int columns = 80;
  std::function<void(const std::string&)> print;
  std::function<double()> now_ms;
};

// Standard error as it is now. A lost terminal is no reason to lose a run: errors are not reported.
ConsoleTerminal StderrTerminal();
// "HEAD [####....] TAIL", to be printed with RedrawLine. The bar gets what the texts leave of
// `columns`; what does not fit is cut, as a line that wraps could not be redrawn in place.
std::string BarLine(int columns, double done, const std::string& head, const std::string& tail);
// In the place of the line before, which ended without a line break.
std::string RedrawLine(const std::string& line);

// "512 B", "3.4 kB", "12.0 MB": powers of 1000, as network rates are.
std::string HumanBytes(double bytes);
// "0:07", "12:34", "3:02:01", "2d 03:00".
std::string HumanDuration(double seconds);

// Not thread safe.
class ConsoleView : public MetricSink {
 public:
  ConsoleView(const RunInfo& info, ConsoleTerminal terminal);
  ~ConsoleView() override;
  Status Write(const StepRecord& record) override;
  // Ends an open bar with a line break, so that a log line may follow.
  Status Flush() override;

 private:
  std::string Numbers(const StepRecord& record) const;
  void DrawBar(const StepRecord& record);

  RunInfo info_;
  ConsoleTerminal terminal_;
  int64_t line_every_;
  int64_t written_ = 0;
  int64_t skipped_ = 0;
  int64_t first_step_ = 0;      // of the first record
  int64_t last_line_step_ = 0;  // of the last plain line
  double first_ms_ = 0;         // when the first record came
  double last_drawn_ms_ = 0;    // when the bar was drawn last
  bool bar_open_ = false;
  std::deque<StepRecord> recent_;  // what loss and times are averaged over
};

}  // namespace tw
