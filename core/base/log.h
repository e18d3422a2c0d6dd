#pragma once
// Log lines of a run: every rank's into its own file of the run folder, rank 0's on stderr too
// (where the progress display is). spdlog is kept behind this header. Thread safe after OpenLog.

#include <string>

namespace tw {

// Appends to <run_dir>/log.rank<rank>.txt. Before it is called lines go to stderr.
void OpenLog(const std::string& run_dir, int rank);
void LogInfo(const std::string& line);
void LogWarning(const std::string& line);
void FlushLog();

}  // namespace tw
