#pragma once
// Link rates as people write them.

#include <string>

#include "core/base/status.h"

namespace tw {

// "10mbit", "2.5gbit", "800kbit" (decimal, as tc takes them): bytes a second. ConfigError
// otherwise.
StatusOr<double> ParseLinkRate(const std::string& text);

}  // namespace tw
