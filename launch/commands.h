#pragma once
// The subcommands of the program. Each returns the status the process exits with; main.cc prints
// it.

#include <iosfwd>
#include <string>
#include <vector>

#include "core/base/status.h"

namespace tw {

struct DeviceModule;

// `devices` in the place of this machine's, for tests.
Status RunTrain(const std::string& config, const std::vector<std::string>& overrides, bool json,
                const DeviceModule* devices = nullptr);
Status RunEval(const std::string& config, const std::vector<std::string>& overrides, bool json,
               std::ostream& out);
Status RunExplain(const std::string& config, const std::vector<std::string>& overrides, bool json,
                  std::ostream& out);
// `kind` empty: every kind.
Status RunList(const std::string& kind, bool json, std::ostream& out);

// `verb` is list or run; `words` are names of experiments and out=, seeds=, images=, rows=.
Status RunLab(const std::string& verb, const std::vector<std::string>& words, bool quick, bool json,
              std::ostream& out);

}  // namespace tw
