#include "launch/compose.h"

#include <algorithm>
#include <bit>
#include <cstdlib>

#include "core/base/hash.h"
#include "core/engine/catch_torch.h"
#include "core/nn/model/model_factory.h"
#include "launch/menus.h"

namespace tw {
namespace {

StatusOr<OwnedRoute> MakeRoute(const ConfigSection& section, const FeedbackPolicy* policy,
                               const std::string& feedback) {
  OwnedRoute owned;
  TW_ASSIGN_OR_RETURN(const auto* entry, Registry<Compressor>::Get().Select(section, "none"));
  TW_ASSIGN_OR_RETURN(owned.codec, entry->make(section));
  owned.route.compressor = entry->name;
  owned.route.feedback = feedback;
  owned.route.codec = owned.codec.get();
  owned.route.wire_id = entry->wire_id;
  owned.route.policy = policy;
  return owned;
}

// More ranks than that would wait for each other more than they send.
constexpr int kLargestRing = 32;

// The exchange that dense gradients are summed by. Between GPUs waits cost more than bytes.
const Exchange* SumsOf(const CommConfig& comm, int ranks, bool on_device) {
  std::string way = comm.sums;
  if (way == "auto" && on_device) way = "direct";
  if (way == "auto") {
    const bool many = ranks > kLargestRing && std::has_single_bit(static_cast<unsigned>(ranks));
    way = many ? "halving" : ranks > 2 && ranks <= kLargestRing ? "ring" : "direct";
  }
  return FindExchange(way == "direct" ? std::string(MergeName(Merge::kSum)) : way);
}

// Whether [compressor] or one of its rules wants that merge.
bool MergeAskedFor(const LoadedConfig& loaded, const std::string& merge) {
  if (loaded.config.section("compressor").GetString("merge", "auto") == merge) return true;
  const auto rules = loaded.config.array("compressor.rule");
  return std::any_of(rules.begin(), rules.end(), [&](const ConfigSection& rule) {
    return rule.GetString("merge", "auto") == merge;
  });
}

// Choices that come to nothing although every key is right.
void NoteIdleCompression(const LoadedConfig& loaded, const Plan& plan, const PlanOptions& options,
                         std::vector<std::string>* notes) {
  const Settings& s = loaded.settings;
  const bool lossless =
      std::all_of(options.rules.begin(), options.rules.end(),
                  [](const PlanRule& rule) { return rule.route.codec->traits().lossless; });
  bool any = false, ever = false;
  for (const ParameterPlan& p : plan.parameters()) {
    any |= p.compressed;
    ever |= p.compressed && p.start_step < s.train.steps;
  }
  if (lossless && !any && s.feedback != "none") {
    notes->push_back("feedback.name = \"" + s.feedback +
                     "\" does nothing: compressor none loses nothing");
  }
  if (any && !ever) {
    notes->push_back("compression never starts: compressor.start_step is not below train.steps = " +
                     std::to_string(s.train.steps));
  }
}

// For each parameter the codec of the first [[optimizer.rule]] that matches, or [optimizer]'s, and
// its role.
Status TreatMoments(const LoadedConfig& loaded, Assembly* a) {
  const Settings& s = loaded.settings;
  std::vector<OptimizerRuleConfig> rules = s.optimizer_rules;
  rules.push_back({"*", s.optimizer.state});
  for (const OptimizerRuleConfig& rule : rules) {
    TW_ASSIGN_OR_RETURN(auto codec,
                        Registry<StateCodec>::Get().Find(rule.state)->make(ConfigSection{}));
    a->codecs.push_back(std::move(codec));
  }
  std::unique_ptr<ParameterRoles> roles;
  if (const auto* entry = Registry<ParameterRoles>::Get().Find(s.model_name)) {
    TW_ASSIGN_OR_RETURN(roles, entry->make(loaded.config.section("model")));
  }
  std::vector<int64_t> matched(rules.size(), 0), large(rules.size(), 0);
  int64_t asked = 0, taken = 0, state_bytes = 0;
  for (const TensorSpec& spec : SpecsOf(a->parameters, a->sketches)) {
    size_t r = 0;
    while (!GlobMatch(rules[r].match, spec.name)) ++r;
    ++matched[r];
    large[r] += TakesStateCodec(spec);
    a->treatments.push_back({a->codecs[r].get(), roles ? roles->RoleOf(spec) : RoleByName(spec)});
    asked += rules[r].state != "fp32";
    taken += rules[r].state != "fp32" && TakesStateCodec(spec);
    state_bytes += a->optimizer->StateBytes(spec, a->treatments.back());
  }
  for (size_t r = 0; r + 1 < rules.size(); ++r) {
    if (matched[r] == 0) {
      a->warnings.push_back("[[optimizer.rule]] match = \"" + rules[r].match +
                            "\" matches no parameter");
    } else if (rules[r].state != "fp32" && large[r] == 0) {
      a->warnings.push_back("[[optimizer.rule]] match = \"" + rules[r].match +
                            "\" does nothing: no parameter that it matches has more than " +
                            std::to_string(kSmallState) + " elements");
    }
  }
  if (asked > 0 && state_bytes == 0) {
    a->warnings.push_back("optimizer.state = \"" + s.optimizer.state + "\" does nothing: " +
                          s.optimizer.name + " with these settings keeps no state");
  } else if (asked > 0 && taken == 0) {
    a->warnings.push_back("optimizer.state = \"" + s.optimizer.state + "\" does nothing: no " +
                          "parameter has more than " + std::to_string(kSmallState) + " elements");
  }
  return OkStatus();
}

// What does not go together with gradients that are sketches.
Status AcceptSketches(const Settings& s, const Assembly& a) {
  const std::string codec = "memory.activations = \"" + s.memory.activations + "\"";
  if (!a.strategy->takes_sketches()) {
    return ConfigError(codec + " keeps gradients as sketches, and strategy.name = \"" + s.strategy +
                       "\" works on whole parameters: use strategy.name = \"sync\"");
  }
  const WeightDecay decay = a.optimizer->weight_decay();
  if (decay.rate > 0 && !decay.decoupled) {
    return ConfigError(codec + " keeps gradients as sketches, to which optimizer.name = \"" +
                       s.optimizer.name +
                       "\" cannot add its weight decay: use optimizer.weight_decay = 0, or adamw");
  }
  return OkStatus();
}

}  // namespace

StatusOr<LoadedConfig> LoadedConfig::Load(const std::string& path,
                                          const std::vector<std::string>& overrides,
                                          const std::vector<std::string>& own) {
  LoadedConfig loaded;
  if (!path.empty()) {
    TW_ASSIGN_OR_RETURN(loaded.config, Config::Load(path));
  }
  std::vector<std::string> words = own;
  words.push_back("name");
  for (const std::string& o : overrides) {
    const std::string key = o.substr(0, o.find('='));
    if (!own.empty() && key.find('.') == std::string::npos && !key.empty() &&
        key.size() < o.size() && std::find(words.begin(), words.end(), key) == words.end()) {
      return ConfigError("command line: there is no key " + key + KnownWords(key, words));
    }
    TW_RETURN_IF_ERROR(loaded.config.Override(o));
  }
  TW_ASSIGN_OR_RETURN(loaded.settings, Settings::Read(loaded.config, &loaded.idle));
  TW_ASSIGN_OR_RETURN(loaded.compared, ComparedToml(loaded.config, loaded.settings));
  loaded.hash = Hash64(loaded.compared);
  TW_ASSIGN_OR_RETURN(loaded.shared, SharedToml(loaded.config, loaded.settings));
  return loaded;
}

StatusOr<std::unique_ptr<Task>> MakeTask(const LoadedConfig& loaded, int rank, int world_size,
                                         bool for_eval, at::Device device) {
  const Settings& s = loaded.settings;
  TW_ASSIGN_OR_RETURN(
      auto kind, Registry<TaskKind>::Get().Find(s.task.name)->make(loaded.config.section("data")));
  TaskOptions options;
  options.model = loaded.config.section("model");
  options.model.Set("name", s.model_name);
  options.seed = static_cast<uint64_t>(s.train.seed);
  options.rank = rank;
  options.world_size = world_size;
  options.device = device;
  options.batch_size = s.train.batch_size;
  options.precision = s.train.precision;
  options.bf16_weights = s.train.weights == "bf16";
  options.memory = s.memory;
  if (const auto* codec = Registry<ActivationCodec>::Get().Find(s.memory.activations)) {
    TW_ASSIGN_OR_RETURN(options.activations, codec->make(loaded.config.section("memory")));
  }
  options.for_eval = for_eval;
  if (const char* home = std::getenv("HOME")) {
    options.cache_folder = std::string(home) + "/.cache/tightwire";
  }
  TW_ASSIGN_OR_RETURN(auto task, CatchTorch([&] { return kind->Create(options); }));
  if (!s.model.init.empty()) TW_RETURN_IF_ERROR(task->LoadWeights(s.model.init));
  return task;
}

std::string NameOf(const Exchange& exchange) {
  for (const std::string& name : Registry<Exchange>::Get().names()) {
    if (FindExchange(name) == &exchange) return name;
  }
  return MergeName(exchange.merge());
}

StatusOr<PlanOptions> AssembleMethod(const LoadedConfig& loaded,
                                     const std::vector<TensorSpec>& specs, int world_size,
                                     std::span<const Merge> merges, Assembly* a,
                                     const Exchange* sums) {
  const Settings& s = loaded.settings;
  const Config& config = loaded.config;
  TW_ASSIGN_OR_RETURN(a->feedback,
                      Registry<FeedbackPolicy>::Get().Make(config.section("feedback"), "none"));
  TW_ASSIGN_OR_RETURN(a->no_feedback,
                      Registry<FeedbackPolicy>::Get().Make(ConfigSection{}, "none"));
  TW_ASSIGN_OR_RETURN(a->strategy,
                      Registry<Strategy>::Get().Make(config.section("strategy"), s.strategy));
  const bool exact_mean = a->strategy->exact_mean();
  if (exact_mean && a->feedback->traits().exact_mean) {
    return ConfigError("strategy.name = \"" + s.strategy +
                       "\" adds up what was sent, and feedback.name = \"" + s.feedback +
                       "\" returns another estimate than its mean: use none or ef14");
  }
  PlanOptions plan;
  plan.world_size = world_size;
  for (Merge merge : merges) {
    // Gathered bodies are decoded one by one: their mean is exact whatever the codec.
    if (exact_mean && merge != Merge::kGather) continue;
    if (const Exchange* exchange = FindExchange(merge)) plan.exchanges.push_back(exchange);
  }
  TW_ASSIGN_OR_RETURN(OwnedRoute dense, MakeRoute(ConfigSection{}, a->no_feedback.get(), "none"));
  dense.route.exchange = sums;
  plan.dense = dense.route;
  plan.leftover_sums = FindExchange(Merge::kSum);  // mostly too small for a ring
  a->routes.push_back(std::move(dense));
  const auto add_rule = [&](const ConfigSection& section) -> Status {
    TW_ASSIGN_OR_RETURN(auto common, ParseFields<CompressorSectionConfig>(section));
    TW_ASSIGN_OR_RETURN(OwnedRoute owned, MakeRoute(section, a->feedback.get(), s.feedback));
    owned.route.merge = common.merge;
    owned.route.hop_feedback = common.hop_feedback;
    PlanRule rule;
    rule.match = section.GetString("match", "*");
    rule.route = owned.route;
    rule.min_numel = common.min_numel;
    rule.start_step = common.start_step;
    plan.rules.push_back(std::move(rule));
    a->routes.push_back(std::move(owned));
    return OkStatus();
  };
  for (const ConfigSection& rule : config.array("compressor.rule"))
    TW_RETURN_IF_ERROR(add_rule(rule));
  TW_RETURN_IF_ERROR(add_rule(config.section("compressor")));
  TW_ASSIGN_OR_RETURN(Plan built, Plan::Build(specs, plan));
  a->plan = std::make_unique<Plan>(std::move(built));
  TW_ASSIGN_OR_RETURN(
      a->optimizer, Registry<Optimizer>::Get().Make(config.section("optimizer"), s.optimizer.name));
  TW_ASSIGN_OR_RETURN(a->schedule,
                      Registry<Schedule>::Get().Make(config.section("schedule"), s.schedule));
  return plan;
}

StatusOr<std::unique_ptr<Assembly>> Assemble(const LoadedConfig& loaded, int rank, int world_size,
                                             int exchanging, at::Device device) {
  const Settings& s = loaded.settings;
  const Config& config = loaded.config;
  auto a = std::make_unique<Assembly>();
  TW_ASSIGN_OR_RETURN(a->task, MakeTask(loaded, rank, world_size, false, device));
  a->parameters = a->task->parameters();
  a->sketches = a->task->sketches();

  constexpr Merge kMerges[] = {Merge::kSum, Merge::kGather, Merge::kReencode, Merge::kSparse};
  const std::span<const Merge> all(kMerges);
  const bool sparse = device.is_cpu() || MergeAskedFor(loaded, MergeName(Merge::kSparse));
  if (exchanging == 0) exchanging = world_size;
  TW_ASSIGN_OR_RETURN(const PlanOptions plan,
                      AssembleMethod(loaded, SpecsOf(a->parameters, a->sketches), exchanging,
                                     sparse ? all : all.first(3), a.get(),
                                     SumsOf(s.comm, exchanging, !device.is_cpu())));
  if (a->strategy->place() == Place::kLabOnly) {
    return ConfigError("strategy.name = \"" + s.strategy +
                       "\" runs in the lab only (tightwire lab list)");
  }
  TW_ASSIGN_OR_RETURN(a->planner,
                      Registry<Planner>::Get().Make(config.section("planner"), s.planner));
  std::vector<std::string> menu_notes;
  if (a->planner->schedule().every == 0) {
    a->planner = nullptr;
  } else {
    TW_ASSIGN_OR_RETURN(MadeMenus made,
                        MakeMenus(config, s.planner, a->planner->wishes(), *a->plan, plan));
    a->choices = std::move(made.choices);
    a->menu = std::move(made.codecs);
    menu_notes = std::move(made.notes);
    if (a->choices.menus.empty()) a->planner = nullptr;
  }

  if (a->planner && a->strategy->ExchangesPerStep() < 1) {
    return ConfigError("planner.name = \"" + s.planner +
                       "\" measures the exchange of every step, and strategy.name = \"" +
                       s.strategy + "\" has one in several: use planner.name = \"none\"");
  }
  if (!a->sketches.empty()) TW_RETURN_IF_ERROR(AcceptSketches(s, *a));
  if (s.train.weights == "bf16") {
    if (!a->strategy->takes_sketches()) {
      return ConfigError("train.weights = \"bf16\": strategy.name = \"" + s.strategy +
                         "\" moves parameters itself, in steps that bf16 does not see: use "
                         "strategy.name = \"sync\"");
    }
    a->masters = s.train.masters == "fp32" ? Masters::kFp32 : Masters::kStochastic;
  }
  a->warnings = loaded.idle;
  NoteIdleCompression(loaded, *a->plan, plan, &a->warnings);
  const int least = s.comm.sums == "ring" || s.comm.sums == "halving" ? 3 : 2;
  if (s.comm.sums != "auto" && exchanging > 1 && exchanging < least) {
    a->warnings.push_back("comm.sums = \"" + s.comm.sums + "\" does nothing on fewer than " +
                          std::to_string(least) + " ranks");
  }
  a->warnings.insert(a->warnings.end(), a->plan->notes().begin(), a->plan->notes().end());
  a->warnings.insert(a->warnings.end(), menu_notes.begin(), menu_notes.end());
  TW_RETURN_IF_ERROR(TreatMoments(loaded, a.get()));
  for (const ParameterPlan& p : a->plan->parameters()) {
    for (const auto& lines : {p.route.policy->Warnings(p.spec, *p.route.codec),
                              a->strategy->Warnings(p.spec, *p.route.codec)}) {
      for (const std::string& w : lines) {
        if (std::find(a->warnings.begin(), a->warnings.end(), w) == a->warnings.end()) {
          a->warnings.push_back(w);
        }
      }
    }
  }
  return a;
}

}  // namespace tw
