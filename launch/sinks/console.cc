// Progress on stderr (stdout belongs to programs): a bar with loss, time, bytes and ETA, redrawn in
// place on a terminal; about 20 plain lines a run otherwise.

#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdio>

#include "core/base/clock.h"
#include "launch/sinks/console_view.h"

namespace tw {
namespace {

class ConsoleKind : public MetricSinkKind {
 public:
  static StatusOr<std::unique_ptr<MetricSinkKind>> Create(const NoConfig&) {
    return std::make_unique<ConsoleKind>();
  }
  StatusOr<std::unique_ptr<MetricSink>> Open(const RunInfo& info) const override {
    ConsoleTerminal terminal;
    winsize size{};
    terminal.interactive = ::isatty(STDERR_FILENO) == 1;
    if (terminal.interactive && ::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) {
      terminal.columns = size.ws_col;
    }
    // A lost terminal is no reason to lose the run: errors of stderr are not reported.
    terminal.print = [](const std::string& text) {
      std::fwrite(text.data(), 1, text.size(), stderr);
      std::fflush(stderr);
    };
    terminal.now_ms = NowMs;
    return std::make_unique<ConsoleView>(info, std::move(terminal));
  }
};

TW_REGISTER(MetricSinkKind, console, 0, NoConfig, ConsoleKind::Create,
            "progress on stderr: a bar on a terminal, about 20 lines otherwise");

}  // namespace
}  // namespace tw
