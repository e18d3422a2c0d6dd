#pragma once
// Which build this is, for what is built together and must be used together.

namespace tw {

// "0.1.0" or, from a checkout, "0.1.0 at 0ad16f2c91d4".
inline const char* BuildVersion() { return TW_BUILD_VERSION; }

}  // namespace tw
