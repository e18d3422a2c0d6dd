#pragma once
// trace.rank0.json, trace.rank1.json ... in the run folder: the timeline of the steps that
// metrics.trace_steps names, in the format of Chrome's tracing, which ui.perfetto.dev opens and
// launch/plot --timeline draws.

#include <memory>
#include <string>

#include "core/base/spans.h"

namespace tw {

// "100:103" or "100", steps as in the metrics. ConfigError otherwise.
struct TraceSteps {
  int64_t first = 0, last = 0;
};
StatusOr<TraceSteps> ParseTraceSteps(const std::string& text);

// A log that writes its file into run_dir after the last of the steps, of those that a run of
// `total_steps` has. Null for "", no steps.
StatusOr<std::unique_ptr<SpanLog>> OpenTrace(const std::string& steps, int64_t total_steps,
                                             const std::string& run_dir, int rank);

// The file's text. Rows ("threads"): main, lane, and a row for each bucket on the wire; times are
// microseconds of the host's monotonic clock.
std::string TraceJson(const SpanLog& log, int rank);

}  // namespace tw
