#include "core/engine/task/classification.h"

#include <algorithm>
#include <numeric>

#include "core/nn/torch.h"

namespace tw {
namespace {

constexpr int64_t kEvalBatch = 256;

class ClassificationTask : public ModelTask {
 public:
  ClassificationTask(LabeledSet set, std::vector<int64_t> shard, std::shared_ptr<Model> model,
                     const TaskOptions& options)
      : ModelTask(std::move(model), options), set_(std::move(set)), shard_(std::move(shard)) {}

  at::Tensor Loss(uint64_t step, int64_t micro) override {
    const BatchKey key{options_.seed, static_cast<int64_t>(step), micro, options_.rank};
    std::vector<int64_t> samples =
        BatchPositions(key, static_cast<int64_t>(shard_.size()), options_.batch_size);
    for (int64_t& s : samples) s = shard_[static_cast<size_t>(s)];
    return MeanLoss(Moved(Inputs(samples)), Labels(samples));
  }

  StatusOr<EvalResult> EvaluatePart(int part, int parts) override {
    const torch::NoGradGuard no_grad;
    const std::vector<int64_t>& all = set_.split.validation;
    const auto size = static_cast<int64_t>(all.size());
    const int64_t from = size * part / parts, to = size * (part + 1) / parts;
    EvalResult result;
    result.tokens = to - from;
    double loss = 0, correct = 0;
    for (int64_t first = from; first < to; first += kEvalBatch) {
      const std::vector<int64_t> samples(all.begin() + first,
                                         all.begin() + std::min(first + kEvalBatch, to));
      const at::Tensor scores = Scores(Moved(Inputs(samples))), labels = Moved(Labels(samples));
      loss += at::cross_entropy_loss(scores, labels).item<double>() *
              static_cast<double>(samples.size());
      correct += scores.argmax(1).eq(labels).sum().item<double>();
    }
    result.accuracy = 0;
    if (to > from) {
      result.loss = loss / static_cast<double>(to - from);
      result.accuracy = correct / static_cast<double>(to - from);
    }
    return result;
  }

  int64_t samples_per_batch() const override { return options_.batch_size; }
  int64_t tokens_per_batch() const override { return options_.batch_size; }

 private:
  at::Tensor Inputs(const std::vector<int64_t>& samples) const {
    const ModelInput& in = set_.input;
    const int64_t numel = in.numel();
    const auto count = static_cast<int64_t>(samples.size());
    at::Tensor out = torch::empty({count, numel});
    for (int64_t i = 0; i < count; ++i) {
      set_.fill(samples[static_cast<size_t>(i)],
                {out.data_ptr<float>() + i * numel, static_cast<size_t>(numel)});
    }
    if (in.kind == InputKind::kImage) return out.view({count, in.channels, in.height, in.width});
    return out;
  }

  at::Tensor Labels(const std::vector<int64_t>& samples) const {
    at::Tensor out = torch::empty({static_cast<int64_t>(samples.size())}, torch::kLong);
    auto* to = out.data_ptr<int64_t>();
    for (int64_t s : samples) *to++ = set_.labels[static_cast<size_t>(s)];
    return out;
  }

  LabeledSet set_;
  std::vector<int64_t> shard_;  // this rank's training samples
};

}  // namespace

Split SplitAt(int64_t num_train, int64_t size) {
  Split out;
  out.train.resize(static_cast<size_t>(num_train));
  out.validation.resize(static_cast<size_t>(size - num_train));
  std::iota(out.train.begin(), out.train.end(), int64_t{0});
  std::iota(out.validation.begin(), out.validation.end(), num_train);
  return out;
}

StatusOr<std::unique_ptr<Task>> CreateClassification(LabeledSet set, const ShardChoice& choice,
                                                     const char* default_model,
                                                     const TaskOptions& options) {
  std::vector<int64_t> shard;
  if (!options.for_eval) {
    std::vector<int32_t> labels;
    for (int64_t s : set.split.train) labels.push_back(set.labels[static_cast<size_t>(s)]);
    TW_ASSIGN_OR_RETURN(const auto shards, Shards(labels, {.kind = choice.kind,
                                                           .alpha = choice.alpha,
                                                           .seed = options.seed,
                                                           .world_size = options.world_size}));
    for (int64_t position : shards[static_cast<size_t>(options.rank)]) {
      shard.push_back(set.split.train[static_cast<size_t>(position)]);
    }
  }
  TW_ASSIGN_OR_RETURN(auto model, MakeModel(options, default_model, set.input));
  return std::unique_ptr<Task>(std::make_unique<ClassificationTask>(
      std::move(set), std::move(shard), std::move(model), options));
}

}  // namespace tw
