#pragma once
// A task around a torch::nn::Module of your own: you say how a batch becomes a loss, this class
// does the rest. examples/04_own_module trains one through the library.
//
//   class Waves : public tw::TaskFor<Net> {
//    public:
//     Waves(const WavesConfig& config, const tw::TaskOptions& options) : TaskFor(options, 64) {}
//     at::Tensor Loss(uint64_t step, int64_t micro) override;
//     tw::StatusOr<tw::EvalResult> Evaluate() override;
//   };
//   TW_REGISTER_TASK(waves, WavesConfig, Waves, "a surface of two waves");
//
// The module is made on the CPU, in fp32 or fp64, and moved to where the run computes: make batches
// on the CPU and hand them over with Moved(). Only parameters travel and are saved: a buffer that
// training changes (BatchNorm's statistics) would differ between ranks.

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/api/task.h"
#include "core/nn/model/model.h"

namespace tw {

class ModuleTask : public Task {
 public:
  std::vector<std::pair<std::string, at::Tensor>> parameters() override;
  Sketches sketches() override;  // of the Linear layers in the module
  int64_t samples_per_batch() const override { return options_.batch_size; }
  int64_t tokens_per_batch() const override { return options_.batch_size; }
  Status LoadWeights(const std::string& path) override;
  Status SaveWeights(const std::string& path) const override;

 protected:
  // Moves the module, which is on the CPU or already there, to options.device.
  ModuleTask(std::shared_ptr<torch::nn::Module> module, const TaskOptions& options);

  // Randomness for this rank's batch: the same whenever (seed, step, micro, rank) are, which is
  // what makes a resumed run equal to an unbroken one.
  at::Generator BatchGenerator(uint64_t step, int64_t micro) const;
  // Where the module is; without waiting.
  at::Tensor Moved(const at::Tensor& batch) const;
  // Names another program may store for a parameter that the module registers once.
  virtual std::map<std::string, std::string> TiedNames() const { return {}; }

  const TaskOptions options_;

 private:
  std::shared_ptr<torch::nn::Module> module_;
};

// Parameters and buffers of a module that was made on the CPU; whoever holds these tensors sees
// them move.
void MoveModule(torch::nn::Module& module, at::Device device);

// A task around a module of type M, made as M(args...) from LibTorch's generator seeded with
// train.seed: the same weights on all ranks.
template <class M>
class TaskFor : public ModuleTask {
 protected:
  template <class... Args>
  explicit TaskFor(const TaskOptions& options, const Args&... args)
      : TaskFor((torch::manual_seed(options.seed), std::make_shared<M>(args...)), options) {}
  M& module() const { return *typed_; }

 private:
  TaskFor(std::shared_ptr<M> module, const TaskOptions& options)
      : ModuleTask(module, options), typed_(std::move(module)) {}
  std::shared_ptr<M> typed_;
};

// A TaskKind whose tasks bring their own module: T is made from (Config, TaskOptions).
template <class Config, class T>
class ModuleTaskKind : public TaskKind {
 public:
  explicit ModuleTaskKind(const Config& config) : config_(config) {}
  const char* default_model() const override { return ""; }
  StatusOr<std::unique_ptr<Task>> Create(const TaskOptions& options) const override {
    return std::make_unique<T>(config_, options);
  }
  static StatusOr<std::unique_ptr<TaskKind>> Make(const Config& config) {
    return std::make_unique<ModuleTaskKind>(config);
  }

 private:
  Config config_;
};

}  // namespace tw

// task.name = "name" makes a T; Config holds its keys, those of [data].
#define TW_REGISTER_TASK(name, Config, T, summary) \
  TW_REGISTER(::tw::TaskKind, name, 0, Config, (::tw::ModuleTaskKind<Config, T>::Make), summary)
