#pragma once
// Lines for the log are dropped while one lives: for runs inside of another program's output, whose
// verdicts are returned as values. Made and destroyed by one thread.

namespace tw {

class QuietLog {
 public:
  QuietLog();
  ~QuietLog();
  QuietLog(const QuietLog&) = delete;
  QuietLog& operator=(const QuietLog&) = delete;

 private:
  int level_;
};

}  // namespace tw
