// Task tabular: the class of a row of numbers.

#include <memory>

#include "core/data/libsvm.h"
#include "core/data/synthetic_samples.h"
#include "core/engine/task/classification.h"

namespace tw {
namespace {

constexpr int64_t kSyntheticRows = 4096;

struct TabularConfig {
  std::string path = "synthetic";
  std::string val_path;
  int64_t features = 0;
  double val_fraction = 0.1;
  std::string shard = "iid";
  double alpha = 0.5;

  static FieldList<TabularConfig> Fields() {
    FieldList<TabularConfig> list;
    list.Text("path", &TabularConfig::path, {}, "synthetic, or a LIBSVM file, plain or .gz")
        .Text("val_path", &TabularConfig::val_path, {},
              "a LIBSVM file for validation; then all of path is for training")
        .Int("features", &TabularConfig::features, {0, 1 << 26},
             "columns, at least; 0: as many as the files name");
    AddShardFields(list);
    return list;
  }
};

struct Rows {
  std::shared_ptr<SparseRows> rows;
  Split split;
};

StatusOr<Rows> ReadRows(const TabularConfig& config, const TaskOptions& options) {
  Rows out{std::make_shared<SparseRows>(), {}};
  const bool two_files = !config.val_path.empty();
  if (two_files && options.for_eval) {
    TW_ASSIGN_OR_RETURN(*out.rows, ReadLibsvm(config.val_path, config.features));
    out.split = SplitAt(0, out.rows->size());
    return out;
  }
  if (config.path == "synthetic") {
    *out.rows = SyntheticRows(options.seed, kSyntheticRows);
  } else {
    TW_ASSIGN_OR_RETURN(*out.rows, ReadLibsvm(config.path, config.features));
  }
  if (!two_files) {
    auto split = SplitSamples(options.seed, out.rows->size(), config.val_fraction);
    if (!split.ok()) return Annotate(split.status(), config.path);
    out.split = std::move(*split);
    return out;
  }
  const int64_t num_train = out.rows->size();
  TW_ASSIGN_OR_RETURN(const SparseRows validation, ReadLibsvm(config.val_path, config.features));
  if (!out.rows->Append(validation)) {
    std::string known;
    for (int64_t value : out.rows->label_values)
      known += (known.empty() ? "" : ", ") + std::to_string(value);
    return DataError(config.val_path + ": has labels that " + config.path +
                     " has not; its labels are " + known);
  }
  out.split = SplitAt(num_train, out.rows->size());
  return out;
}

class TabularKind : public TaskKind {
 public:
  explicit TabularKind(const TabularConfig& config) : config_(config) {}
  const char* default_model() const override { return "linear"; }

  StatusOr<std::unique_ptr<Task>> Create(const TaskOptions& options) const override {
    TW_ASSIGN_OR_RETURN(Rows read, ReadRows(config_, options));
    const std::shared_ptr<SparseRows> rows = read.rows;
    LabeledSet set;
    set.input = {.kind = InputKind::kRows, .features = rows->features, .classes = rows->classes};
    set.labels = rows->labels;
    set.split = std::move(read.split);
    set.fill = [rows](int64_t index, std::span<float> out) { rows->Densify(index, out); };
    return CreateClassification(std::move(set), {config_.shard, config_.alpha}, default_model(),
                                options);
  }

 private:
  TabularConfig config_;
};

StatusOr<std::unique_ptr<TaskKind>> MakeTabular(const TabularConfig& config) {
  return std::unique_ptr<TaskKind>(std::make_unique<TabularKind>(config));
}

}  // namespace

TW_REGISTER(TaskKind, tabular, 0, TabularConfig, MakeTabular,
            "class of a row of numbers, LIBSVM files");

}  // namespace tw
