#include "launch/settings.h"

#include <map>
#include <sstream>

#include "core/api/activation_codec.h"
#include "core/api/feedback.h"
#include "core/api/metrics.h"
#include "core/api/optimizer.h"
#include "core/api/planner.h"
#include "core/api/schedule.h"
#include "core/api/strategy.h"
#include "core/api/task.h"
#include "core/base/hash.h"
#include "core/nn/model/model_factory.h"
#include "launch/trace_file.h"

namespace tw {
namespace {

constexpr int64_t kMaxInt = std::numeric_limits<int64_t>::max();

std::vector<std::string> Keys(const std::vector<FieldInfo>& fields) {
  std::vector<std::string> out;
  for (const auto& f : fields) out.push_back(f.key);
  return out;
}

using Values = std::vector<std::pair<std::string, FieldValue>>;

// One section that holds common keys and those of a registered variant.
struct SectionRule {
  std::vector<FieldInfo> common;
  std::vector<FieldInfo> variant;
  std::vector<std::string> elsewhere;
  std::function<StatusOr<Values>(const ConfigSection&)> effective;
};

template <class Interface>
StatusOr<SectionRule> VariantRule(const ConfigSection& section, const std::string& name,
                                  std::vector<FieldInfo> common) {
  ConfigSection chosen = section;
  if (!chosen.has("name")) chosen.Set("name", name, section.where);
  TW_ASSIGN_OR_RETURN(const auto* entry, Registry<Interface>::Get().Select(chosen, name));
  SectionRule rule;
  rule.common = std::move(common);
  rule.variant = entry->fields;
  rule.elsewhere = Registry<Interface>::Get().all_keys();
  rule.effective = entry->effective;
  TW_RETURN_IF_ERROR(entry->make(section).status());  // ranges of the variant's own keys
  return rule;
}

Status CheckVariantKeys(const ConfigSection& section, const SectionRule& rule,
                        std::vector<std::string>* idle) {
  std::vector<std::string> known = Keys(rule.common);
  for (const auto& f : rule.variant) known.push_back(f.key);
  return CheckKeys(section, known, rule.elsewhere, idle);
}

// A policy for whole blocks goes with layers that keep their inputs.
std::string CodecName(const MemoryConfig& memory) {
  return Registry<ActivationCodec>::Get().Find(memory.activations) ? memory.activations : "none";
}

// [memory] names its variant by `activations`. A key of another one at its default is nobody's
// wish.
StatusOr<MemoryConfig> ReadMemory(const ConfigSection& section, std::vector<std::string>* idle) {
  TW_ASSIGN_OR_RETURN(const MemoryConfig memory, ParseFields<MemoryConfig>(section));
  TW_ASSIGN_OR_RETURN(
      const SectionRule rule,
      VariantRule<ActivationCodec>(section, CodecName(memory), MemoryConfig::Fields().infos()));
  std::vector<std::string> others;
  TW_RETURN_IF_ERROR(CheckVariantKeys(section, rule, &others));
  if (memory.head_form != MemoryConfig{}.head_form && memory.head_chunks == 1) {
    idle->push_back("memory.head_form = \"" + memory.head_form +
                    "\" does nothing with memory.head_chunks = 1");
  }
  if (others.empty()) return memory;
  std::vector<std::string> own = Keys(rule.variant);
  for (const std::string& name : Registry<ActivationCodec>::Get().names()) {
    for (const FieldInfo& f : Registry<ActivationCodec>::Get().Find(name)->fields) {
      const auto it = section.values.find(f.key);
      if (it == section.values.end() || it->second.value == f.default_value) continue;
      if (std::find(own.begin(), own.end(), f.key) != own.end()) continue;
      own.push_back(f.key);
      idle->push_back("memory." + f.key + " = " + ToToml(it->second.value) +
                      " does nothing with memory.activations = \"" + memory.activations + "\" (" +
                      it->second.where + ")");
    }
  }
  return memory;
}

void AppendSection(const std::string& header, const Values& values, std::string* out) {
  *out += "\n" + header + "\n";
  for (const auto& [key, value] : values) *out += key + " = " + ToToml(value) + "\n";
}

// "compressor.rule.0.rank" -> "4" for a text of EffectiveToml.
std::map<std::string, std::string> KeysOf(const std::string& toml) {
  std::map<std::string, std::string> out;
  std::map<std::string, int> arrays;
  std::string prefix;
  std::istringstream in(toml);
  for (std::string line; std::getline(in, line);) {
    const size_t equals = line.find(" = ");
    if (line.rfind("[[", 0) == 0) {
      const std::string name = line.substr(2, line.find(']') - 2);
      prefix = name + "." + std::to_string(arrays[name]++) + ".";
    } else if (line.rfind("[", 0) == 0) {
      prefix = line.substr(1, line.find(']') - 1) + ".";
    } else if (equals != std::string::npos) {
      out[prefix + line.substr(0, equals)] = line.substr(equals + 3);
    }
  }
  return out;
}

}  // namespace

FieldList<TopConfig> TopConfig::Fields() {
  return FieldList<TopConfig>().Text("name", &TopConfig::name, {},
                                     "names the run folder runs/<name>-<time>");
}
FieldList<RunConfig> RunConfig::Fields() {
  return FieldList<RunConfig>().Text("dir", &RunConfig::dir, {},
                                     "run folder, exactly; empty: runs/<name>-<time>");
}
FieldList<TaskSectionConfig> TaskSectionConfig::Fields() {
  return FieldList<TaskSectionConfig>().Text("name", &TaskSectionConfig::name,
                                             Registry<TaskKind>::Get().names(),
                                             "what is learned; owns the keys of [data]");
}
FieldList<ModelSectionConfig> ModelSectionConfig::Fields() {
  return FieldList<ModelSectionConfig>()
      .Text("name", &ModelSectionConfig::name, {}, "model; the task's own default when empty")
      .Text("init", &ModelSectionConfig::init, {}, "safetensors file with the first weights");
}
FieldList<TrainConfig> TrainConfig::Fields() {
  return FieldList<TrainConfig>()
      .Int("steps", &TrainConfig::steps, {1, kMaxInt}, "steps of the whole run")
      .Int("batch_size", &TrainConfig::batch_size, {1, 1 << 24}, "samples per rank and micro-batch")
      .Int("accumulate", &TrainConfig::accumulate, {1, 1 << 20},
           "micro-batches a step; compressed once")
      .Int("seed", &TrainConfig::seed, {0, kMaxInt}, "of weights, batches and compressors")
      .Text("device", &TrainConfig::device, {"auto", "cpu", "cuda"},
            "where parameters, gradients and states lie; auto: on GPUs when every rank has one of "
            "its own")
      .Text(
          "precision", &TrainConfig::precision, {"fp32", "bf16", "bf16_pure"},
          "bf16: products of the forward pass in bfloat16 (autocast); bf16_pure: all activations, "
          "without autocast (weights bf16; gpt and llama)")
      .Text("weights", &TrainConfig::weights, {"fp32", "bf16"},
            "of linear layers; bf16: they and their gradients take two bytes (precision bf16 or "
            "bf16_pure, strategy sync)")
      .Text("masters", &TrainConfig::masters, {"fp32", "stochastic"},
            "how bf16 weights take small updates: fp32 copies, or rounded at random without any")
      .Real("grad_clip", &TrainConfig::grad_clip, {0},
            "norm to which the exchanged gradient is clipped; 0: off")
      .Int("threads", &TrainConfig::threads, {0, 4096},
           "per rank; 0: OMP_NUM_THREADS, or cores / ranks on this host")
      .Int("max_skipped", &TrainConfig::max_skipped, {1, kMaxInt},
           "give up (exit 5) after so many steps in a row with a non-finite gradient");
}
FieldList<CommConfig> CommConfig::Fields() {
  return FieldList<CommConfig>()
      .Text("backend", &CommConfig::backend, {"auto", "thread", "mpi", "nccl"},
            "auto: mpi under a launcher, thread (one rank) otherwise; gradients on GPUs travel by "
            "nccl "
            "where it is there, with mpi through pinned memory")
      .Real("bucket_cap_mb", &CommConfig::bucket_cap_mb, {0, 1 << 20, kOpenLow},
            "gradients are sent in buckets of at most so many MB")
      .Int("concurrent_buckets", &CommConfig::concurrent_buckets, {1, 16},
           "buckets under way at once: while one waits for bytes another encodes or decodes")
      .Bool("overlap", &CommConfig::overlap, "send buckets while backward goes on")
      .Text(
          "sums", &CommConfig::sums, {"auto", "direct", "ring", "halving", "library"},
          "how dense fp32 gradients are summed: every rank sends to every other, in rank order; "
          "round a ring, which keeps slow links full; by halves, with few waits for many ranks; by "
          "MPI's own all-reduce, whose last bits may change with the buckets; auto: a ring of 3 to "
          "32 ranks, halves beyond where ranks are a power of two")
      .Text(
          "hierarchical", &CommConfig::hierarchical, {"auto", "on", "off"},
          "ranks of a host are averaged dense and send one message; auto: where hosts have several")
      .Int("group_size", &CommConfig::group_size, {0, 1 << 20},
           "so many ranks in a row count as a host, for racks or sockets; 0: hosts as they are")
      .Real("timeout_s", &CommConfig::timeout_s, {0, 1e9, kOpenLow},
            "deadline of every exchange and of the start")
      .Int("check_replicas_every", &CommConfig::check_replicas_every, {0, kMaxInt},
           "compare a hash of the parameters over ranks every so many steps; 0: never");
}
FieldList<CompressorSectionConfig> CompressorSectionConfig::Fields() {
  return FieldList<CompressorSectionConfig>()
      .Text("name", &CompressorSectionConfig::name, Registry<Compressor>::Get().names(),
            "how gradients are encoded")
      .Int("min_numel", &CompressorSectionConfig::min_numel, {0, kMaxInt},
           "smaller parameters travel dense")
      .Int("start_step", &CompressorSectionConfig::start_step, {0, kMaxInt},
           "dense before this step (0-based)")
      .Text("merge", &CompressorSectionConfig::merge,
            {"auto", "sum", "gather", "reencode", "sparse"},
            "how the ranks' bodies combine; auto: the way that hands the fewest bytes on")
      .Bool("hop_feedback", &CompressorSectionConfig::hop_feedback,
            "exchange reencode: what encoding the mean again loses is added to the next mean");
}
FieldList<NamedSectionConfig> NamedSectionConfig::Fields() {
  return FieldList<NamedSectionConfig>().Text("name", &NamedSectionConfig::name, {}, "variant");
}
FieldList<OptimizerSectionConfig> OptimizerSectionConfig::Fields() {
  return FieldList<OptimizerSectionConfig>()
      .Text("name", &OptimizerSectionConfig::name, Registry<Optimizer>::Get().names(),
            "update rule")
      .Real("lr", &OptimizerSectionConfig::lr, {0}, "base learning rate; [schedule] multiplies it")
      .Text("state", &OptimizerSectionConfig::state, Registry<StateCodec>::Get().names(),
            "how moments of parameters above 4096 elements rest between steps");
}
FieldList<OptimizerRuleConfig> OptimizerRuleConfig::Fields() {
  return FieldList<OptimizerRuleConfig>()
      .Text("match", &OptimizerRuleConfig::match, {}, "glob over parameter names")
      .Text("state", &OptimizerRuleConfig::state, Registry<StateCodec>::Get().names(),
            "how their moments rest; the first rule that matches decides");
}
FieldList<CheckpointConfig> CheckpointConfig::Fields() {
  return FieldList<CheckpointConfig>()
      .Int("every", &CheckpointConfig::every, {0, kMaxInt},
           "steps between checkpoints, one more at the end; 0: none")
      .Int("keep", &CheckpointConfig::keep, {1, kMaxInt}, "newest checkpoints kept")
      .Text("resume", &CheckpointConfig::resume, {},
            "auto (the newest in run.dir), never, or the path of a checkpoint or run folder");
}
FieldList<MetricsConfig> MetricsConfig::Fields() {
  return FieldList<MetricsConfig>()
      .Texts("sinks", &MetricsConfig::sinks, Registry<MetricSinkKind>::Get().names(),
             "who gets a record a step")
      .Int("every", &MetricsConfig::every, {1, kMaxInt}, "steps between records")
      .Text("trace_steps", &MetricsConfig::trace_steps, {},
            "steps whose timeline each rank writes, as 100:103; empty: none");
}

StatusOr<Settings> Settings::Read(const Config& config, std::vector<std::string>* idle) {
  TW_RETURN_IF_ERROR(config.CheckSections(
      {"", "run", "task", "data", "model", "train", "comm", "compressor", "feedback", "planner",
       "strategy", "optimizer", "schedule", "memory", "checkpoint", "metrics"}));
  Settings s;
  const auto plain = [&](const char* name, auto* out) -> Status {
    using C = std::remove_pointer_t<decltype(out)>;
    const ConfigSection& section = config.section(name);
    TW_ASSIGN_OR_RETURN(*out, ParseFields<C>(section));
    return CheckKeys(section, Keys(C::Fields().infos()), {}, idle);
  };
  TW_RETURN_IF_ERROR(plain("", &s.top));
  if (s.top.name.empty() || s.top.name.find('/') != std::string::npos) {
    return ConfigError(config.section("").values.at("name").where + ": name = \"" + s.top.name +
                       "\" is not allowed; it must be a word without \"/\", it names a folder in "
                       "runs/ (run.dir takes a path)");
  }
  TW_RETURN_IF_ERROR(plain("run", &s.run));
  TW_RETURN_IF_ERROR(plain("task", &s.task));
  TW_RETURN_IF_ERROR(plain("train", &s.train));
  TW_RETURN_IF_ERROR(plain("comm", &s.comm));
  TW_RETURN_IF_ERROR(plain("checkpoint", &s.checkpoint));
  TW_RETURN_IF_ERROR(plain("metrics", &s.metrics));
  if (!s.metrics.trace_steps.empty()) {
    TW_RETURN_IF_ERROR(ParseTraceSteps(s.metrics.trace_steps).status());
  }

  // [data] belongs to the task, without a name key of its own.
  const auto* task = Registry<TaskKind>::Get().Find(s.task.name);
  TW_CHECK(task != nullptr);
  TW_ASSIGN_OR_RETURN(auto kind, task->make(config.section("data")));
  TW_RETURN_IF_ERROR(CheckKeys(config.section("data"), Keys(task->fields),
                               Registry<TaskKind>::Get().all_keys(), idle));

  TW_ASSIGN_OR_RETURN(s.model, ParseFields<ModelSectionConfig>(config.section("model")));
  s.model_name = s.model.name.empty() ? kind->default_model() : s.model.name;
  const auto variant = [&]<class Interface>(Registry<Interface>*, const char* section_name,
                                            const std::string& name,
                                            std::vector<FieldInfo> common) -> Status {
    const ConfigSection& section = config.section(section_name);
    TW_ASSIGN_OR_RETURN(const SectionRule rule,
                        VariantRule<Interface>(section, name, std::move(common)));
    return CheckVariantKeys(section, rule, idle);
  };
  const std::vector<FieldInfo> name_only = NamedSectionConfig::Fields().infos();
  if (s.model_name.empty()) {  // a task of the user's own that brings its model
    TW_RETURN_IF_ERROR(
        CheckKeys(config.section("model"), Keys(ModelSectionConfig::Fields().infos()), {}, idle));
  } else {
    TW_RETURN_IF_ERROR(variant(static_cast<Registry<ModelFactory>*>(nullptr), "model", s.model_name,
                               ModelSectionConfig::Fields().infos()));
  }
  TW_ASSIGN_OR_RETURN(s.compressor,
                      ParseFields<CompressorSectionConfig>(config.section("compressor")));
  TW_RETURN_IF_ERROR(variant(static_cast<Registry<Compressor>*>(nullptr), "compressor",
                             s.compressor.name, CompressorSectionConfig::Fields().infos()));
  for (const ConfigSection& rule : config.array("compressor.rule")) {
    auto common = CompressorSectionConfig::Fields().infos();
    common.push_back({"match", std::string("*"), "", "glob over parameter names"});
    if (!rule.has("match"))
      return ConfigError(rule.where + ": [[compressor.rule]] needs a key match");
    if (!rule.has("name"))
      return ConfigError(rule.where + ": [[compressor.rule]] needs a key name");
    TW_ASSIGN_OR_RETURN(const SectionRule keys, VariantRule<Compressor>(rule, "none", common));
    TW_RETURN_IF_ERROR(CheckVariantKeys(rule, keys, idle));
  }
  s.feedback = config.section("feedback").GetString("name", s.feedback);
  TW_RETURN_IF_ERROR(
      variant(static_cast<Registry<FeedbackPolicy>*>(nullptr), "feedback", s.feedback, name_only));
  s.planner = config.section("planner").GetString("name", s.planner);
  TW_RETURN_IF_ERROR(
      variant(static_cast<Registry<Planner>*>(nullptr), "planner", s.planner, name_only));
  s.strategy = config.section("strategy").GetString("name", s.strategy);
  TW_RETURN_IF_ERROR(
      variant(static_cast<Registry<Strategy>*>(nullptr), "strategy", s.strategy, name_only));
  TW_ASSIGN_OR_RETURN(s.memory, ReadMemory(config.section("memory"), idle));
  if (s.model_name.empty() && !(s.memory == MemoryConfig{})) {
    idle->push_back("[memory] does nothing: the task brings a model of its own");
  }
  if (s.train.weights == "bf16" && s.model_name.empty()) {
    idle->push_back("train.weights does nothing: the task brings a model of its own");
  }
  if (s.train.masters != TrainConfig{}.masters && s.train.weights != "bf16") {
    idle->push_back("train.masters = \"" + s.train.masters +
                    "\" does nothing with train.weights = \"fp32\"");
  }
  s.schedule = config.section("schedule").GetString("name", s.schedule);
  TW_RETURN_IF_ERROR(
      variant(static_cast<Registry<Schedule>*>(nullptr), "schedule", s.schedule, name_only));
  TW_ASSIGN_OR_RETURN(s.optimizer,
                      ParseFields<OptimizerSectionConfig>(config.section("optimizer")));
  TW_RETURN_IF_ERROR(variant(static_cast<Registry<Optimizer>*>(nullptr), "optimizer",
                             s.optimizer.name, OptimizerSectionConfig::Fields().infos()));
  for (const ConfigSection& section : config.array("optimizer.rule")) {
    TW_RETURN_IF_ERROR(CheckKeys(section, Keys(OptimizerRuleConfig::Fields().infos()), {}, idle));
    for (const char* key : {"match", "state"}) {
      if (!section.has(key)) {
        return ConfigError(section.where + ": [[optimizer.rule]] needs a key " + key);
      }
    }
    TW_ASSIGN_OR_RETURN(OptimizerRuleConfig rule, ParseFields<OptimizerRuleConfig>(section));
    s.optimizer_rules.push_back(std::move(rule));
  }
  return s;
}

StatusOr<std::string> EffectiveToml(const Config& config, const Settings& s) {
  std::string out;
  for (const auto& [key, value] : DumpFields(s.top)) out += key + " = " + ToToml(value) + "\n";
  const auto variant = [&]<class Interface>(Registry<Interface>*, const std::string& section,
                                            const std::string& name, Values values) -> Status {
    const auto* entry = Registry<Interface>::Get().Find(name);
    TW_CHECK(entry != nullptr);
    TW_ASSIGN_OR_RETURN(const Values own, entry->effective(config.section(section)));
    values.insert(values.end(), own.begin(), own.end());
    AppendSection("[" + section + "]", values, &out);
    return OkStatus();
  };
  const auto named = [](const std::string& name) { return Values{{"name", FieldValue(name)}}; };
  AppendSection("[run]", DumpFields(s.run), &out);
  AppendSection("[task]", DumpFields(s.task), &out);
  TW_RETURN_IF_ERROR(variant(static_cast<Registry<TaskKind>*>(nullptr), "data", s.task.name, {}));
  const Values model{{"name", s.model_name}, {"init", s.model.init}};
  if (s.model_name.empty()) {
    AppendSection("[model]", model, &out);
  } else {
    TW_RETURN_IF_ERROR(
        variant(static_cast<Registry<ModelFactory>*>(nullptr), "model", s.model_name, model));
  }
  AppendSection("[train]", DumpFields(s.train), &out);
  AppendSection("[comm]", DumpFields(s.comm), &out);
  TW_RETURN_IF_ERROR(variant(static_cast<Registry<Compressor>*>(nullptr), "compressor",
                             s.compressor.name, DumpFields(s.compressor)));
  for (const ConfigSection& rule : config.array("compressor.rule")) {
    Values values{{"match", rule.GetString("match", "*")}};
    TW_ASSIGN_OR_RETURN(const auto common, ParseFields<CompressorSectionConfig>(rule));
    for (const auto& v : DumpFields(common)) values.push_back(v);
    TW_ASSIGN_OR_RETURN(const Values own,
                        Registry<Compressor>::Get().Find(common.name)->effective(rule));
    values.insert(values.end(), own.begin(), own.end());
    AppendSection("[[compressor.rule]]", values, &out);
  }
  TW_RETURN_IF_ERROR(variant(static_cast<Registry<FeedbackPolicy>*>(nullptr), "feedback",
                             s.feedback, named(s.feedback)));
  TW_RETURN_IF_ERROR(
      variant(static_cast<Registry<Planner>*>(nullptr), "planner", s.planner, named(s.planner)));
  TW_RETURN_IF_ERROR(variant(static_cast<Registry<Strategy>*>(nullptr), "strategy", s.strategy,
                             named(s.strategy)));
  TW_RETURN_IF_ERROR(variant(static_cast<Registry<Optimizer>*>(nullptr), "optimizer",
                             s.optimizer.name, DumpFields(s.optimizer)));
  for (const OptimizerRuleConfig& rule : s.optimizer_rules) {
    AppendSection("[[optimizer.rule]]", DumpFields(rule), &out);
  }
  TW_RETURN_IF_ERROR(variant(static_cast<Registry<Schedule>*>(nullptr), "schedule", s.schedule,
                             named(s.schedule)));
  TW_RETURN_IF_ERROR(variant(static_cast<Registry<ActivationCodec>*>(nullptr), "memory",
                             CodecName(s.memory), DumpFields(s.memory)));
  AppendSection("[checkpoint]", DumpFields(s.checkpoint), &out);
  AppendSection("[metrics]", DumpFields(s.metrics), &out);
  return out;
}

StatusOr<std::string> ComparedToml(const Config& config, const Settings& settings) {
  Settings s = settings;
  s.run = {};
  s.train.steps = 1;
  s.train.threads = 0;
  s.checkpoint = {};
  s.metrics = {};
  s.comm.timeout_s = CommConfig{}.timeout_s;
  return EffectiveToml(config, s);
}

StatusOr<std::string> SharedToml(const Config& config, const Settings& settings) {
  Settings s = settings;
  s.train.threads = 0;
  s.comm.timeout_s = CommConfig{}.timeout_s;
  return EffectiveToml(config, s);
}

std::vector<std::string> ChangedKeys(const std::string& was, const std::string& is) {
  const auto before = KeysOf(was), now = KeysOf(is);
  std::vector<std::string> out;
  const auto value = [](const auto& keys, const std::string& key) {
    const auto it = keys.find(key);
    return it == keys.end() ? std::string("(none)") : it->second;
  };
  auto all = before;
  all.insert(now.begin(), now.end());
  for (const auto& [key, ignored] : all) {
    const std::string old_value = value(before, key), new_value = value(now, key);
    if (old_value != new_value) out.push_back(key + ": " + old_value + " -> " + new_value);
  }
  return out;
}

std::vector<std::pair<std::string, std::vector<FieldInfo>>> CommonFields() {
  return {{"", TopConfig::Fields().infos()},
          {"run", RunConfig::Fields().infos()},
          {"task", TaskSectionConfig::Fields().infos()},
          {"model", ModelSectionConfig::Fields().infos()},
          {"train", TrainConfig::Fields().infos()},
          {"comm", CommConfig::Fields().infos()},
          {"compressor", CompressorSectionConfig::Fields().infos()},
          {"optimizer", OptimizerSectionConfig::Fields().infos()},
          {"optimizer.rule", OptimizerRuleConfig::Fields().infos()},
          {"memory", MemoryConfig::Fields().infos()},
          {"checkpoint", CheckpointConfig::Fields().infos()},
          {"metrics", MetricsConfig::Fields().infos()}};
}

}  // namespace tw
