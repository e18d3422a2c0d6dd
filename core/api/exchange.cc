#include "core/api/exchange.h"

#include <map>
#include <memory>

namespace tw {

FrameHeader FrameHeaderOf(const CodecContext& context, int wire_id) {
  FrameHeader header;
  header.wire_id = static_cast<uint16_t>(wire_id);
  header.parameter = context.spec->id;
  header.step = context.step;
  header.numel = static_cast<uint64_t>(context.spec->numel());
  return header;
}

const Exchange* FindExchange(const std::string& name) {
  using Table = std::map<std::string, std::unique_ptr<Exchange>>;
  static const Table table = [] {
    Table made;
    const auto& registry = Registry<Exchange>::Get();
    for (const std::string& known : registry.names()) {
      auto exchange = registry.Find(known)->make(ConfigSection{});
      TW_CHECK_OK(exchange);
      made.emplace(known, std::move(*exchange));
    }
    return made;
  }();
  const auto it = table.find(name);
  return it == table.end() ? nullptr : it->second.get();
}

const Exchange* FindExchange(Merge merge) {
  const Exchange* found = FindExchange(std::string(MergeName(merge)));
  TW_CHECK(!found || found->merge() == merge);
  return found;
}

}  // namespace tw
