#pragma once
// Experiments beside each other, a process each: `lab run` on several cores without mpirun. A
// worker is this program again (`lab work NAME`), which writes the experiment's files itself and
// tells the rest on its standard output.

#include <functional>
#include <string>
#include <vector>

#include "launch/lab/lab_files.h"

namespace tw {

// What there is to say of one experiment when it has ended.
struct LabResult {
  LabRecord record;
  std::string text;  // for stdout: its table, or a JSON line a claim
  Status status;     // that it could be run
  Status written;    // that its files could be written
  bool took_rows = false, took_images = false;
};

// As one line of JSON, and back: name, seconds, error and claims of the record, and all else.
std::string ResultJson(const LabResult& result);
StatusOr<LabResult> ReadResultJson(const std::string& line);

struct LabJob {
  std::string name;
  double expected = 1;  // seconds
  bool alone = false;   // it measures times: nothing may run beside it
};

// In the order to start them: the longest first, so that the last ones are short, and those that
// want to be alone at the end.
void SortJobs(std::vector<LabJob>& jobs);

struct LabJobsWatch {
  std::function<void(const LabJob&)> began;
  std::function<void(LabResult)> ended;  // a worker that died has an error in its result
  std::function<void()> tick;            // several times a second
};

// At most `at_once` workers at a time: this program with the words of `command`, the program's name
// first. On the calling thread; ends when all have. BugError where no process can be started.
Status RunJobs(const std::vector<LabJob>& jobs, int at_once,
               const std::function<std::vector<std::string>(const std::string& name)>& command,
               const LabJobsWatch& watch);

// To be called first in a worker: it ends when the process that started it does.
void EndWithParent();

}  // namespace tw
