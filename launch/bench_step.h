#pragma once
// `tightwire bench step`: what the gradient reducer costs a step, and what PyTorch takes for it.

#include <ostream>
#include <string>
#include <vector>

#include "core/base/status.h"

namespace tw {

struct DeviceModule;

// The same model stepped through the reducer (hooks, buckets, lane thread, finite check; one rank)
// and without it, and with peer=torch by PyTorch in a process of its own, in alternating blocks.
// Keys: blocks (9), block_steps (8), device (cpu), peer, python, and those of a config; defaults:
// the GPT of INTERFACE on synthetic text. The peer knows `gpt` with AdamW (fused=True) in fp32 and
// under autocast to bf16. Prints median times, the median ratios over pairs of blocks with their 90
// % bootstrap intervals, and the most bytes there were in a block: of tensors, states and scratch
// without what belongs to the other way; of PyTorch what its allocator for CUDA had given out. On a
// device a block begins when it is idle and ends when it is idle again. `devices` in the place of
// this machine's, for tests.
Status RunBenchStep(const std::vector<std::string>& overrides, bool json, std::ostream& out,
                    const DeviceModule* devices = nullptr);

}  // namespace tw
