#pragma once
// What one parameter does in the turn under way. Private to the fleet.

#include "core/engine/fleet/fleet.h"

namespace tw {

struct Fleet::ParameterTurn {
  const ParameterPlan* plan = nullptr;
  const Route* route = nullptr;  // null: clients differ, some send their dense first message
  bool through_policy = false;
  bool all_of_them = false;  // the mean is over all clients, whoever takes part
  const Fold* arithmetic = nullptr;
  FoldCall fold;
  ByteSpan previous;      // the sum of the round before
  AlignedBuffer sums[2];  // of even and odd rounds
};

}  // namespace tw
