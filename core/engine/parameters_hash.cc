#include "core/engine/parameters_hash.h"

#include <algorithm>
#include <vector>

#include "core/base/hash.h"

namespace tw {

uint64_t ParametersHash(std::span<const ParameterView> parameters) {
  std::vector<const ParameterView*> sorted;
  for (const auto& p : parameters) sorted.push_back(&p);
  std::sort(sorted.begin(), sorted.end(),
            [](const auto* a, const auto* b) { return a->spec->name < b->spec->name; });
  Hasher hasher;
  for (const auto* p : sorted) hasher.Add(p->value.raw());
  return hasher.digest();
}

}  // namespace tw
