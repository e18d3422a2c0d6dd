// train: from a config to a run folder. Reads top to bottom: config, world, agreement, objects,
// resume, loop, summary.

#include <ATen/Parallel.h>
#include <cstdio>
#include <filesystem>
#include <optional>
#include <thread>

#include "absl/strings/str_format.h"
#include "core/api/tensor_scope.h"
#include "core/base/hash.h"
#include "core/base/log.h"
#include "core/engine/agree.h"
#include "core/engine/catch_torch.h"
#include "core/engine/checkpoint.h"
#include "core/engine/tensor_memory.h"
#include "core/kernels/simd_target.h"
#include "launch/choose_device.h"
#include "launch/commands.h"
#include "launch/compose.h"
#include "launch/grouping.h"
#include "launch/run_folder.h"
#include "launch/trace_file.h"

namespace tw {
namespace {

constexpr char kTotalSteps[] = "total_steps";  // train.steps, among a checkpoint's counters

// Rank 0's text on all ranks.
StatusOr<std::string> Share(World& world, const std::string& text) {
  std::string shared;
  TW_RETURN_IF_ERROR(world.lane().Run([&]() -> Status {
    TW_ASSIGN_OR_RETURN(shared, BroadcastText(world.comm(), text, 0, {0, -1, "run folder"}));
    return OkStatus();
  }));
  return shared;
}

// The first few, for one line.
std::string Some(const std::vector<std::string>& words) {
  constexpr size_t kMost = 6;
  std::string out;
  for (size_t i = 0; i < words.size() && i < kMost; ++i) out += (i ? ", " : "") + words[i];
  if (words.size() > kMost) out += " and " + std::to_string(words.size() - kMost) + " more";
  return out;
}

// An error that names the first rank whose config is not rank 0's, and the keys.
Status AgreeOnConfig(World& world, const std::string& mine) {
  TW_ASSIGN_OR_RETURN(const std::string first, Share(world, mine));
  const auto changed = ChangedKeys(first, mine);
  return world.AgreeOn(changed.empty()
                           ? OkStatus()
                           : ConfigError("its config is not rank 0's (" + Some(changed) +
                                         "); start all ranks with the same file and arguments"));
}

int ThreadCount(const TrainConfig& train, World& world) {
  return train.threads > 0 ? static_cast<int>(train.threads) : DefaultThreads(world.local_size());
}

// Nothing when the run folder holds no finished run.
std::string FinishedLine(const std::string& run_dir, const LoadedConfig& loaded) {
  const auto config_hash = FinishedConfig(run_dir, loaded.settings.train.steps);
  if (!config_hash) return "";
  return run_dir + " is finished; nothing to do" +
         (*config_hash == Hex64(loaded.hash)
              ? ""
              : " (it ran with another config; give another run.dir to run this one)");
}

// What a run ends with on the screen; the examples quote it.
std::string LastLine(const RunFacts& f, const std::string& run_dir) {
  const double ratio =
      f.train.payload_bytes_per_step > 0
          ? static_cast<double>(f.train.dense_bytes_per_step) / f.train.payload_bytes_per_step
          : 1.0;
  std::string line =
      absl::StrFormat("final_loss %.4f  val_loss %.4f", f.train.final_loss, f.eval.loss);
  if (f.eval.accuracy) line += absl::StrFormat("  val_accuracy %.4f", *f.eval.accuracy);
  return line +
         absl::StrFormat("  ratio %.1f  wire %.0f B/step  step %.1f ms  params_hash %s  -> %s",
                         ratio, f.train.wire_bytes_per_step, f.train.step_ms_median,
                         Hex64(f.params_hash), run_dir);
}

// A line where train.steps has changed since the checkpoint, and with it the learning rates of
// steps that both runs have; else empty.
std::string OtherScheduleLine(const CheckpointManifest& was, const Settings& s,
                              const Schedule& schedule) {
  const auto found = was.counters.find(kTotalSteps);
  if (found == was.counters.end() || found->second == s.train.steps) return "";
  const int64_t before = found->second, both = std::min(before, s.train.steps);
  constexpr int64_t kMost = 1 << 16;  // of a longer run so many steps are looked at
  const int64_t stride = (both + kMost - 1) / kMost;
  for (int64_t step = 0; step < both; step += stride) {
    const double then = schedule.Factor(step, before), now = schedule.Factor(step, s.train.steps);
    if (then == now) continue;
    return absl::StrFormat(
        "train.steps: %d -> %d since the checkpoint, and schedule.name = \"%s\" depends on it: "
        "step "
        "%d has a learning rate of %.4g, it had %.4g. To go on as before give the old value",
        before, s.train.steps, s.schedule, step + 1, s.optimizer.lr * now, s.optimizer.lr * then);
  }
  return "";
}

struct TrainRun {
  World* world;
  const LoadedConfig* loaded;
  std::string run_dir;
  Grouping grouping;
  std::unique_ptr<Assembly> assembly;
  FolderLock lock;  // rank 0's
  ChosenDevice device;
  std::string device_note;

  bool on_device() const { return !device.name.empty(); }

  // Rank 0's clock and disk decide for all. *finished: see FinishedLine.
  Status ChooseFolder(std::string* finished);
  // The objects of the run. Where the device cannot do something of it and auto chose the device,
  // that is closed and all begins again on the host.
  Status Build();
  // Data, model and plan, then the run folder: what is refused leaves none behind.
  Status Prepare();
  Status Go();
  StatusOr<int64_t> Resume(const CheckpointSpec& into);
  StatusOr<EvalResult> Evaluate(Task& task);
};

Status TrainRun::ChooseFolder(std::string* finished) {
  const Settings& s = loaded->settings;
  TW_ASSIGN_OR_RETURN(run_dir, Share(*world, ChooseRunDir(s)));
  if (s.checkpoint.resume != "auto" || s.run.dir.empty()) return OkStatus();
  TW_ASSIGN_OR_RETURN(*finished,
                      Share(*world, world->rank() == 0 ? FinishedLine(run_dir, *loaded) : ""));
  return OkStatus();
}

Status TrainRun::Build() {
  const Settings& s = loaded->settings;
  const int rank = world->rank(), size = world->size();
  const auto assemble = [&]() -> Status {
    auto made = Assemble(*loaded, rank, size, grouping.exchanging(size), device.tensors);
    TW_RETURN_IF_ERROR(world->AgreeOn(made.status()));
    assembly = std::move(made).value();
    return OkStatus();
  };
  TW_RETURN_IF_ERROR(assemble());
  if (!on_device()) return OkStatus();
  Status works = CheckOnDevice(s, *assembly, !grouping.group_of.empty());
  const bool must = InsistsOnDevice(s);
  if (!works.ok() && must) works = RefusedOnDevice(s, works);
  const Status all = world->AgreeOn(works);
  if (all.ok() || must || FaultOf(all) == Fault::kPeer) return all;
  device_note = HostNote(std::string(works.ok() ? all.message() : works.message()));
  TW_RETURN_IF_ERROR(world->AgreeOn(world->device().training->Wait()));
  assembly.reset();
  device = {};
  SetTensorQueue(nullptr);
  world->CloseDevice();
  return assemble();
}

Status TrainRun::Prepare() {
  std::vector<int64_t> hosts;
  TW_RETURN_IF_ERROR(world->lane().Run([&]() -> Status {
    TW_ASSIGN_OR_RETURN(hosts, world->comm().AllGatherInt(world->first_here(), {0, -1, "hosts"}));
    return OkStatus();
  }));
  auto groups = ChooseGrouping(loaded->settings, hosts);
  TW_RETURN_IF_ERROR(world->AgreeOn(groups.status()));
  grouping = std::move(groups).value();
  TW_RETURN_IF_ERROR(Build());
  Status made;
  if (world->rank() == 0) {
    auto toml = EffectiveToml(loaded->config, loaded->settings);
    made = toml.status();
    if (made.ok()) {
      auto opened = OpenRunDir(run_dir, *toml);
      made = opened.status();
      if (made.ok()) lock = std::move(opened).value();
    }
  }
  return world->AgreeOn(made);
}

// The steps already done: 0, or those of the checkpoint that checkpoint.resume leads to.
StatusOr<int64_t> TrainRun::Resume(const CheckpointSpec& into) {
  const std::string& resume = loaded->settings.checkpoint.resume;
  std::optional<LoadedCheckpoint> found;
  TW_RETURN_IF_ERROR(world->lane().Run([&]() -> Status {
    if (resume == "never") return OkStatus();
    if (resume == "auto") {
      TW_ASSIGN_OR_RETURN(found, LoadNewestCheckpoint(run_dir, into, world->comm()));
    } else {
      TW_ASSIGN_OR_RETURN(found, LoadCheckpoint(resume, into, world->comm()));
    }
    return OkStatus();
  }));
  if (!found) return 0;
  for (const std::string& w : found->warnings) LogWarning(w);
  if (found->manifest.config_hash != into.config_hash) {
    LogWarning("the config changed since the checkpoint (" +
               Some(ChangedKeys(found->manifest.config, into.config)) +
               "); the run goes on with the new one. To go on as before give the old values, to "
               "start over give another run.dir");
  }
  const std::string other =
      OtherScheduleLine(found->manifest, loaded->settings, *assembly->schedule);
  if (!other.empty()) LogWarning(other);
  LogInfo(absl::StrFormat("resumed after step %d from %s", found->manifest.step, found->path));
  return found->manifest.step;
}

// All ranks share the validation split.
StatusOr<EvalResult> TrainRun::Evaluate(Task& task) {
  auto part = task.EvaluatePart(world->rank(), world->size());
  TW_RETURN_IF_ERROR(world->AgreeOn(part.status()));
  const double tokens = static_cast<double>(part->tokens);
  double sums[] = {part->loss * tokens, part->accuracy.value_or(0) * tokens, tokens,
                   part->accuracy ? 1.0 : 0.0};
  TW_RETURN_IF_ERROR(world->lane().Run([&] {
    return world->comm().AllReduceSum(sums, {0, -1, "validation"});
  }));
  EvalResult whole;
  if (sums[2] == 0) return whole;
  whole.loss = sums[0] / sums[2];
  if (sums[3] > 0) whole.accuracy = sums[1] / sums[2];
  whole.tokens = static_cast<int64_t>(sums[2]);
  return whole;
}

Status TrainRun::Go() {
  const Settings& s = loaded->settings;
  const int rank = world->rank();
  Assembly& a = *assembly;
  const auto cores = static_cast<int64_t>(std::thread::hardware_concurrency());
  if (cores > 0 && s.train.threads > cores) {
    a.warnings.push_back("train.threads = " + std::to_string(s.train.threads) +
                         " is more than the " + std::to_string(cores) + " cores of this host");
  }
  for (const std::string& note : grouping.notes) LogInfo(note);
  for (const std::string& w : a.warnings) LogWarning(w);
  TW_RETURN_IF_ERROR(
      world->lane().Run([&] { return world->comm().Agree(a.plan->fingerprint(), "plan"); }));

  TW_ASSIGN_OR_RETURN(const auto spans,
                      OpenTrace(s.metrics.trace_steps, s.train.steps, run_dir, rank));
  const RunDevice work = world->device();
  Communicator& wire = world->gradient_comm();
  StateBag state(work.memory);
  const uint64_t seed = static_cast<uint64_t>(s.train.seed);
  std::unique_ptr<TwoLevel> two_level;
  if (!grouping.group_of.empty()) {
    TW_RETURN_IF_ERROR(world->lane().Run([&]() -> Status {
      TW_ASSIGN_OR_RETURN(two_level, TwoLevel::Create(a.plan.get(), &wire, grouping.group_of,
                                                      {seed, &state, spans.get(), work.memory}));
      return OkStatus();
    }));
  }
  GradientReducer reducer(a.parameters, a.plan.get(), &wire, &world->lane(), &state,
                          {static_cast<int64_t>(s.comm.bucket_cap_mb * (1 << 20)), s.comm.overlap,
                           seed, spans.get(), two_level.get(), a.sketches, work});
  CheckpointSpec saved;
  saved.model = a.parameters;
  saved.state = &state;
  saved.config_hash = Hex64(loaded->hash);
  saved.config = loaded->compared;
  saved.threads = at::get_num_threads();
  saved.simd = on_device() ? device.name : kernels::SimdTarget();
  saved.seed = seed;
  saved.counters[kTotalSteps] = s.train.steps;
  TW_ASSIGN_OR_RETURN(const int64_t first_step, Resume(saved));
  TW_RETURN_IF_ERROR(world->AgreeOn(KeepGrouping(&state, grouping.group_of, first_step > 0)));
  if (spans && (spans->last() <= first_step || spans->first() > s.train.steps)) {
    LogWarning(
        absl::StrFormat("metrics.trace_steps = \"%s\" does nothing: this run has steps %d to %d",
                        s.metrics.trace_steps, first_step + 1, s.train.steps));
  }
  std::unique_ptr<PlanUpdater> updater;  // after the resume, which brings its state
  if (a.planner) {
    auto made = PlanUpdater::Create({a.planner.get(), s.planner, &a.choices, a.plan.get(), &state,
                                     &world->comm(), &world->lane(), saved.seed},
                                    first_step);
    TW_RETURN_IF_ERROR(world->AgreeOn(made.status()));
    updater = std::move(made).value();
    reducer.set_observer(updater.get());
  }

  TrainerParts parts;
  parts.task = a.task.get();
  parts.reducer = &reducer;
  parts.optimizer = a.optimizer.get();
  parts.treatments = a.treatments;
  parts.schedule = a.schedule.get();
  parts.strategy = a.strategy.get();
  parts.plan_updater = updater.get();
  parts.state = &state;
  parts.comm = &world->comm();
  parts.lane = &world->lane();
  parts.device = work;
  parts.save_checkpoint = [&](int64_t steps_done) -> Status {
    saved.step = steps_done;
    if (work.training) TW_RETURN_IF_ERROR(work.training->Wait());
    return world->lane().Run([&]() -> Status {
      return SaveCheckpoint(run_dir, saved, world->comm(), static_cast<int>(s.checkpoint.keep))
          .status();
    });
  };
  parts.spans = spans.get();
  parts.peak_tensor_bytes = [&] { return PeakTensorBytes(device.tensors) + state.bytes(); };
  std::vector<std::unique_ptr<MetricSink>> sinks;
  Status opened = rank == 0 ? RemoveSummary(run_dir) : OkStatus();
  if (opened.ok()) {
    const RunInfo info{run_dir,         s.top.name,    s.train.steps, first_step,
                       s.metrics.every, world->size(), rank};
    for (const std::string& name : s.metrics.sinks) {
      auto kind = Registry<MetricSinkKind>::Get().Find(name)->make(ConfigSection{});
      if (kind.ok() && rank != 0 && !(*kind)->on_every_rank()) continue;
      auto sink = kind.ok() ? (*kind)->Open(info) : kind.status();
      if (!sink.ok()) {
        opened = sink.status();
        break;
      }
      sinks.push_back(std::move(sink).value());
      parts.sinks.push_back(sinks.back().get());
    }
  }
  TW_RETURN_IF_ERROR(world->AgreeOn(opened));

  int64_t params = 0;
  for (const ParameterView& p : reducer.views()) params += p.value.numel;
  LogInfo(absl::StrFormat(
      "%d ranks x %d threads on %s%s, %d parameters in %d buckets, run folder %s", world->size(),
      at::get_num_threads(), world->host(),
      on_device() ? ", tensors on " + device.name + ", gradients by " + wire.name() : "", params,
      reducer.num_buckets(), run_dir));

  TrainerOptions options;
  options.steps = s.train.steps;
  options.accumulate = s.train.accumulate;
  options.lr = s.optimizer.lr;
  options.seed = static_cast<uint64_t>(s.train.seed);
  options.masters = a.masters;
  options.grad_clip = s.train.grad_clip;
  options.check_replicas_every = s.comm.check_replicas_every;
  options.max_skipped = s.train.max_skipped;
  options.checkpoint_every = s.checkpoint.every;
  options.metrics_every = s.metrics.every;
  Trainer trainer(parts, options);
  TW_RETURN_IF_ERROR(trainer.Run(first_step));

  RunFacts facts;
  facts.name = s.top.name;
  facts.world_size = world->size();
  facts.steps = s.train.steps;
  facts.params = params;
  facts.train = trainer.summary();
  facts.peak_tensor_bytes = parts.peak_tensor_bytes();
  facts.peak_rss_bytes = PeakRssBytes();
  facts.predicted_memory = PredictMemory(a);
  facts.optimizer_state_bytes = state.bytes("optimizer/");
  facts.feedback_state_bytes = state.bytes("feedback/");
  {
    const DeviceScope scope(work.training);
    facts.params_hash = ParametersHash(reducer.views());
  }
  facts.config_hash = loaded->hash;
  facts.plan = a.plan.get();
  facts.planner = updater.get();
  facts.warnings = a.warnings;
  TW_RETURN_IF_ERROR(world->lane().Run(
      [&] { return world->comm().Agree(facts.params_hash, "params_hash at the end"); }));
  TW_ASSIGN_OR_RETURN(facts.eval, Evaluate(*a.task));
  facts.evaluated = facts.eval.tokens > 0;
  Status written;
  if (rank == 0) {
    written = WriteSummary(run_dir, facts);
    if (written.ok()) LogInfo(LastLine(facts, run_dir));
  }
  return world->AgreeOn(written);
}

}  // namespace

Status RunTrain(const std::string& config, const std::vector<std::string>& overrides, bool json,
                const DeviceModule* devices) {
  InstallTensorMemoryCounter();
  auto loaded = LoadedConfig::Load(config, overrides);
  const CommConfig comm = loaded.ok() ? loaded->settings.comm : CommConfig{};
  auto opened =
      World::Open(comm.backend, comm.timeout_s, static_cast<int>(comm.concurrent_buckets));
  if (!opened.ok()) return loaded.ok() ? opened.status() : loaded.status();
  World& world = **opened;
  SetProcessRank(world.rank());

  // What every rank must have before the first step; a failure here is one line on one rank and a
  // clean end of all.
  TrainRun run{&world, nullptr, "", {}, nullptr, FolderLock(), {}, ""};
  Status ready = world.AgreeOn(loaded.status());
  if (ready.ok()) {
    run.loaded = &*loaded;
    ready = AgreeOnConfig(world, loaded->shared);
  }
  if (ready.ok()) {
    const DeviceModule& found = devices ? *devices : ThisMachinesDevices();
    ready = OpenChosenDevice(*loaded, found, world, &run.device_note);
    run.device = DeviceOf(found, world);
    if (world.device().training) SetTensorQueue(world.device().training);
  }
  std::string finished;  // a line about the run in run.dir, if there is nothing left to do
  if (ready.ok()) {
    at::set_num_threads(ThreadCount(loaded->settings.train, world));
    ready = run.ChooseFolder(&finished);
  }
  if (ready.ok() && finished.empty()) ready = run.Prepare();
  if (FaultOf(ready) == Fault::kPeer) EndJob(world, ready);  // nobody to end with
  if (!ready.ok()) {  // the same verdict on all ranks: rank 0 speaks
    const bool speak = world.rank() == 0;
    world.Close();
    return speak ? ready : WithFault(Status(ready.code(), ""), FaultOf(ready));
  }
  if (!finished.empty()) {
    if (world.rank() == 0) std::fprintf(stderr, "tightwire: %s\n", finished.c_str());
    world.Close();
    return OkStatus();
  }
  std::error_code ignored;
  std::filesystem::create_directories(run.run_dir, ignored);  // hosts without a shared disk
  OpenLog(run.run_dir, world.rank());
  if (!run.device_note.empty()) LogInfo(run.device_note);
  const Status status = CatchTorch([&] { return run.Go(); });
  if (!status.ok()) {
    FlushLog();
    EndJob(world, status);
  }
  world.Close();
  return OkStatus();
}

}  // namespace tw
