#pragma once
// bench planner: what lgreco saves against uniform compression at no more error, and what it costs.
//
//   tightwire bench planner [key=value ...]
//
// For a GPT and a CNN and each of rank (powersgd), density (topk) and bits (blockquant): one rank
// trains `rounds` rounds of the planner with error feedback, and the last round's figures are
// printed. Overrides go to the run (planner.every=50, model.layers=4); models=gpt or models=cnn
// runs one of the two, families=rank, density or bits one of the three. Data are synthetic unless
// data.path is given.

#include <ostream>
#include <string>
#include <vector>

#include "core/base/status.h"

namespace tw {

Status RunBenchPlanner(const std::vector<std::string>& arguments, bool json, std::ostream& out);

}  // namespace tw
