#pragma once
// ParameterRole: which numbers of a parameter belong together, for optimizers that keep one number
// a block. Declared by the model under its own name; parameters of foreign modules fall back to
// their shape and name.
//
//   TW_REGISTER(ParameterRoles, gpt, 0, GptConfig, GptRoles::Create, "blocks of gpt's parameters");

#include <string>
#include <vector>

#include "core/base/registry.h"
#include "core/base/tensor_view.h"

namespace tw {

enum class BlockKind : uint8_t {
  kElement = 0,  // every number for itself: biases
  kHead = 1,     // the rows of one attention head: queries, keys
  kRow = 2,      // one output neuron, one token of a table
  kWhole = 3,    // the tensor: norms, positions
};

struct BlockRole {
  BlockKind kind = BlockKind::kElement;
  int64_t heads = 0;  // kHead only
};
// One role; or several, for as many equal parts along the first dimension (a fused q|k|v has
// three).
using ParameterRole = std::vector<BlockRole>;

// `count` blocks of `block` neighbouring elements each.
struct BlockRun {
  int64_t block = 1;
  int64_t count = 0;
};
// All elements of the parameter, in row-major order. A role that does not divide it (heads, parts)
// falls back to rows.
std::vector<BlockRun> BlocksOf(const ParameterRole& role, const TensorSpec& spec);
int64_t NumBlocks(const std::vector<BlockRun>& runs);
// "head x8", "head x8 | head x8 | row".
std::string RoleText(const ParameterRole& role);

class ParameterRoles {
 public:
  virtual ~ParameterRoles() = default;
  virtual ParameterRole RoleOf(const TensorSpec& spec) const = 0;
};

// Biases by element, matrices by row, a table of positions and what else has one dimension whole.
ParameterRole RoleByName(const TensorSpec& spec);

}  // namespace tw
