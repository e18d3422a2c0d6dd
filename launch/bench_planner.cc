#include "launch/bench_planner.h"

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <nlohmann/json.hpp>

#include "absl/strings/str_format.h"
#include "core/base/clock.h"
#include "core/engine/plan_updater.h"
#include "core/engine/update.h"
#include "launch/compose.h"

namespace tw {
namespace {

struct Case {
  const char* name;
  std::vector<std::string> overrides;
};
const std::vector<Case>& Models() {
  static const auto* models = new std::vector<Case>{
      {"gpt", {"task.name=lm", "model.name=gpt", "data.path=synthetic", "optimizer.name=adamw"}},
      {"cnn",
       {"task.name=image", "model.name=cnn", "data.path=synthetic", "optimizer.name=sgdm",
        "optimizer.lr=0.003"}}};
  return *models;
}
const std::vector<Case>& Families() {
  static const auto* families =
      new std::vector<Case>{{"rank", {"compressor.name=powersgd", "compressor.rank=4"}},
                            {"density", {"compressor.name=topk", "compressor.ratio=0.01"}},
                            {"bits", {"compressor.name=blockquant", "compressor.bits=4"}}};
  return *families;
}

struct Row {
  PlanRound round;
  size_t menus = 0, options = 0;
  double step_ms = 0;  // mean over the run
  int64_t every = 0;
  double share() const {
    return (round.measure_ms + round.decide_ms) / (step_ms * static_cast<double>(every));
  }
};

StatusOr<Row> Measure(const std::vector<std::string>& overrides, int64_t rounds) {
  TW_ASSIGN_OR_RETURN(const LoadedConfig loaded,
                      LoadedConfig::Load("", overrides, {"models", "families", "rounds"}));
  const Settings& s = loaded.settings;
  at::set_num_threads(static_cast<int>(std::max<int64_t>(1, s.train.threads)));
  TW_ASSIGN_OR_RETURN(auto world, World::Open("thread", 60));
  TW_ASSIGN_OR_RETURN(auto assembly, Assemble(loaded, 0, 1));
  Assembly& a = *assembly;
  if (!a.planner) return ConfigError("bench planner: no parameter has more than one option");
  StateBag state;
  GradientReducer reducer(a.parameters, a.plan.get(), &world->comm(), &world->lane(), &state,
                          {static_cast<int64_t>(s.comm.bucket_cap_mb * (1 << 20)), s.comm.overlap,
                           static_cast<uint64_t>(s.train.seed), nullptr, nullptr, a.sketches});
  TW_ASSIGN_OR_RETURN(
      auto updater,
      PlanUpdater::Create({a.planner.get(), s.planner, &a.choices, a.plan.get(), &state,
                           &world->comm(), &world->lane(), static_cast<uint64_t>(s.train.seed)},
                          0));
  reducer.set_observer(updater.get());
  const double start = NowMs();
  int64_t step = 0;
  while (updater->num_rounds() < rounds) {
    reducer.ZeroGradients();
    const at::Tensor loss = a.task->Loss(static_cast<uint64_t>(step), 0);
    reducer.Arm(static_cast<uint64_t>(step));
    loss.backward();
    double sums[] = {0.0};
    TW_RETURN_IF_ERROR(reducer.Finish(sums).status());
    TW_RETURN_IF_ERROR(
        Update(*a.optimizer, reducer.views(), {s.optimizer.lr, 1.0f, step + 1, &state}));
    StepRecord record;
    record.step = ++step;
    TW_RETURN_IF_ERROR(updater->EndStep(record));
  }
  Row row{updater->last_round(), a.choices.menus.size(), 0, 0, a.planner->schedule().every};
  row.step_ms = (NowMs() - start) / static_cast<double>(step);
  for (const PlanMenu& menu : a.choices.menus) {
    row.options = std::max(row.options, menu.options.size());
  }
  reducer.set_observer(nullptr);
  return row;
}

void Print(const std::string& model, const std::string& family, const Row& row, bool json,
           std::ostream& out) {
  const PlanRound& r = row.round;
  if (json) {
    const nlohmann::ordered_json j = {{"bench", "planner"},
                                      {"model", model},
                                      {"family", family},
                                      {"step", r.step},
                                      {"parameters", row.menus},
                                      {"options", row.options},
                                      {"uniform_bytes", r.bytes_configured},
                                      {"planned_bytes", r.bytes_after},
                                      {"bytes_ratio", r.bytes_configured / r.bytes_after},
                                      {"uniform_error", r.error_configured},
                                      {"planned_error", r.error_after},
                                      {"at_floor", r.at_floor},
                                      {"measure_ms", r.measure_ms},
                                      {"decide_ms", r.decide_ms},
                                      {"step_ms", row.step_ms},
                                      {"every", row.every},
                                      {"share_of_run", row.share()}};
    out << j.dump() << std::endl;
    return;
  }
  out << absl::StrFormat(
             "%-4s %-8s %6.0f -> %-6.0f B  %5.2fx fewer  error %.5g -> %.5g  %d of %d at the floor "
             " "
             "measuring %.1f ms + deciding %.1f ms a round: %.2f %% of the run",
             model, family, r.bytes_configured, r.bytes_after, r.bytes_configured / r.bytes_after,
             r.error_configured, r.error_after, r.at_floor, row.menus, r.measure_ms, r.decide_ms,
             100 * row.share())
      << std::endl;
}

// Takes key=value out of the arguments.
std::string Take(std::vector<std::string>* arguments, const std::string& key,
                 const std::string& fallback) {
  for (auto it = arguments->begin(); it != arguments->end(); ++it) {
    if (it->rfind(key + "=", 0) != 0) continue;
    const std::string value = it->substr(key.size() + 1);
    arguments->erase(it);
    return value;
  }
  return fallback;
}

StatusOr<std::vector<Case>> Chosen(const std::vector<Case>& all, const std::string& key,
                                   const std::string& name) {
  if (name.empty()) return all;
  std::vector<std::string> known;
  for (const Case& c : all) {
    if (c.name == name) return std::vector<Case>{c};
    known.push_back(c.name);
  }
  return ConfigError("bench planner: " + key + "=" + name + " is not known" +
                     KnownWords(name, known));
}

}  // namespace

Status RunBenchPlanner(const std::vector<std::string>& arguments, bool json, std::ostream& out) {
  std::vector<std::string> own = arguments;
  const std::string rounds_text = Take(&own, "rounds", "2");
  const int64_t rounds = std::atoll(rounds_text.c_str());
  if (rounds < 1) {
    return ConfigError("bench planner: rounds=" + rounds_text + " is not allowed; it must be >= 1");
  }
  TW_ASSIGN_OR_RETURN(const auto models, Chosen(Models(), "models", Take(&own, "models", "")));
  TW_ASSIGN_OR_RETURN(const auto families,
                      Chosen(Families(), "families", Take(&own, "families", "")));
  for (const Case& model : models) {
    for (const Case& family : families) {
      std::vector<std::string> overrides = model.overrides;
      overrides.insert(overrides.end(), family.overrides.begin(), family.overrides.end());
      overrides.insert(overrides.end(), {"feedback.name=ef14", "planner.name=lgreco"});
      overrides.insert(overrides.end(), own.begin(), own.end());
      TW_ASSIGN_OR_RETURN(const Row row, Measure(overrides, rounds));
      Print(model.name, family.name, row, json, out);
    }
  }
  return OkStatus();
}

}  // namespace tw
