// eval: loss (and accuracy) of saved weights on the validation split. One rank; under a launcher
// only rank 0 works.

#include <ATen/Parallel.h>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <ostream>

#include "core/engine/checkpoint.h"
#include "launch/commands.h"
#include "launch/compose.h"

namespace tw {

Status RunEval(const std::string& config, const std::vector<std::string>& overrides, bool json,
               std::ostream& out) {
  std::string checkpoint;
  std::vector<std::string> rest;
  for (const std::string& o : overrides) {
    if (o.rfind("checkpoint=", 0) == 0) {
      checkpoint = o.substr(11);
    } else {
      rest.push_back(o);
    }
  }
  if (ReadLauncher().rank > 0) return OkStatus();
  if (checkpoint.empty()) {
    return ConfigError(
        "eval needs checkpoint=PATH: a run folder, a checkpoint folder or a safetensors file");
  }
  TW_ASSIGN_OR_RETURN(const LoadedConfig loaded, LoadedConfig::Load(config, rest, {"checkpoint"}));
  const int64_t threads = loaded.settings.train.threads;
  at::set_num_threads(threads > 0 ? static_cast<int>(threads) : DefaultThreads(1));
  std::vector<std::string> warnings;
  TW_ASSIGN_OR_RETURN(const std::string weights, ResolveWeights(checkpoint, &warnings));
  for (const std::string& w : warnings) std::fprintf(stderr, "tightwire: %s\n", w.c_str());
  TW_ASSIGN_OR_RETURN(auto task, MakeTask(loaded, 0, 1, /*for_eval=*/true));
  TW_RETURN_IF_ERROR(task->LoadWeights(weights));
  TW_ASSIGN_OR_RETURN(const EvalResult result, task->Evaluate());
  if (json) {
    nlohmann::ordered_json j = {{"loss", result.loss}};
    if (result.accuracy) j["accuracy"] = *result.accuracy;
    j["tokens"] = result.tokens;
    out << j.dump() << "\n";
  } else {
    out << "loss " << result.loss;
    if (result.accuracy) out << "  accuracy " << *result.accuracy;
    out << "  tokens " << result.tokens << "  (" << weights << ")\n";
  }
  return OkStatus();
}

}  // namespace tw
