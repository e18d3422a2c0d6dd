#pragma once
// `tightwire inspect PATH`: what a run folder, a checkpoint folder or a safetensors file holds.

#include <ostream>
#include <string>

#include "core/base/status.h"

namespace tw {

// Tables for people; with `json` one object in one line. What is damaged is shown as such: only a
// path that is none of the three, or cannot be read at all, is an error (fault kData).
Status RunInspect(const std::string& path, bool json, std::ostream& out);

}  // namespace tw
