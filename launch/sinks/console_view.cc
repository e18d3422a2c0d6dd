#include "launch/sinks/console_view.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "core/base/clock.h"

namespace tw {
namespace {

constexpr size_t kRecent = 20;  // final_loss in summary.json is a mean over as many
constexpr int64_t kPlainLines = 20;
constexpr double kRedrawMs = 100;

template <class... Args>
std::string Format(const char* format, Args... args) {
  char text[128];
  std::snprintf(text, sizeof(text), format, args...);
  return text;
}

}  // namespace

ConsoleTerminal StderrTerminal() {
  ConsoleTerminal terminal;
  winsize size{};
  terminal.interactive = ::isatty(STDERR_FILENO) == 1;
  if (terminal.interactive && ::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) {
    terminal.columns = size.ws_col;
  }
  terminal.print = [](const std::string& text) {
    std::fwrite(text.data(), 1, text.size(), stderr);
    std::fflush(stderr);
  };
  terminal.now_ms = NowMs;
  return terminal;
}

std::string BarLine(int columns, double done, const std::string& head, const std::string& tail) {
  const int room = columns - 1 - static_cast<int>(head.size() + tail.size()) - 3;
  std::string line = head;
  if (room >= 5) {
    const int cells = std::min(room, 40);
    const int full = static_cast<int>(std::clamp(done, 0.0, 1.0) * cells);
    line += '[';
    line.append(static_cast<size_t>(full), '#').append(static_cast<size_t>(cells - full), '.');
    line += "] ";
  }
  line += tail;
  line.resize(std::min(line.size(), static_cast<size_t>(std::max(1, columns - 1))));
  return line;
}

std::string RedrawLine(const std::string& line) { return "\r\x1b[K" + line; }

std::string HumanBytes(double bytes) {
  static const char* const kUnits[] = {"B", "kB", "MB", "GB", "TB", "PB"};
  size_t unit = 0;
  while (bytes >= 999.5 && unit + 1 < std::size(kUnits)) {
    bytes /= 1000;
    ++unit;
  }
  return unit == 0 ? Format("%.0f B", bytes) : Format("%.3g %s", bytes, kUnits[unit]);
}

std::string HumanDuration(double seconds) {
  const auto s = static_cast<int64_t>(std::llround(std::max(0.0, seconds)));
  const int64_t days = s / 86400, hours = s / 3600 % 24, minutes = s / 60 % 60;
  if (days > 0) return Format("%ldd %02ld:%02ld", long(days), long(hours), long(minutes));
  if (hours > 0) return Format("%ld:%02ld:%02ld", long(hours), long(minutes), long(s % 60));
  return Format("%ld:%02ld", long(minutes), long(s % 60));
}

ConsoleView::ConsoleView(const RunInfo& info, ConsoleTerminal terminal)
    : info_(info),
      terminal_(std::move(terminal)),
      line_every_(std::max<int64_t>(1, (info.total_steps - info.first_step) / kPlainLines)) {}

ConsoleView::~ConsoleView() { (void)Flush(); }

Status ConsoleView::Write(const StepRecord& record) {
  const double now = terminal_.now_ms();
  if (written_++ == 0) {
    first_ms_ = now;
    first_step_ = record.step;
  }
  if (record.skipped) {
    ++skipped_;  // its loss is no loss of a model that was trained
  } else {
    recent_.push_back(record);
    if (recent_.size() > kRecent) recent_.pop_front();
  }
  const bool last = record.step == info_.total_steps;
  if (terminal_.interactive) {
    if (last || written_ == 1 || now - last_drawn_ms_ >= kRedrawMs) {
      last_drawn_ms_ = now;
      DrawBar(record);
    }
  } else if (last || written_ == 1 || record.step / line_every_ != last_line_step_ / line_every_) {
    last_line_step_ = record.step;  // records may come every few steps only
    terminal_.print(Format("step %ld/%ld  ", long(record.step), long(info_.total_steps)) +
                    Numbers(record) + "\n");
  }
  return OkStatus();
}

Status ConsoleView::Flush() {
  if (bar_open_) terminal_.print("\n");
  bar_open_ = false;
  return OkStatus();
}

std::string ConsoleView::Numbers(const StepRecord& record) const {
  std::string out;
  if (!recent_.empty()) {
    double loss = 0, ms = 0, wire = 0;
    for (const StepRecord& r : recent_) {
      loss += r.loss;
      ms += r.step_ms;
      wire += static_cast<double>(r.wire_bytes);
    }
    const double n = static_cast<double>(recent_.size());
    out += Format("loss %.4f  %.*f ms/step  ", loss / n, ms / n < 100 ? 1 : 0, ms / n);
    out += HumanBytes(wire / n) + "/step";
  }
  if (skipped_ > 0) out += Format("%s%ld skipped", out.empty() ? "" : "  ", long(skipped_));
  const double elapsed_s = (terminal_.now_ms() - first_ms_) / 1e3;
  const int64_t left = info_.total_steps - record.step;
  if (left <= 0) {
    out += "  took " + HumanDuration(elapsed_s);
  } else if (record.step > first_step_) {
    // Wall time, not step_ms: what happens between steps counts as well.
    out += "  ETA " + HumanDuration(elapsed_s * static_cast<double>(left) /
                                    static_cast<double>(record.step - first_step_));
  }
  return out;
}

void ConsoleView::DrawBar(const StepRecord& record) {
  const double done =
      info_.total_steps > 0
          ? std::clamp(static_cast<double>(record.step) / static_cast<double>(info_.total_steps),
                       0.0, 1.0)
          : 0.0;
  const std::string head =
      Format("%3.0f%% step %ld/%ld ", 100 * done, long(record.step), long(info_.total_steps));
  terminal_.print(RedrawLine(BarLine(terminal_.columns, done, head, Numbers(record))));
  bar_open_ = true;
  if (record.step == info_.total_steps) (void)Flush();
}

}  // namespace tw
