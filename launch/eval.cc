// eval: loss (and accuracy) of saved weights on the validation split. One rank; under a launcher
// only rank 0 works.

#include <torch/torch.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <ostream>
#include <thread>

#include "launch/commands.h"
#include "launch/compose.h"

namespace tw {
namespace {

namespace fs = std::filesystem;

// checkpoint= takes a run folder, a checkpoint folder or a safetensors file.
StatusOr<std::string> FindWeights(const std::string& path) {
  if (fs::is_regular_file(path)) return path;
  if (!fs::is_directory(path)) return DataError(path + ": there is no such file or folder");
  if (fs::exists(path + "/model.safetensors")) return path + "/model.safetensors";
  std::string newest;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(path + "/checkpoints", error)) {
    const std::string name = entry.path().filename().string();
    if (name.rfind("step-", 0) != 0 || !fs::exists(entry.path() / "model.safetensors")) continue;
    newest = std::max(newest, entry.path().string());
  }
  if (newest.empty()) {
    return DataError(path +
                     ": holds neither model.safetensors nor checkpoints/step-*/model.safetensors");
  }
  return newest + "/model.safetensors";
}

}  // namespace

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
  TW_ASSIGN_OR_RETURN(const LoadedConfig loaded, LoadedConfig::Load(config, rest));
  const int64_t threads = loaded.settings.train.threads;
  at::set_num_threads(threads > 0
                          ? static_cast<int>(threads)
                          : static_cast<int>(std::max(1u, std::thread::hardware_concurrency())));
  TW_ASSIGN_OR_RETURN(const std::string weights, FindWeights(checkpoint));
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
