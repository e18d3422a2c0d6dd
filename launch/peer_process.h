#pragma once
// A Python program that takes turns with a measurement: it times one repetition whenever asked.

#include <sys/types.h>

#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "core/base/status.h"

namespace tw {

class PeerProcess {
 public:
  // The script prints a line when it is ready ("none": it has no counterpart), then for each line
  // on its standard input one with milliseconds. ConfigError when it does not run; null when it has
  // no counterpart.
  static StatusOr<std::unique_ptr<PeerProcess>> Start(const std::string& python,
                                                      const std::string& script,
                                                      const std::vector<std::string>& arguments);
  ~PeerProcess();
  PeerProcess(const PeerProcess&) = delete;
  PeerProcess& operator=(const PeerProcess&) = delete;

  // Milliseconds of one repetition; or whatever number the script has for this word.
  StatusOr<double> Turn(const std::string& word = "");

 private:
  PeerProcess() = default;
  StatusOr<std::string> ReadLine();

  std::string python_;
  pid_t child_ = -1;
  std::FILE* to_ = nullptr;
  std::FILE* from_ = nullptr;
};

}  // namespace tw
