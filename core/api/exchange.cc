#include "core/api/exchange.h"

#include <map>
#include <memory>

namespace tw {

const Exchange* FindExchange(Merge merge) {
  using Table = std::map<Merge, std::unique_ptr<Exchange>>;
  static const Table table = [] {
    Table made;
    const auto& registry = Registry<Exchange>::Get();
    for (const std::string& name : registry.names()) {
      auto exchange = registry.Find(name)->make(ConfigSection{});
      TW_CHECK_OK(exchange);
      const Merge key = (*exchange)->merge();
      TW_CHECK(made.emplace(key, std::move(*exchange)).second);
    }
    return made;
  }();
  const auto it = table.find(merge);
  return it == table.end() ? nullptr : it->second.get();
}

}  // namespace tw
