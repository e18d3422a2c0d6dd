#include "launch/explain_states.h"

#include <algorithm>
#include <iomanip>
#include <ostream>

namespace tw {
namespace {

const char* StateName(const StateTreatment& treatment, const TensorSpec& spec) {
  if (spec.dtype == DType::kF64) return "fp64";
  return TakesStateCodec(spec) ? treatment.codec->name() : "fp32";
}

}  // namespace

void PrintStates(const Assembly& a, std::ostream& out) {
  const bool roles = a.optimizer->uses_roles();
  const bool plain = std::all_of(a.treatments.begin(), a.treatments.end(), [](const auto& t) {
    return t.codec->name() == std::string("fp32");
  });
  if (plain && !roles) return;
  size_t width = 10;
  for (const ParameterPlan& p : a.plan->parameters()) width = std::max(width, p.spec.name.size());
  out << "\n# optimizer states" << (roles ? " and blocks" : "") << "\n";
  for (const ParameterPlan& p : a.plan->parameters()) {
    const StateTreatment& t = a.treatments[p.spec.id];
    const int64_t bytes = a.optimizer->StateBytes(p.spec, t);
    out << "  " << std::left << std::setw(static_cast<int>(width) + 2) << p.spec.name
        << std::setw(13) << StateName(t, p.spec) << std::right << std::setw(12) << bytes << " B"
        << std::fixed << std::setprecision(4) << std::setw(10)
        << static_cast<double>(bytes) / static_cast<double>(std::max<int64_t>(p.spec.numel(), 1))
        << " a number";
    if (roles) {
      out << std::setw(10) << NumBlocks(BlocksOf(t.role, p.spec)) << " blocks  "
          << RoleText(t.role);
    }
    out << "\n";
  }
}

nlohmann::ordered_json StatesJson(const Assembly& a) {
  auto rows = nlohmann::ordered_json::array();
  for (const ParameterPlan& p : a.plan->parameters()) {
    const StateTreatment& t = a.treatments[p.spec.id];
    rows.push_back({{"param", p.spec.name},
                    {"state", StateName(t, p.spec)},
                    {"bytes", a.optimizer->StateBytes(p.spec, t)}});
    if (!a.optimizer->uses_roles()) continue;
    rows.back()["blocks"] = NumBlocks(BlocksOf(t.role, p.spec));
    rows.back()["role"] = RoleText(t.role);
  }
  return rows;
}

}  // namespace tw
