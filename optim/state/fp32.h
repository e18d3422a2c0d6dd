#pragma once

#include "core/api/state_codec.h"

namespace tw {

// The codec of moments that rest as they are: where none is given, and for small tensors.
const StateCodec& Fp32States();

}  // namespace tw
