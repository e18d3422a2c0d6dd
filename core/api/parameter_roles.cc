#include "core/api/parameter_roles.h"

namespace tw {
namespace {

BlockRun RunOf(const BlockRole& role, int64_t numel, int64_t rows) {
  const int64_t by_row = rows > 0 ? numel / rows : 1;
  switch (role.kind) {
    case BlockKind::kElement:
      return {1, numel};
    case BlockKind::kHead:
      if (role.heads > 0 && rows % role.heads == 0) return {numel / role.heads, role.heads};
      return {by_row, rows};
    case BlockKind::kRow:
      return {by_row, rows};
    case BlockKind::kWhole:
      return {numel, 1};
  }
  return {1, numel};
}

}  // namespace

std::vector<BlockRun> BlocksOf(const ParameterRole& role, const TensorSpec& spec) {
  const int64_t numel = spec.numel(), rows = spec.rows();
  if (numel == 0) return {};
  const int64_t parts = static_cast<int64_t>(role.size());
  if (parts == 0 || rows % parts != 0) {
    return {RunOf({BlockKind::kRow}, numel, rows)};
  }
  std::vector<BlockRun> out;
  for (const BlockRole& part : role) out.push_back(RunOf(part, numel / parts, rows / parts));
  return out;
}

int64_t NumBlocks(const std::vector<BlockRun>& runs) {
  int64_t total = 0;
  for (const BlockRun& run : runs) total += run.count;
  return total;
}

std::string RoleText(const ParameterRole& role) {
  static constexpr const char* kNames[] = {"element", "head", "row", "whole"};
  std::string out;
  for (const BlockRole& part : role) {
    out += (out.empty() ? "" : " | ") + std::string(kNames[static_cast<size_t>(part.kind)]);
    if (part.kind == BlockKind::kHead) out += " x" + std::to_string(part.heads);
  }
  return out;
}

ParameterRole RoleByName(const TensorSpec& spec) {
  const auto has = [&](const char* word) { return spec.name.find(word) != std::string::npos; };
  if (has("bias")) return {{BlockKind::kElement}};
  if (!spec.is_matrix() || has("pos.") || has("position")) return {{BlockKind::kWhole}};
  return {{BlockKind::kRow}};
}

}  // namespace tw
