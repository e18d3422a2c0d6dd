// explain: what a config would do, without training: effective config, plan per parameter, bytes a
// step, memory estimate.

#include <ATen/Parallel.h>
#include <cmath>
#include <iomanip>
#include <map>
#include <nlohmann/json.hpp>
#include <ostream>
#include <sstream>

#include "absl/strings/numbers.h"
#include "core/engine/tensor_memory.h"
#include "launch/commands.h"
#include "launch/explain_cluster.h"
#include "launch/explain_states.h"
#include "launch/grouping.h"
#include "launch/memory_report.h"

namespace tw {
namespace {

std::string ShapeText(const std::vector<int64_t>& shape) {
  std::string out;
  for (int64_t d : shape) out += (out.empty() ? "" : "x") + std::to_string(d);
  return out.empty() ? "scalar" : out;
}

std::string Mega(double bytes) {
  std::ostringstream text;
  text << std::fixed << std::setprecision(bytes < 1e5 ? 4 : 2) << bytes / 1e6 << " MB";
  return text.str();
}

// The menus, each printed once with the number of parameters that have it.
void PrintPlanner(const std::string& name, const Assembly& a, std::ostream& out) {
  if (!a.planner) return;
  const PlanSchedule schedule = a.planner->schedule();
  std::map<std::string, int> menus;
  for (const PlanMenu& menu : a.choices.menus) {
    std::string text;
    for (const PlanOption& o : menu.options) text += (text.empty() ? "" : ", ") + o.label;
    ++menus[text];
  }
  out << "\n# planner " << name << ", every " << schedule.every << " steps\n";
  for (const auto& [options, count] : menus) {
    out << "  " << count << " parameters: " << options << "\n";
  }
}

// For models without a formula: what one forward and backward on a batch needs at its worst beside
// parameters and gradients. Gradients are there from a pass before, as in a run, where they have
// memory of their own before the first step.
int64_t MeasureActivationBytes(Task& task) {
  task.Loss(0, 0).backward();
  const int64_t before = LiveTensorBytes();
  ResetPeakTensorBytes();
  task.Loss(0, 0).backward();
  return PeakTensorBytes() - before;
}

void PrintMemory(const MemoryReport& memory, bool measured, std::ostream& out) {
  const auto line = [&](const char* name, int64_t bytes, const std::string& note = "") {
    out << "  " << std::left << std::setw(12) << name << std::right
        << Mega(static_cast<double>(bytes)) << note << "\n";
  };
  out << "\n# memory of a rank\n";
  line("parameters", memory.parameters);
  line("gradients", memory.gradients);
  line("optimizer", memory.optimizer);
  line("feedback", memory.feedback);
  line("strategy", memory.strategy);
  line("activations", *memory.activations,
       measured ? "  (one forward and backward, measured)"
                : "  (at the worst moment, from the shapes)");
  // Runs of equal layers on a line: "block 0 .. 5".
  for (size_t i = 0; i < memory.layers.size();) {
    size_t end = i + 1;
    while (end < memory.layers.size() && memory.layers[end].bytes == memory.layers[i].bytes) ++end;
    out << "    " << memory.layers[i].name
        << (end > i + 1 ? " .. " + memory.layers[end - 1].name + ", each " : " ")
        << Mega(static_cast<double>(memory.layers[i].bytes)) << " kept until backward\n";
    i = end;
  }
  line("peak", *memory.peak());
}

}  // namespace

Status RunExplain(const std::string& config, const std::vector<std::string>& overrides, bool json,
                  std::ostream& out) {
  InstallTensorMemoryCounter();
  const LauncherHint hint = ReadLauncher();
  if (hint.rank > 0) return OkStatus();
  std::vector<std::string> rest = overrides;
  TW_ASSIGN_OR_RETURN(const ClusterWords words, TakeClusterWords(&rest, hint.size));
  const int ranks = words.ranks;
  TW_ASSIGN_OR_RETURN(
      const LoadedConfig loaded,
      LoadedConfig::Load(config, rest, {"ranks", "hosts", "rate", "latency", "run", "times"}));
  TW_ASSIGN_OR_RETURN(const Grouping grouping,
                      ChooseGrouping(loaded.settings, words.HostOfRanks()));
  const int exchanging = grouping.exchanging(ranks);
  TW_ASSIGN_OR_RETURN(const auto a, Assemble(loaded, 0, ranks, exchanging));
  TW_ASSIGN_OR_RETURN(const std::string toml, EffectiveToml(loaded.config, loaded.settings));

  int64_t params = 0;
  for (const auto& [name, parameter] : a->parameters) params += parameter.numel();
  double payload = 0, wire = 0;  // a step, on the average
  const double exchanges = a->strategy->ExchangesPerStep();
  for (const ParameterPlan& p : a->plan->parameters()) {
    payload += exchanges * static_cast<double>(p.payload_bytes);
    wire += exchanges * p.route.exchange->WireBytes(p.spec, p.payload_bytes, exchanging);
  }
  MemoryReport memory = PredictMemory(*a);
  const bool measured = !memory.activations;
  if (measured) memory.activations = MeasureActivationBytes(*a->task);
  std::optional<ClusterForecast> forecast;
  if (words.bytes_per_ms) {
    at::set_num_threads(loaded.settings.train.threads > 0
                            ? static_cast<int>(loaded.settings.train.threads)
                            : DefaultThreads(1));
    TW_ASSIGN_OR_RETURN(forecast, ForetellCluster(loaded, *a, words));
  }

  if (json) {
    nlohmann::ordered_json j;
    j["params"] = params;
    j["ranks"] = ranks;
    j["groups"] = exchanging;
    j["plan"] = nlohmann::ordered_json::array();
    for (const ParameterPlan& p : a->plan->parameters()) {
      j["plan"].push_back({{"param", p.spec.name},
                           {"shape", p.spec.shape},
                           {"compressor", p.route.compressor},
                           {"feedback", p.route.feedback},
                           {"merge", MergeName(p.route.exchange->merge())},
                           {"exchange", NameOf(*p.route.exchange)},
                           {"bytes", p.payload_bytes}});
    }
    if (a->planner) {
      j["planner"] = {{"name", loaded.settings.planner},
                      {"menus", nlohmann::ordered_json::array()}};
      for (const PlanMenu& menu : a->choices.menus) {
        nlohmann::ordered_json options = nlohmann::ordered_json::array();
        for (const PlanOption& option : menu.options) options.push_back(option.label);
        j["planner"]["menus"].push_back({{"param", menu.spec.name}, {"options", options}});
      }
    }
    j["states"] = StatesJson(*a);
    j["wire_bytes_per_step"] = wire;
    j["payload_bytes_per_step"] = payload;
    j["exchanges_per_step"] = exchanges;
    j["dense_bytes_per_step"] = 4 * params;
    j["memory"] = ToJson(memory);
    if (forecast) j["cluster"] = ToJson(*forecast, words);
    j["warnings"] = a->warnings;
    out << j.dump() << "\n";
    return OkStatus();
  }
  out << "# effective config\n"
      << toml << "\n# plan (" << ranks << (ranks == 1 ? " rank" : " ranks")
      << (grouping.group_of.empty() ? "" : " in " + std::to_string(exchanging) + " groups")
      << ")\n";
  size_t width = 10;
  for (const ParameterPlan& p : a->plan->parameters()) width = std::max(width, p.spec.name.size());
  for (const ParameterPlan& p : a->plan->parameters()) {
    out << "  " << std::left << std::setw(static_cast<int>(width) + 2) << p.spec.name
        << std::setw(14) << ShapeText(p.spec.shape) << std::setw(14) << p.route.compressor
        << std::setw(11) << p.route.feedback << std::setw(9) << NameOf(*p.route.exchange)
        << std::right << std::setw(10) << p.payload_bytes << " B"
        << (p.why_dense.empty() || p.compressed ? "" : "  " + p.why_dense) << "\n";
  }
  PrintPlanner(loaded.settings.planner, *a, out);
  PrintStates(*a, out);
  out << "\n# a step\n  parameters " << params << "\n  dense      "
      << Mega(4.0 * static_cast<double>(params)) << "\n  payload    " << Mega(payload)
      << "  (ratio " << std::fixed << std::setprecision(1)
      << (payload > 0 ? 4.0 * static_cast<double>(params) / payload : 1.0) << ")\n  wire       "
      << Mega(wire) << (grouping.group_of.empty() ? " sent by each rank" : " sent by each group")
      << (ranks == 1 ? " (one rank sends nothing; try ranks=4)" : "") << "\n";
  if (exchanges < 1) {
    out << "  one exchange in " << std::llround(1 / exchanges)
        << " steps; payload and wire are means over steps\n";
  }
  PrintMemory(memory, measured, out);
  if (forecast) PrintForecast(*forecast, words, out);
  if (forecast && exchanges < 1) {
    out << "  of a step that exchanges; the others take the arithmetic alone\n";
  }
  for (const std::string& w : grouping.notes) out << "note: " << w << "\n";
  for (const std::string& w : a->warnings) out << "note: " << w << "\n";
  return OkStatus();
}

}  // namespace tw
