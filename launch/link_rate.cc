#include "launch/link_rate.h"

#include <array>
#include <cstdlib>
#include <utility>

namespace tw {

StatusOr<double> ParseLinkRate(const std::string& text) {
  constexpr std::array<std::pair<const char*, double>, 4> kUnits = {
      {{"kbit", 1e3}, {"mbit", 1e6}, {"gbit", 1e9}, {"tbit", 1e12}}};
  char* end = nullptr;
  const double number = std::strtod(text.c_str(), &end);
  for (const auto& [unit, bits] : kUnits) {
    if (number > 0 && number < 1e9 && unit == std::string(end)) return number * bits / 8;
  }
  return ConfigError("rate = \"" + text + "\"; a number and kbit, mbit, gbit or tbit is allowed, " +
                     "as 100mbit");
}

}  // namespace tw
