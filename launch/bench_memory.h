#pragma once
// `tightwire bench memory`: what each way to save activations takes at its worst moment, and how
// long it runs, beside the plain way. A row is one file in launch/memory_rows/ ending in one
// registration line; its config struct holds the keys one may give it.
//
//   TW_REGISTER(MemoryRow, head, 0, HeadConfig, Create, "LM head and cross entropy in pieces");

#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <ostream>
#include <string>
#include <vector>

#include "core/base/registry.h"
#include "launch/bench_device.h"

namespace tw {

// One measured way: bytes of tensors beside those that were alive before, at the worst moment.
struct MemoryUse {
  int64_t extra_peak_bytes = 0;
  double ms = 0;  // median
};

// Runs `ways` in turn, `repetitions` times each, after one run of each that is not counted.
StatusOr<std::vector<MemoryUse>> MeasureWays(const std::vector<std::function<void()>>& ways,
                                             int64_t repetitions, const BenchDevice& device);

class MemoryRow {
 public:
  virtual ~MemoryRow() = default;
  struct Result {
    MemoryUse ours, plain;
    nlohmann::ordered_json more = nlohmann::ordered_json::object();  // shape, options, errors
  };
  // Its tensors lie on `device`.
  virtual StatusOr<Result> Measure(int64_t repetitions, const BenchDevice& device) const = 0;
};

// Keys: name (all rows), repetitions (5), threads (cores), device (cpu), and those of the row. On a
// device the bytes are those of LibTorch's allocator for it. `memory sweep ...` goes to
// RunMemorySweep. Prints a table, or JSON rows as INTERFACE has them. `devices` in the place of
// this machine's, for tests.
Status RunBenchMemory(const std::vector<std::string>& arguments, bool json, std::ostream& out,
                      const DeviceModule* devices = nullptr);

// The longest data.context whose training step stays within budget_mb of tensor memory, and
// tokens/s (forward and backward), for the plain model and each way to save. Keys: budget_mb
// (1024), config (a file), repetitions (3), threads, and those of a config; default: a llama of 4
// layers of 256 with 32000 words, one sequence a batch, on synthetic text.
Status RunMemorySweep(const std::vector<std::string>& arguments, bool json, std::ostream& out);

}  // namespace tw
