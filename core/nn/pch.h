#pragma once
// Precompiled header of models, the engine, the programs and their tests: torch/torch.h costs 30 s
// a file without it.
#include <torch/torch.h>

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
