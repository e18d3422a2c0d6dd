// Progress on stderr (stdout belongs to programs): a bar with loss, time, bytes and ETA, redrawn in
// place on a terminal; about 20 plain lines a run otherwise.

#include "launch/sinks/console_view.h"

namespace tw {
namespace {

class ConsoleKind : public MetricSinkKind {
 public:
  static StatusOr<std::unique_ptr<MetricSinkKind>> Create(const NoConfig&) {
    return std::make_unique<ConsoleKind>();
  }
  StatusOr<std::unique_ptr<MetricSink>> Open(const RunInfo& info) const override {
    return std::make_unique<ConsoleView>(info, StderrTerminal());
  }
};

TW_REGISTER(MetricSinkKind, console, 0, NoConfig, ConsoleKind::Create,
            "progress on stderr: a bar on a terminal, about 20 lines otherwise");

}  // namespace
}  // namespace tw
