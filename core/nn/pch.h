#pragma once
// Precompiled header of models, the engine, the programs and their tests: LibTorch's headers cost
// 20 s a file without it.
#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/nn/torch.h"
