#include "launch/trace_file.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>

#include "core/base/file_io.h"

namespace tw {
namespace {

// 40 bytes each; a step of 100 buckets in 8 pieces has about 3000.
constexpr size_t kCapacity = 1 << 16;

// Chrome's word for a row.
int ThreadOf(const Span& span) {
  const SpanRow row = RowOf(span.kind);
  return row == SpanRow::kWire ? static_cast<int>(row) + span.bucket : static_cast<int>(row);
}

nlohmann::ordered_json NameOf(int rank, const char* what, int thread, const std::string& name) {
  return {{"name", what}, {"ph", "M"}, {"pid", rank}, {"tid", thread}, {"args", {{"name", name}}}};
}

}  // namespace

StatusOr<TraceSteps> ParseTraceSteps(const std::string& text) {
  TraceSteps steps;
  const char* const end = text.data() + text.size();
  auto read = std::from_chars(text.data(), end, steps.first);
  steps.last = steps.first;
  if (read.ec == std::errc() && read.ptr != end && *read.ptr == ':') {
    read = std::from_chars(read.ptr + 1, end, steps.last);
  }
  if (read.ec != std::errc() || read.ptr != end || steps.first < 1 || steps.last < steps.first) {
    return ConfigError("metrics.trace_steps = \"" + text +
                       "\" is not allowed; one step or the first and the last, as \"100:103\"");
  }
  return steps;
}

StatusOr<std::unique_ptr<SpanLog>> OpenTrace(const std::string& steps, int64_t total_steps,
                                             const std::string& run_dir, int rank) {
  if (steps.empty()) return nullptr;
  TW_ASSIGN_OR_RETURN(const TraceSteps range, ParseTraceSteps(steps));
  const std::string path =
      (std::filesystem::path(run_dir) / ("trace.rank" + std::to_string(rank) + ".json")).string();
  const int64_t last = std::max(range.first, std::min(range.last, total_steps));
  return std::make_unique<SpanLog>(range.first, last, kCapacity, [=](const SpanLog& log) {
    return WriteTextFileAtomically(path, TraceJson(log, rank));
  });
}

std::string TraceJson(const SpanLog& log, int rank) {
  auto events = nlohmann::ordered_json::array();
  events.push_back(NameOf(rank, "process_name", 0, "rank " + std::to_string(rank)));
  events.push_back(NameOf(rank, "thread_name", static_cast<int>(SpanRow::kMain), "main"));
  events.push_back(NameOf(rank, "thread_name", static_cast<int>(SpanRow::kLane), "lane"));
  std::set<int> buckets;
  for (const Span& span : log.spans()) {
    if (RowOf(span.kind) == SpanRow::kWire && buckets.insert(span.bucket).second) {
      events.push_back(NameOf(rank, "thread_name", ThreadOf(span),
                              "wire, bucket " + std::to_string(span.bucket)));
    }
  }
  for (const Span& span : log.spans()) {
    nlohmann::ordered_json event = {{"name", SpanName(span.kind)},
                                    {"ph", "X"},
                                    {"pid", rank},
                                    {"tid", ThreadOf(span)},
                                    {"ts", 1e3 * span.begin_ms},
                                    {"dur", 1e3 * (span.end_ms - span.begin_ms)},
                                    {"args", {{"step", span.step}}}};
    if (span.bucket >= 0) event["args"]["bucket"] = span.bucket;
    events.push_back(std::move(event));
  }
  const nlohmann::ordered_json file = {{"traceEvents", std::move(events)},
                                       {"displayTimeUnit", "ms"},
                                       {"otherData",
                                        {{"rank", rank},
                                         {"first_step", log.first()},
                                         {"last_step", log.last()},
                                         {"dropped_spans", log.dropped()}}}};
  return file.dump() + "\n";
}

}  // namespace tw
