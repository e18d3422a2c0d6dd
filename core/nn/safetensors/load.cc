
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>

#include "core/nn/safetensors/safetensors.h"

namespace tw {
namespace {

// The first few of a list, and how many more there are.
class ShortList {
 public:
  void Add(const std::string& item) {
    if (++count_ <= 3) text_ += (text_.empty() ? "" : ", ") + item;
  }
  bool empty() const { return count_ == 0; }
  std::string Text() const {
    return count_ > 3 ? text_ + " and " + std::to_string(count_ - 3) + " more" : text_;
  }

 private:
  std::string text_;
  int count_ = 0;
};

std::string ShapeText(at::IntArrayRef shape) {
  std::string out = "[";
  for (size_t i = 0; i < shape.size(); ++i) out += (i ? ", " : "") + std::to_string(shape[i]);
  return out + "]";
}

bool IsDerivedBuffer(const std::string& name) {
  constexpr std::string_view kTail = "rotary_emb.inv_freq";
  return name.size() >= kTail.size() &&
         name.compare(name.size() - kTail.size(), kTail.size(), kTail) == 0;
}

}  // namespace

Status LoadSafetensors(const std::string& path, const NamedTensors& targets,
                       const std::map<std::string, std::string>& tied) {
  TW_ASSIGN_OR_RETURN(const SafetensorsFile file, SafetensorsFile::Open(path));
  std::map<std::string, std::string> source;  // target -> the file's name for it
  std::map<std::string, std::string> unused;
  for (const auto& [name, entry] : file.entries()) unused[name] = "";
  ShortList missing, unknown, unlike;
  for (const auto& [name, tensor] : targets) {
    std::string stored = name;
    if (file.entries().count(name) == 0) {
      for (const auto& [other, target] : tied) {
        if (target == name && file.entries().count(other) != 0) stored = other;
      }
    }
    const auto it = file.entries().find(stored);
    if (it == file.entries().end()) {
      missing.Add(name);
      continue;
    }
    unused.erase(stored);
    source[name] = stored;
    if (at::IntArrayRef(it->second.shape) != tensor.sizes()) {
      unlike.Add(name + " is " + ShapeText(it->second.shape) + " in the file, " +
                 ShapeText(tensor.sizes()) + " in the model");
    } else if (c10::isFloatingType(it->second.dtype) != c10::isFloatingType(tensor.scalar_type())) {
      unlike.Add(name + " is " + c10::toString(it->second.dtype) + " in the file, " +
                 c10::toString(tensor.scalar_type()) + " in the model");
    }
  }
  for (const auto& [name, nothing] : unused) {
    if (tied.count(name) == 0 && !IsDerivedBuffer(name)) unknown.Add(name);
  }
  if (!missing.empty() || !unknown.empty() || !unlike.empty()) {
    std::string what;
    const auto add = [&](const char* head, const ShortList& list) {
      if (!list.empty()) what += std::string(what.empty() ? "" : "; ") + head + list.Text();
    };
    add("missing: ", missing);
    add("not in the model: ", unknown);
    add("unlike: ", unlike);
    return DataError(path + ": does not fit the model; " + what);
  }
  const at::NoGradGuard no_grad;
  for (const auto& [name, tensor] : targets) {
    TW_ASSIGN_OR_RETURN(const at::Tensor stored, file.Read(source[name]));
    tensor.copy_(stored);
  }
  return OkStatus();
}

}  // namespace tw
