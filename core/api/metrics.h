#pragma once
// What a step reports, and who takes it. Field names are those of metrics.jsonl (docs/guide.md
// explains each).

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/base/registry.h"

namespace tw {

struct StepRecord {
  int64_t step = 0;     // 1-based: steps done
  int64_t samples = 0;  // cumulative, all ranks
  int64_t tokens = 0;   // cumulative, all ranks
  double loss = 0;      // mean over ranks; in a local step rank 0's own
  double lr = 0;
  double grad_norm = 0;       // of the resolved gradient, before clipping
  int64_t payload_bytes = 0;  // this rank's encoded bytes, each counted once
  int64_t wire_bytes = 0;     // all this rank handed to the transport
  int64_t dense_bytes = 0;    // 4 x numel
  double step_ms = 0;
  double cpu_ms = 0;        // of it, the main thread on a core
  double core_wait_ms = 0;  // of it, the main thread ready to run, all cores taken; NaN: unknown
  double forward_ms = 0;
  double backward_ms = 0;
  double encode_ms = 0;
  double exchange_ms = 0;
  double decode_ms = 0;
  double exposed_ms = 0;  // the step waited for communication
  double optimizer_ms = 0;
  double residual_norm = 0;  // of this rank's error memory; 0 without one
  int64_t peak_tensor_bytes = 0;
  bool skipped = false;  // a rank had a non-finite gradient; in a local step rank 0
};

// Numeric fields in file order, integers as such: one list for jsonl, TensorBoard and docs.
struct MetricField {
  const char* name;
  const char* help;
  bool integer;
  double (*get)(const StepRecord&);
};
const std::vector<MetricField>& MetricFields();

struct RunInfo {
  std::string run_dir;
  std::string name;
  int64_t total_steps = 0;
  int64_t first_step = 0;  // > 0 after a resume
  int64_t every = 1;
  int world_size = 1;
  int rank = 0;  // whose records these are
};

// Takes one record a step, on rank 0 unless its kind says otherwise. Write failures (disk full) are
// returned and end the run with fault kData.
class MetricSink {
 public:
  virtual ~MetricSink() = default;
  virtual Status Write(const StepRecord& record) = 0;
  virtual Status Flush() { return OkStatus(); }
};

// A kind of sink: "console", "jsonl", "jsonl_ranks", "tensorboard". A resumed run appends; records
// after the resumed step are dropped first.
class MetricSinkKind {
 public:
  virtual ~MetricSinkKind() = default;
  virtual StatusOr<std::unique_ptr<MetricSink>> Open(const RunInfo& info) const = 0;
  // Opened on all ranks, each with its own records.
  virtual bool on_every_rank() const { return false; }
};

}  // namespace tw
