#include "core/engine/parameters_hash.h"

#include <algorithm>
#include <vector>

#include "core/base/device.h"
#include "core/base/hash.h"

namespace tw {

uint64_t ParametersHash(std::span<const ParameterView> parameters) {
  std::vector<const ParameterView*> sorted;
  for (const auto& p : parameters) sorted.push_back(&p);
  std::sort(sorted.begin(), sorted.end(),
            [](const auto* a, const auto* b) { return a->spec->name < b->spec->name; });
  Hasher hasher;
  std::vector<uint8_t> copy;
  for (const auto* p : sorted) {
    const ByteSpan bytes = p->value.raw();
    if (!CurrentQueue()) {
      hasher.Add(bytes);
      continue;
    }
    copy.resize(bytes.size());
    GetBytes(copy.data(), bytes.data(), bytes.size());
    hasher.Add(copy);
  }
  return hasher.digest();
}

}  // namespace tw
