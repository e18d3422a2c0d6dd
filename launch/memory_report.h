#pragma once
// Where the bytes of one rank will be: what `explain` prints, and what summary.json has beside the
// measured peak.

#include <cstdint>
#include <nlohmann/json.hpp>
#include <vector>

#include "launch/compose.h"

namespace tw {

struct MemoryReport {
  int64_t parameters = 0;
  int64_t gradients = 0;
  int64_t optimizer = 0;  // states
  int64_t feedback = 0;   // error memory
  int64_t strategy = 0;
  // Of one micro-batch, at the worst moment, temporaries included; nothing for a model without a
  // formula.
  std::optional<int64_t> activations;
  std::vector<ActivationEstimate::Layer> layers;  // what of it each keeps until its backward

  int64_t persistent() const { return parameters + gradients + optimizer + feedback + strategy; }
  std::optional<int64_t> peak() const {
    if (!activations) return std::nullopt;
    return persistent() + *activations;
  }
};

// From shapes alone: nothing runs, nothing is allocated.
MemoryReport PredictMemory(const Assembly& assembly);

// {"parameters":..,"gradients":..,"optimizer":..,"feedback":..,"strategy":..,"activations":..,
// "layers":[{"name":..,"bytes":..}],"peak":..}; activations and peak are left out where unknown.
nlohmann::ordered_json ToJson(const MemoryReport& report);

}  // namespace tw
