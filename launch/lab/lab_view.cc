#include "launch/lab/lab_view.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"

namespace tw {
namespace {

constexpr double kRedrawMs = 100;
// Expected seconds count as so many seconds of experience: the first experiment, done in a
// hundredth of a second, says little about the others.
constexpr double kPriorSeconds = 3;

std::string Count(size_t n, const char* one) {
  return absl::StrFormat("%d %s%s", n, one, n == 1 ? "" : "s");
}

}  // namespace

LabClock::LabClock(std::map<std::string, double> expected, int at_once)
    : waiting_(std::move(expected)), at_once_(at_once) {}

double LabClock::factor() const {
  return (seconds_done_ + kPriorSeconds) / (expected_done_ + kPriorSeconds);
}

void LabClock::Began(const std::string& name, double now) {
  const auto it = waiting_.find(name);
  if (it == waiting_.end()) return;
  running_[name] = {it->second, now};
  waiting_.erase(it);
}

void LabClock::Finished(const std::string& name, double seconds) {
  const auto it = running_.find(name);
  if (it == running_.end()) return;
  expected_done_ += it->second.expected;
  seconds_done_ += seconds;
  running_.erase(it);
}

double LabClock::left(double now) const {
  double sum = 0, longest = 0;
  const auto add = [&](double seconds) {
    sum += seconds;
    longest = std::max(longest, seconds);
  };
  for (const auto& [name, expected] : waiting_) add(factor() * expected);
  for (const auto& [name, running] : running_) {
    const double all = factor() * running.expected;
    add(std::max(all - (now - running.began), 0.02 * all));
  }
  return std::max(sum / at_once_, longest);
}

double LabClock::done(double now) const {
  double past = seconds_done_;
  for (const auto& [name, running] : running_) past += now - running.began;
  const double all = past + left(now) * at_once_;
  return all > 0 ? past / all : 1;
}

LabProgress::LabProgress(ConsoleTerminal terminal, std::map<std::string, double> expected,
                         int at_once)
    : terminal_(std::move(terminal)), all_(expected.size()), clock_(std::move(expected), at_once) {}

LabProgress::~LabProgress() { Clear(); }

void LabProgress::Begin(const std::string& name) {
  clock_.Began(name, now());
  running_.push_back(name);
  ++begun_;
  if (terminal_.interactive) Draw("");
}

void LabProgress::Round(const LabRun& run, int64_t round) {
  if (!terminal_.interactive || terminal_.now_ms() - drawn_ms_ < kRedrawMs) return;
  Draw(absl::StrFormat("%s, seed %d: round %d/%d", run.label, run.seed, round, run.rounds));
}

void LabProgress::Tick() {
  if (terminal_.interactive && terminal_.now_ms() - drawn_ms_ >= kRedrawMs) Draw("");
}

void LabProgress::Draw(const std::string& what) {
  drawn_ms_ = terminal_.now_ms();
  const double done = clock_.done(now());
  const std::string head =
      absl::StrFormat("%3.0f%% %d/%d %s ", 100 * done, begun_, all_, absl::StrJoin(running_, ", "));
  std::string tail = "ETA " + HumanDuration(clock_.left(now())) + "  " + what;
  // A fifth of the line is the bar's, so that it does not jump with the length of the names.
  const int room = terminal_.columns - 1 - static_cast<int>(head.size()) - 3 -
                   std::clamp(terminal_.columns / 5, 5, 40);
  if (room > 10) tail.resize(static_cast<size_t>(room), ' ');
  // The cursor goes back to the start: a warning that comes in between writes over the bar.
  terminal_.print(RedrawLine(BarLine(terminal_.columns, done, head, tail)) + "\r");
  bar_open_ = true;
}

void LabProgress::Clear() {
  if (bar_open_) terminal_.print(RedrawLine(""));
  bar_open_ = false;
}

void LabProgress::End(const LabRecord& record) {
  clock_.Finished(record.name, record.seconds);
  std::erase(running_, record.name);
  ++ended_;
  Clear();
  if (terminal_.interactive) return;
  terminal_.print(absl::StrFormat("lab %d/%d: %s: %s (%.1f s)\n", ended_, all_, record.name,
                                  record.error.empty() ? CountVerdicts({record}) : "could not run",
                                  record.seconds));
}

std::string CountVerdicts(const std::vector<LabRecord>& records) {
  // In this order; the first two are shown when there are none, too, as far as anything was judged.
  const std::vector<std::string> order = {"PASS", "FAIL", "does not hold here", kReported};
  std::map<std::string, size_t> counts;
  for (const LabRecord& record : records) {
    for (const Claim& claim : record.claims) ++counts[claim.verdict()];
  }
  std::vector<std::string> parts;
  for (const std::string& verdict : order) {
    const size_t n = counts[verdict];
    if (n == 0) continue;
    parts.push_back(
        absl::StrFormat("%d %s", n, verdict == order[2] && n > 1 ? "do not hold here" : verdict));
  }
  return parts.empty() ? "no claims" : absl::StrJoin(parts, ", ");
}

std::string ClaimTable(const LabRecord& record) {
  std::string out = absl::StrFormat(
      "%s: %s%s, %.1f s\n", record.name, record.info.paper,
      record.info.arxiv.empty() ? "" : " (arXiv " + record.info.arxiv + ")", record.seconds);
  if (!record.error.empty()) out += "  could not run: " + record.error + "\n";
  for (const Claim& c : record.claims) {
    const std::string spread =
        c.seeds > 1 && std::isfinite(c.std) ? absl::StrFormat("+- %.2g", c.std) : "";
    const std::string worst = c.seeds > 1 && c.worst ? absl::StrFormat("worst %.4g", *c.worst) : "";
    absl::StrAppendFormat(&out, "  %-18s  %12.5g %-10s  %-16s  %-16s  %-8s  %s%s\n", c.verdict(),
                          c.measured, spread, c.judged() ? c.threshold : "", worst,
                          Count(static_cast<size_t>(c.seeds), "seed"), c.claim,
                          c.of == kMean ? "" : " (" + c.of + ")");
    if (!c.pass && !c.does_not_hold.empty()) {
      absl::StrAppendFormat(&out, "%93s%s\n", "", c.does_not_hold);
    }
  }
  return out;
}

std::string Totals(const std::vector<LabRecord>& records, double seconds) {
  size_t claims = 0;
  std::string again;
  for (const LabRecord& record : records) {
    claims += record.claims.size();
    if (!record.error.empty()) {
      absl::StrAppendFormat(&again, "  could not run  %s: %s\n", record.name, record.error);
    }
    for (const Claim& c : record.claims) {
      if (c.pass || !c.does_not_hold.empty()) continue;
      absl::StrAppendFormat(&again, "  FAIL  %s: %s: %.5g, to be %s\n", record.name, c.claim,
                            c.measured, c.threshold);
    }
  }
  return absl::StrFormat("%s, %s: %s; %s\n", Count(records.size(), "experiment"),
                         Count(claims, "claim"), CountVerdicts(records), HumanDuration(seconds)) +
         (records.size() > 1 ? again : "");  // of one it stands right above
}

}  // namespace tw
