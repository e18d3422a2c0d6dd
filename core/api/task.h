#pragma once
// Task = model + loss + batches. One object a rank; used from the main thread only.
// Batches are pure functions of (seed, step, micro, rank): the data position is the step number,
// and resume is exact.

#include <ATen/core/Tensor.h>

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/api/activation_codec.h"
#include "core/api/activations.h"
#include "core/api/sketch.h"
#include "core/base/config_value.h"
#include "core/base/registry.h"

namespace tw {

struct EvalResult {
  double loss = 0;                 // mean, nats a token (lm) or a sample
  std::optional<double> accuracy;  // image, tabular
  int64_t tokens = 0;              // tokens or samples evaluated
};

class Task {
 public:
  virtual ~Task() = default;
  // Named, trainable, each storage once (a tied head is not listed again), in registration order;
  // the same on all ranks. The tensors are the model's own: writing into them changes the model.
  // They are on TaskOptions::device.
  virtual std::vector<std::pair<std::string, at::Tensor>> parameters() = 0;
  // Those of them whose gradients are sketches. Fixed once the task is made.
  virtual Sketches sketches() { return {}; }
  // Forward on this rank's micro-batch; a scalar that requires grad: the mean loss over the
  // micro-batch.
  virtual at::Tensor Loss(uint64_t step, int64_t micro) = 0;
  // Of Loss and its backward; nothing where shapes alone do not say it.
  virtual std::optional<ActivationEstimate> EstimateActivations() const { return std::nullopt; }
  // Over the whole validation split.
  virtual StatusOr<EvalResult> Evaluate() = 0;
  // The share of rank `part` of `parts`. The whole result is the mean over parts of loss and
  // accuracy, weighted with tokens. A task that cannot divide the work leaves it to part 0.
  virtual StatusOr<EvalResult> EvaluatePart(int part, int parts) {
    return part == 0 ? Evaluate() : StatusOr<EvalResult>(EvalResult{});
  }
  virtual int64_t samples_per_batch() const = 0;
  virtual int64_t tokens_per_batch() const = 0;  // = samples where there are no tokens
  // Loads / saves weights as safetensors under the model's public names.
  virtual Status LoadWeights(const std::string& path) = 0;
  virtual Status SaveWeights(const std::string& path) const = 0;
};

struct TaskOptions {
  ConfigSection model;  // [model]: handed to Registry<ModelFactory>
  uint64_t seed = 1;
  int rank = 0;
  int world_size = 1;
  at::Device device = at::kCPU;    // of parameters, and of what they are multiplied with
  int64_t batch_size = 8;          // per rank and micro-batch
  std::string precision = "fp32";  // fp32 | bf16 (autocast) | bf16_pure (with bf16_weights)
  bool bf16_weights = false;       // of linear layers, and with them their gradients
  MemoryConfig memory;             // [memory]: handed to the model
  // What linear layers keep of their inputs; null: the inputs themselves.
  std::shared_ptr<const ActivationCodec> activations;
  bool for_eval = false;     // only the validation split is opened
  std::string cache_folder;  // where data that had to be made is kept; empty: nowhere
};

// A kind of task. Its registered config struct holds the keys of [data], so that
// Registry<TaskKind>::Find("lm")->make(config.section("data")) is a kind with its data settings
// bound.
class TaskKind {
 public:
  virtual ~TaskKind() = default;
  // The model used when [model] names none; empty: the task brings its own and [model] has no keys
  // but init.
  virtual const char* default_model() const = 0;
  // Opens the data and builds the model.
  virtual StatusOr<std::unique_ptr<Task>> Create(const TaskOptions& options) const = 0;
};

}  // namespace tw
