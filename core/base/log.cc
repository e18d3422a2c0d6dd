#include "core/base/log.h"

#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include <memory>
#include <vector>

#include "core/base/quiet_log.h"

namespace tw {
namespace {

spdlog::sink_ptr Screen() {
  auto screen = std::make_shared<spdlog::sinks::stderr_color_sink_mt>();
  screen->set_pattern("tightwire: %v");
  return screen;
}

// Before OpenLog: spdlog's own logger writes to stdout, where results go.
void StartOnScreen() {
  static const bool started = [] {
    spdlog::set_default_logger(std::make_shared<spdlog::logger>("tightwire", Screen()));
    return true;
  }();
  (void)started;
}

}  // namespace

void OpenLog(const std::string& run_dir, int rank) {
  StartOnScreen();
  std::vector<spdlog::sink_ptr> sinks;
  try {
    auto file = std::make_shared<spdlog::sinks::basic_file_sink_mt>(run_dir + "/log.rank" +
                                                                    std::to_string(rank) + ".txt");
    file->set_pattern("%Y-%m-%d %H:%M:%S.%e %l %v");
    sinks.push_back(file);
  } catch (const spdlog::spdlog_ex&) {
    // No log file is no reason not to train; a full disk shows itself at the metrics.
  }
  if (rank == 0) sinks.push_back(Screen());
  auto logger = std::make_shared<spdlog::logger>("tightwire", sinks.begin(), sinks.end());
  logger->flush_on(spdlog::level::info);
  spdlog::set_default_logger(logger);
}

void LogInfo(const std::string& line) {
  StartOnScreen();
  spdlog::info("{}", line);
}
void LogWarning(const std::string& line) {
  StartOnScreen();
  spdlog::warn("{}", line);
}
void FlushLog() {
  StartOnScreen();
  spdlog::default_logger()->flush();
}

QuietLog::QuietLog() {
  StartOnScreen();
  level_ = static_cast<int>(spdlog::default_logger()->level());
  spdlog::default_logger()->set_level(spdlog::level::off);
}
QuietLog::~QuietLog() {
  spdlog::default_logger()->set_level(static_cast<spdlog::level::level_enum>(level_));
}

}  // namespace tw
