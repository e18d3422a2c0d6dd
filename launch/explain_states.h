#pragma once
// The part of `explain` about optimizer states: how each parameter's moments rest.

#include <iosfwd>
#include <nlohmann/json.hpp>

#include "launch/compose.h"

namespace tw {

// Nothing where all moments rest in fp32 and the optimizer has no use for roles.
void PrintStates(const Assembly& assembly, std::ostream& out);
// [{"param":..,"state":"int4","blocks":..,"role":"row","bytes":..}]; blocks and role where the
// optimizer keeps a number a block.
nlohmann::ordered_json StatesJson(const Assembly& assembly);

}  // namespace tw
