#include "core/nn/safetensors/dtype.h"

#include <array>
#include <utility>

namespace tw {
namespace {

constexpr std::array<std::pair<const char*, at::ScalarType>, 14> kTable = {{
    {"F64", at::ScalarType::Double},
    {"F32", at::ScalarType::Float},
    {"F16", at::ScalarType::Half},
    {"BF16", at::ScalarType::BFloat16},
    {"I64", at::ScalarType::Long},
    {"I32", at::ScalarType::Int},
    {"I16", at::ScalarType::Short},
    {"I8", at::ScalarType::Char},
    {"U64", at::ScalarType::UInt64},
    {"U32", at::ScalarType::UInt32},
    {"U16", at::ScalarType::UInt16},
    {"U8", at::ScalarType::Byte},
    {"BOOL", at::ScalarType::Bool},
    {"F8_E4M3", at::ScalarType::Float8_e4m3fn},
}};

}  // namespace

bool DtypeOfWord(const std::string& word, at::ScalarType* dtype) {
  for (const auto& [known, type] : kTable) {
    if (word == known) {
      *dtype = type;
      return true;
    }
  }
  return false;
}

const char* WordOfDtype(at::ScalarType dtype) {
  for (const auto& [known, type] : kTable) {
    if (dtype == type) return known;
  }
  return nullptr;
}

std::string KnownDtypeWords() {
  std::string out = "known: ";
  for (const auto& [word, type] : kTable) out += (out.size() > 7 ? ", " : "") + std::string(word);
  return out;
}

}  // namespace tw
