#include "launch/list_kernels.h"

#include <iomanip>
#include <map>
#include <nlohmann/json.hpp>
#include <ostream>
#include <set>
#include <sstream>

#include "core/kernels/simd_target.h"

namespace tw {
namespace {

using Json = nlohmann::ordered_json;

std::set<std::string> Words(const std::string& text) {
  std::istringstream in(text);
  std::set<std::string> words;
  for (std::string word; in >> word;) words.insert(word);
  return words;
}

std::string Joined(const std::vector<std::string>& words) {
  std::string out;
  for (const std::string& word : words) out += (out.empty() ? "" : ", ") + word;
  return out;
}

// "NVIDIA H200", "2 x NVIDIA H200, NVIDIA A100".
std::string DeviceNames(const std::vector<std::string>& devices) {
  std::map<std::string, int> counts;
  for (const std::string& name : devices) ++counts[name];
  std::vector<std::string> parts;
  for (const auto& [name, count] : counts) {
    parts.push_back((count > 1 ? std::to_string(count) + " x " : "") + name);
  }
  return Joined(parts);
}

struct KernelRow {
  std::string name, text;
  Json extra;
};

}  // namespace

void ListKernels(const DeviceModule& devices, bool json, std::ostream& out) {
  std::vector<KernelRow> rows;
  rows.push_back(
      {"cpu",
       kernels::SimdTarget() + " now; offered: " + Joined(kernels::SimdTargets()),
       {{"runs", true}, {"target", kernels::SimdTarget()}, {"offered", kernels::SimdTargets()}}});
  const CudaModule* module = devices.module;
  std::string cuda = "not here: " + devices.reason;
  if (module) {
    cuda = DeviceNames(devices.devices) + "; " + module->built_by + "; " + module->nccl;
  }
  rows.push_back(
      {"cuda",
       cuda,
       {{"runs", module != nullptr}, {"devices", devices.devices}, {"reason", devices.reason}}});
  const std::set<std::string> on_cpu = Words(TW_CPU_KERNELS);
  const std::set<std::string> on_cuda = Words(module ? module->kernels : "");
  std::set<std::string> all = on_cpu;
  all.insert(on_cuda.begin(), on_cuda.end());
  for (const std::string& name : all) {
    std::vector<std::string> where;
    if (on_cpu.count(name)) where.push_back("cpu");
    if (on_cuda.count(name)) where.push_back("cuda");
    rows.push_back({name, Joined(where), {{"where", where}}});
  }
  if (!json) out << "kernel\n";
  for (const KernelRow& row : rows) {
    if (json) {
      Json j = {{"kind", "kernel"}, {"name", row.name}};
      j.update(row.extra);
      j["summary"] = row.text;
      out << j.dump() << "\n";
    } else {
      out << "  " << std::left << std::setw(16) << row.name << row.text << "\n";
    }
  }
}

}  // namespace tw
