#include "launch/menus.h"

#include <algorithm>
#include <set>

namespace tw {
namespace {

// Codecs that differ in their knob only, ascending.
struct Family {
  std::string compressor;
  int wire_id = 0;
  bool dense = false;
  size_t own = 0;  // of them, the configured one
  std::vector<const Compressor*> codecs;
  std::vector<std::string> labels;
};

std::string KnobsOfAll() {
  std::string out;
  for (const std::string& name : Registry<Compressor>::Get().names()) {
    const auto codec = Registry<Compressor>::Get().Find(name)->make(ConfigSection{});
    if (!codec.ok() || !(*codec)->traits().knob.exists()) continue;
    out += (out.empty() ? "" : ", ") + name + " (" + (*codec)->traits().knob.key + ")";
  }
  return out;
}

std::vector<double> Values(const Knob& knob, const PlanWishes& wishes) {
  std::vector<double> out = knob.Options(wishes.from, wishes.to, static_cast<size_t>(wishes.most));
  for (const double factor : wishes.also) {
    const auto two = knob.Options(std::min(factor, 1.0), std::max(factor, 1.0), 2);
    out.push_back(factor < 1 ? two.front() : two.back());
  }
  std::sort(out.begin(), out.end());
  out.erase(std::unique(out.begin(), out.end()), out.end());
  return out;
}

// `section` with each value of its compressor's knob; just itself without one.
StatusOr<Family> MakeFamily(const ConfigSection& section, const PlanWishes& wishes, bool named,
                            std::vector<std::unique_ptr<Compressor>>* codecs) {
  TW_ASSIGN_OR_RETURN(const auto* entry, Registry<Compressor>::Get().Select(section, "none"));
  Family family;
  family.compressor = entry->name;
  family.wire_id = entry->wire_id;
  TW_ASSIGN_OR_RETURN(auto own, entry->make(section));
  const Knob knob = own->traits().knob;
  const std::string prefix = named ? entry->name + " " : "";
  if (!knob.exists()) {
    family.codecs.push_back(own.get());
    family.labels.push_back(entry->name);
    codecs->push_back(std::move(own));
    return family;
  }
  for (const double value : Values(knob, wishes)) {
    ConfigSection other = section;
    other.Set(knob.key, knob.Setting(value));
    TW_ASSIGN_OR_RETURN(auto codec, entry->make(other));
    if (value == knob.value) family.own = family.codecs.size();
    family.codecs.push_back(codec.get());
    family.labels.push_back(prefix + knob.Label(value));
    codecs->push_back(std::move(codec));
  }
  return family;
}

// Adds those of the family's options that this parameter can take. An option of the configured
// family that encodes to no less than the raw bytes is not offered.
void AddOptions(const Family& family, int family_number, const ParameterPlan& p,
                const PlanOptions& options, PlanMenu* menu, std::vector<Route>* routes,
                std::set<std::string>* notes) {
  const int64_t raw = p.spec.numel() * DTypeBytes(p.spec.dtype);
  for (size_t i = 0; i < family.codecs.size(); ++i) {
    const CompressorTraits& traits = family.codecs[i]->traits();
    const int64_t payload = PayloadBytes(*family.codecs[i], p.spec);
    const bool own = family_number == 0 && i == family.own;
    if (!family.dense && !own) {
      if (traits.matrix_only && !p.spec.is_matrix()) return;
      if (traits.fixed_size && payload >= raw) continue;
    }
    Route route = p.route;
    route.compressor = family.compressor;
    route.wire_id = family.wire_id;
    route.codec = family.codecs[i];
    route.exchange = ChooseExchange(route, p.spec, options.exchanges, options.world_size);
    if (!route.exchange) {
      notes->insert("planner: " + family.labels[i] + " does not go with feedback " +
                    route.feedback + " and is not among the options");
      continue;
    }
    if (own) menu->configured = static_cast<int>(menu->options.size());
    const double bytes = options.world_size > 1
                             ? route.exchange->WireBytes(p.spec, payload, options.world_size)
                             : static_cast<double>(payload);
    menu->options.push_back(
        {family.labels[i], route.codec, family_number, traits.knob.value, bytes, family.dense});
    routes->push_back(route);
  }
}

}  // namespace

StatusOr<MadeMenus> MakeMenus(const Config& config, const std::string& planner,
                              const PlanWishes& wishes, const Plan& plan,
                              const PlanOptions& options) {
  MadeMenus made;
  // In the order of the plan's rules: [compressor] is the last one.
  std::vector<Family> configured;
  const bool named = !wishes.families.empty();
  bool any_knob = false;
  const auto add = [&](const ConfigSection& section) -> Status {
    TW_ASSIGN_OR_RETURN(Family family, MakeFamily(section, wishes, named, &made.codecs));
    any_knob = any_knob || family.codecs[0]->traits().knob.exists();
    configured.push_back(std::move(family));
    return OkStatus();
  };
  for (const ConfigSection& rule : config.array("compressor.rule")) TW_RETURN_IF_ERROR(add(rule));
  TW_RETURN_IF_ERROR(add(config.section("compressor")));
  TW_CHECK_EQ(configured.size(), options.rules.size());
  if (wishes.knob && !any_knob) {
    return ConfigError("planner.name = \"" + planner +
                       "\" turns the knob of a compressor, and compressor.name = \"" +
                       configured.back().compressor +
                       "\" has none; these have one: " + KnobsOfAll());
  }
  std::vector<Family> joining;
  for (const std::string& name : wishes.families) {
    ConfigSection section;
    section.name = "planner.mixed";
    section.where = "planner";
    section.Set("name", name);
    if (!Registry<Compressor>::Get().Find(name)) {
      return ConfigError("planner: compressor \"" + name + "\" is not known" +
                         KnownWords(name, Registry<Compressor>::Get().names()));
    }
    TW_ASSIGN_OR_RETURN(Family family, MakeFamily(section, wishes, true, &made.codecs));
    joining.push_back(std::move(family));
  }
  if (wishes.dense) {
    joining.push_back({options.dense.compressor,
                       options.dense.wire_id,
                       true,
                       0,
                       {options.dense.codec},
                       {"dense"}});
  }

  std::set<std::string> notes;
  for (size_t i = 0; i < plan.parameters().size(); ++i) {
    const ParameterPlan& p = plan.parameters()[i];
    if (!p.compressed || p.route.codec->traits().lossless) continue;
    PlanMenu menu{p.spec, {}, 0};
    std::vector<Route> routes;
    const Family& own = configured[static_cast<size_t>(p.rule)];
    AddOptions(own, 0, p, options, &menu, &routes, &notes);
    int number = 0;
    for (const Family& family : joining) {
      ++number;
      // Its keys are the config's where it is the configured one.
      if (family.dense || family.compressor != own.compressor) {
        AddOptions(family, number, p, options, &menu, &routes, &notes);
      }
    }
    if (menu.options.size() < 2) continue;
    made.choices.menus.push_back(std::move(menu));
    made.choices.routes.push_back(std::move(routes));
    made.choices.parameters.push_back(static_cast<int>(i));
  }
  made.notes.assign(notes.begin(), notes.end());
  if (made.choices.menus.empty()) {
    made.notes.push_back("planner " + planner +
                         " does nothing: no parameter has more than one way to travel");
  }
  return made;
}

}  // namespace tw
