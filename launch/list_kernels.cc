#include "launch/list_kernels.h"

#include <algorithm>
#include <iomanip>
#include <nlohmann/json.hpp>
#include <ostream>
#include <set>
#include <sstream>
#include <utility>

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

// "GPU 0, 1: NVIDIA H200 (9.0), GPU 2: Tesla T4 (7.5, not used)".
std::string DeviceNames(const DeviceModule& devices) {
  std::vector<std::pair<std::string, std::string>> groups;  // what it is, numbers
  for (size_t i = 0; i < devices.devices.size(); ++i) {
    std::string is = devices.devices[i];
    if (!devices.capabilities.empty()) {
      is += " (" + ToString(devices.capabilities[i]) + (devices.usable(i) ? ")" : ", not used)");
    }
    const std::string number = std::to_string(i);
    const auto same =
        std::find_if(groups.begin(), groups.end(), [&](const auto& g) { return g.first == is; });
    if (same == groups.end()) {
      groups.emplace_back(is, number);
    } else {
      same->second += ", " + number;
    }
  }
  std::vector<std::string> parts;
  for (const auto& [is, numbers] : groups) parts.push_back("GPU " + numbers + ": " + is);
  return Joined(parts);
}

Json DeviceRows(const DeviceModule& devices) {
  Json rows = Json::array();
  for (size_t i = 0; i < devices.devices.size(); ++i) {
    Json row = {{"number", i}, {"name", devices.devices[i]}};
    if (!devices.capabilities.empty()) row["capability"] = ToString(devices.capabilities[i]);
    if (!devices.ids.empty()) row["id"] = devices.ids[i];
    row["usable"] = devices.usable(i);
    rows.push_back(row);
  }
  return rows;
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
  const std::string names = DeviceNames(devices);
  std::string cuda = "not here: " + devices.reason;
  if (!devices.usable().empty()) cuda += "; " + names;
  if (module) cuda = names + "; " + module->built_by + "; " + module->nccl;
  rows.push_back({"cuda",
                  cuda,
                  {{"runs", module != nullptr},
                   {"devices", DeviceRows(devices)},
                   {"reason", devices.reason}}});
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
