#pragma once
// The format's words for element types. Both ends use this one table.

#include <c10/core/ScalarType.h>

#include <string>

namespace tw {

// False when the format has no such word.
bool DtypeOfWord(const std::string& word, at::ScalarType* dtype);
// nullptr when the format has no word for it.
const char* WordOfDtype(at::ScalarType dtype);
// "known: BF16, F32, ..."
std::string KnownDtypeWords();

}  // namespace tw
