// Any text as a config file and as an override: an error in one line or a config whose values print
// and parse again.
#include <string>

#include "core/base/config_value.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  auto config = tw::Config::Parse(text, "fuzz");
  if (config.ok()) {
    for (const auto& [name, section] : config->sections()) {
      for (const auto& [key, value] : section.values) (void)tw::ToToml(value.value);
    }
    (void)config->CheckSections({"", "compressor"});
  }
  tw::Config other;
  (void)other.Override(text);
  return 0;
}
