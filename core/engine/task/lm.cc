// Task lm: the next token of a text. Training windows are drawn at random over the training part,
// each rank its own; validation reads the windows in order.

#include "core/data/text_corpus.h"
#include "core/engine/task/model_task.h"
#include "core/nn/torch.h"

namespace tw {
namespace {

struct LmConfig {
  std::string path = "kjv";
  std::string val_path;
  int64_t context = 128;
  double val_fraction = 0.1;
  int64_t vocab = 0;
  std::string shard = "iid";

  static FieldList<LmConfig> Fields() {
    return FieldList<LmConfig>()
        .Text("path", &LmConfig::path, {},
              "kjv (Debian's bible-kjv), synthetic, a text or .gz file, or a .bin file of uint16 "
              "tokens")
        .Text("val_path", &LmConfig::val_path, {},
              "another text for validation; then all of path is for training")
        .Int("context", &LmConfig::context, {1, 1 << 24}, "tokens a window predicts")
        .Real("val_fraction", &LmConfig::val_fraction, {0, 1, kOpenBoth},
              "the last part of path is for validation")
        .Int("vocab", &LmConfig::vocab, {0, 65536},
             "0: 256 for text, the largest token + 1 for .bin")
        .Text("shard", &LmConfig::shard, {"iid"},
              "each rank draws its own windows from the whole text");
  }
};

class LmTask : public ModelTask {
 public:
  LmTask(TextCorpus corpus, std::shared_ptr<Model> model, const TaskOptions& options)
      : ModelTask(std::move(model), options), corpus_(std::move(corpus)) {}

  at::Tensor Loss(uint64_t step, int64_t micro) override {
    const BatchKey key{options_.seed, static_cast<int64_t>(step), micro, options_.rank};
    model_->BeginStep(step);
    return LossOf(corpus_.TrainWindows(key, options_.batch_size));
  }

  StatusOr<EvalResult> EvaluatePart(int part, int parts) override {
    const torch::NoGradGuard no_grad;
    const int64_t windows = corpus_.num_validation_windows();
    const int64_t from = windows * part / parts, to = windows * (part + 1) / parts;
    double sum = 0;
    for (int64_t first = from; first < to; first += options_.batch_size) {
      const int64_t count = std::min(options_.batch_size, to - first);
      sum += LossOf(corpus_.ValidationWindows(first, count)).item<double>() *
             static_cast<double>(count);
    }
    EvalResult result;
    result.tokens = (to - from) * corpus_.context();
    if (to > from) result.loss = sum / static_cast<double>(to - from);
    return result;
  }

  std::optional<ActivationEstimate> EstimateActivations() const override {
    // Under autocast the estimate reckons with copies of weights.
    if (options_.bf16_weights && precision() == Precision::kBf16) return std::nullopt;
    // Formulas know nothing of codecs; whoever asks then measures.
    if (options_.activations && !options_.activations->keeps_input()) return std::nullopt;
    return model_->EstimateActivations(options_.batch_size, corpus_.context(), precision());
  }
  int64_t samples_per_batch() const override { return options_.batch_size; }
  int64_t tokens_per_batch() const override { return options_.batch_size * corpus_.context(); }

 private:
  at::Tensor LossOf(const std::vector<int64_t>& windows) const {
    const at::Tensor ids = torch::tensor(windows).view({-1, corpus_.context() + 1});
    // Labels stay on the host, where the model's loss can count them.
    return MeanLoss(Moved(ids.narrow(1, 0, corpus_.context())),
                    ids.narrow(1, 1, corpus_.context()));
  }

  TextCorpus corpus_;
};

class LmKind : public TaskKind {
 public:
  explicit LmKind(const LmConfig& config) : config_(config) {}
  const char* default_model() const override { return "gpt"; }

  StatusOr<std::unique_ptr<Task>> Create(const TaskOptions& options) const override {
    TW_ASSIGN_OR_RETURN(TextCorpus corpus, TextCorpus::Load({.path = config_.path,
                                                             .val_path = config_.val_path,
                                                             .context = config_.context,
                                                             .val_fraction = config_.val_fraction,
                                                             .vocab = config_.vocab,
                                                             .cache_folder = options.cache_folder,
                                                             .seed = options.seed,
                                                             .validation_only = options.for_eval}));
    TW_ASSIGN_OR_RETURN(auto model, MakeModel(options, default_model(),
                                              {.kind = InputKind::kTokens,
                                               .vocab = corpus.vocab(),
                                               .context = corpus.context()}));
    return std::unique_ptr<Task>(
        std::make_unique<LmTask>(std::move(corpus), std::move(model), options));
  }

 private:
  LmConfig config_;
};

StatusOr<std::unique_ptr<TaskKind>> MakeLm(const LmConfig& config) {
  return std::unique_ptr<TaskKind>(std::make_unique<LmKind>(config));
}

}  // namespace

TW_REGISTER(TaskKind, lm, 0, LmConfig, MakeLm, "next token of a text, a token a byte");

}  // namespace tw
