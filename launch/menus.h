#pragma once
// Menus for a planner: for every compressed parameter the options it asked for, made through the
// registry from the config's own sections.

#include <memory>
#include <string>
#include <vector>

#include "core/engine/plan_updater.h"
#include "launch/settings.h"

namespace tw {

struct MadeMenus {
  PlanChoices choices;  // a menu a parameter that has more than one option
  std::vector<std::unique_ptr<Compressor>> codecs;  // what they point to
  std::vector<std::string> notes;                   // for the log
};

// Fault kConfig when the planner wants a knob and no compressor of the config has one; the message
// names those that have. `options` are what the plan was built from.
StatusOr<MadeMenus> MakeMenus(const Config& config, const std::string& planner,
                              const PlanWishes& wishes, const Plan& plan,
                              const PlanOptions& options);

}  // namespace tw
