#pragma once
// The config sections that belong to no variant: what a run is, how long, with whom. Everything
// about INTERFACE's keys that is not a variant's own is here, once: parsing, ranges, help, the
// effective config.toml and the hash ranks compare.

#include <string>
#include <utility>
#include <vector>

#include "core/api/activations.h"
#include "core/base/config_fields.h"

namespace tw {

struct TopConfig {
  std::string name = "run";
  static FieldList<TopConfig> Fields();
};
struct RunConfig {
  std::string dir;
  static FieldList<RunConfig> Fields();
};
struct TaskSectionConfig {
  std::string name = "lm";
  static FieldList<TaskSectionConfig> Fields();
};
struct ModelSectionConfig {  // beside the keys of the model named
  std::string name;
  std::string init;
  static FieldList<ModelSectionConfig> Fields();
};
struct TrainConfig {
  int64_t steps = 1000;
  int64_t batch_size = 8;
  int64_t accumulate = 1;
  int64_t seed = 1;
  std::string device = "auto";
  std::string precision = "fp32";
  std::string weights = "fp32";
  std::string masters = "fp32";
  double grad_clip = 1.0;
  int64_t threads = 0;
  int64_t max_skipped = 20;
  static FieldList<TrainConfig> Fields();
};
struct CommConfig {
  std::string backend = "auto";
  double bucket_cap_mb = 4.0;
  int64_t concurrent_buckets = 2;
  bool overlap = true;
  std::string sums = "auto";
  std::string hierarchical = "auto";
  int64_t group_size = 0;
  double timeout_s = 300;
  int64_t check_replicas_every = 100;
  static FieldList<CommConfig> Fields();
};
struct CompressorSectionConfig {  // of [compressor] and of each [[compressor.rule]]
  std::string name = "none";
  int64_t min_numel = 1024;
  int64_t start_step = 0;
  std::string merge = "auto";
  bool hop_feedback = false;
  static FieldList<CompressorSectionConfig> Fields();
};
struct NamedSectionConfig {  // sections with nothing but a variant's name
  std::string name;
  static FieldList<NamedSectionConfig> Fields();
};
struct OptimizerSectionConfig {
  std::string name = "adamw";
  double lr = 1e-3;
  std::string state = "fp32";
  static FieldList<OptimizerSectionConfig> Fields();
};
// [[optimizer.rule]]
struct OptimizerRuleConfig {
  std::string match = "*";
  std::string state = "fp32";
  static FieldList<OptimizerRuleConfig> Fields();
};
struct CheckpointConfig {
  int64_t every = 0;
  int64_t keep = 3;
  std::string resume = "auto";
  static FieldList<CheckpointConfig> Fields();
};
struct MetricsConfig {
  std::vector<std::string> sinks = {"console", "jsonl", "tensorboard"};
  int64_t every = 1;
  std::string trace_steps;
  static FieldList<MetricsConfig> Fields();
};

struct Settings {
  TopConfig top;
  RunConfig run;
  TaskSectionConfig task;
  ModelSectionConfig model;
  TrainConfig train;
  CommConfig comm;
  CompressorSectionConfig compressor;
  OptimizerSectionConfig optimizer;
  std::vector<OptimizerRuleConfig> optimizer_rules;
  MemoryConfig memory;
  CheckpointConfig checkpoint;
  MetricsConfig metrics;
  std::string feedback = "none";
  std::string planner = "none";
  std::string strategy = "sync";
  std::string schedule = "constant";
  std::string model_name;

  // Checks every section and key. *idle gets a line for every setting that does nothing.
  static StatusOr<Settings> Read(const Config& config, std::vector<std::string>* idle);
};

// All sections with their effective values, as TOML.
StatusOr<std::string> EffectiveToml(const Config& config, const Settings& settings);
// What must be equal across a resume: everything but run.dir, train.steps, thread count, [metrics],
// [checkpoint] and comm.timeout_s.
StatusOr<std::string> ComparedToml(const Config& config, const Settings& settings);
// What must be equal on all ranks: everything but thread count and comm.timeout_s. Ranks that end,
// save or resume at steps of their own would wait for each other in vain.
StatusOr<std::string> SharedToml(const Config& config, const Settings& settings);
// "optimizer.lr: 0.001 -> 0.01" for each key in which two such texts differ; "(none)" for no value.
std::vector<std::string> ChangedKeys(const std::string& was, const std::string& is);

// Section names in file order with the fields outside of variants; for `list` and the guide.
std::vector<std::pair<std::string, std::vector<FieldInfo>>> CommonFields();

}  // namespace tw
