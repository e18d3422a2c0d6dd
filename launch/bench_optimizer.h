#pragma once
// `tightwire bench optimizer`: what an update costs, on every state, beside PyTorch's.

#include <ostream>
#include <string>
#include <vector>

#include "core/base/status.h"

namespace tw {

struct DeviceModule;

// One row a pair of optimizer and state: all registered ones, or those that `name=` and `state=`
// say. Keys: name, state, rows, cols, repetitions, queued, device, simd, peer, python, and those of
// the optimizers. A row is one rows x cols fp32 matrix, on one thread. Times are medians over
// repetitions of copy, update, peer's update in turn; ratios are medians of the ratios within a
// repetition. `bound`: the part reached of what memory allows at the copy's bytes a second, with
// parameter and state read and written once and the gradient read. On a device (`device=cuda`) a
// repetition is `queued` steps in a row, begun when it is idle and over when it is idle again;
// pairs without a step there are left out. The peer is torch.optim's fused=True optimizer (AdamW,
// for sgdm SGD), or torchao's AdamW of as many bits, in a process of its own that waits for its
// turn. A table, or one JSON object a line. `devices` in the place of this machine's, for tests.
Status RunBenchOptimizer(const std::vector<std::string>& overrides, bool json, std::ostream& out,
                         const DeviceModule* devices = nullptr);

}  // namespace tw
