#pragma once
// One sample, one class: what the tasks image and tabular share. Loss is the mean cross entropy in
// nats.

#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "core/data/split.h"
#include "core/engine/task/model_task.h"

namespace tw {

// How training samples are divided over ranks; core/data/split.h says what the kinds do.
struct ShardChoice {
  std::string kind;
  double alpha;
};

// The keys of [data] that both tasks have: val_fraction, shard, alpha.
template <class C>
void AddShardFields(FieldList<C>& list) {
  list.Real("val_fraction", &C::val_fraction, {0, 1, kOpenBoth},
            "part of the samples for validation, when the data has no validation part of its own")
      .Text("shard", &C::shard, {"iid", "by_label", "dirichlet"},
            "how training samples are divided over ranks")
      .Real("alpha", &C::alpha, {0, 1e9, kOpenLow},
            "of dirichlet: smaller gives ranks more unequal classes");
}

// Samples as the models want them. `fill` writes sample `index` as numel(input) floats; it is
// called from one thread.
struct LabeledSet {
  ModelInput input;
  std::vector<int32_t> labels;  // of all samples
  Split split;
  std::function<void(int64_t index, std::span<float> out)> fill;
};

// Divides the training samples over ranks and builds the model.
StatusOr<std::unique_ptr<Task>> CreateClassification(LabeledSet set, const ShardChoice& choice,
                                                     const char* default_model,
                                                     const TaskOptions& options);

// Samples 0 .. num_train - 1 are for training, the others for validation.
Split SplitAt(int64_t num_train, int64_t size);

}  // namespace tw
