// train: from a config to a run folder. Reads top to bottom: config, world, agreement, objects,
// resume, loop, summary.

#include <torch/torch.h>

#include <cstdio>
#include <filesystem>
#include <thread>

#include "absl/strings/str_format.h"
#include "core/base/hash.h"
#include "core/base/log.h"
#include "core/engine/tensor_memory.h"
#include "launch/commands.h"
#include "launch/compose.h"
#include "launch/run_folder.h"

namespace tw {
namespace {

// Rank 0's text on all ranks.
StatusOr<std::string> Share(World& world, std::string text) {
  char buffer[1024] = {};
  if (text.size() >= sizeof(buffer)) return ConfigError("run.dir is longer than 1000 characters");
  std::copy(text.begin(), text.end(), buffer);
  TW_RETURN_IF_ERROR(world.lane().Run([&] {
    return world.comm().Broadcast({reinterpret_cast<uint8_t*>(buffer), sizeof(buffer)}, 0,
                                  {0, -1, "run folder"});
  }));
  return std::string(buffer);
}

// This rank's threads: as configured, or the host's cores shared by its ranks.
int ThreadCount(const TrainConfig& train, World& world) {
  if (train.threads > 0) return static_cast<int>(train.threads);
  const int cores = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  return std::max(1, cores / world.local_size());
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

struct TrainRun {
  World* world;
  const LoadedConfig* loaded;
  std::string run_dir;

  Status Go();
};

Status TrainRun::Go() {
  const Settings& s = loaded->settings;
  const int rank = world->rank();
  auto assembled = Assemble(*loaded, rank, world->size());
  TW_RETURN_IF_ERROR(world->AgreeOn(assembled.status()));
  Assembly& a = **assembled;
  for (const std::string& w : a.warnings) LogWarning(w);
  TW_RETURN_IF_ERROR(
      world->lane().Run([&] { return world->comm().Agree(a.plan->fingerprint(), "plan"); }));

  StateBag state;
  GradientReducer reducer(a.parameters, a.plan.get(), &world->comm(), &world->lane(), &state,
                          {static_cast<int64_t>(s.comm.bucket_cap_mb * (1 << 20)), s.comm.overlap,
                           static_cast<uint64_t>(s.train.seed)});
  int64_t first_step = 0;

  TrainerParts parts;
  parts.task = a.task.get();
  parts.reducer = &reducer;
  parts.optimizer = a.optimizer.get();
  parts.schedule = a.schedule.get();
  parts.strategy = a.strategy.get();
  parts.state = &state;
  parts.comm = &world->comm();
  parts.lane = &world->lane();
  parts.peak_tensor_bytes = [&] { return PeakTensorBytes() + state.bytes(); };
  std::vector<std::unique_ptr<MetricSink>> sinks;
  Status opened;
  if (rank == 0) {
    const RunInfo info{run_dir,    s.top.name,      s.train.steps,
                       first_step, s.metrics.every, world->size()};
    for (const std::string& name : s.metrics.sinks) {
      auto kind = Registry<MetricSinkKind>::Get().Find(name)->make(ConfigSection{});
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
  LogInfo(absl::StrFormat("%d ranks x %d threads on %s, %d parameters in %d buckets, run folder %s",
                          world->size(), at::get_num_threads(), world->host(), params,
                          reducer.num_buckets(), run_dir));

  TrainerOptions options;
  options.steps = s.train.steps;
  options.accumulate = s.train.accumulate;
  options.lr = s.optimizer.lr;
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
  facts.optimizer_state_bytes = state.bytes("optimizer/");
  facts.feedback_state_bytes = state.bytes("feedback/");
  facts.params_hash = ParametersHash(reducer.views());
  facts.config_hash = loaded->hash;
  facts.plan = a.plan.get();
  facts.warnings = a.warnings;
  TW_RETURN_IF_ERROR(world->lane().Run(
      [&] { return world->comm().Agree(facts.params_hash, "params_hash at the end"); }));
  Status written;
  if (rank == 0) {
    auto eval = a.task->Evaluate();
    if (eval.ok()) {
      facts.evaluated = true;
      facts.eval = *eval;
    } else {
      written = eval.status();
    }
    if (written.ok()) written = WriteSummary(run_dir, facts);
    if (written.ok()) {
      LogInfo(LastLine(facts, run_dir));
    }
  }
  return world->AgreeOn(written);
}

}  // namespace

Status RunTrain(const std::string& config, const std::vector<std::string>& overrides, bool json) {
  InstallTensorMemoryCounter();
  auto loaded = LoadedConfig::Load(config, overrides);
  const CommConfig comm = loaded.ok() ? loaded->settings.comm : CommConfig{};
  auto opened = World::Open(comm.backend, comm.timeout_s);
  if (!opened.ok()) return loaded.ok() ? opened.status() : loaded.status();
  World& world = **opened;
  SetProcessRank(world.rank());

  // What every rank must have before the first step; a failure here is one line on one rank and a
  // clean end of all.
  TrainRun run{&world, nullptr, ""};
  Status ready = world.AgreeOn(loaded.status());
  if (ready.ok()) {
    run.loaded = &*loaded;
    ready = world.lane().Run([&] { return world.comm().Agree(loaded->hash, "configuration"); });
  }
  bool finished = false;
  if (ready.ok()) {
    at::set_num_threads(ThreadCount(loaded->settings.train, world));
    auto dir = Share(world, ChooseRunDir(loaded->settings));
    ready = dir.status();
    if (ready.ok()) {
      run.run_dir = *dir;
      Status made;
      if (world.rank() == 0) {
        finished = loaded->settings.checkpoint.resume == "auto" &&
                   !loaded->settings.run.dir.empty() &&
                   IsFinished(run.run_dir, loaded->settings.train.steps);
        auto toml = EffectiveToml(loaded->config, loaded->settings);
        if (!finished) made = toml.ok() ? OpenRunDir(run.run_dir, *toml) : toml.status();
      }
      auto verdict = Share(world, finished ? "finished" : "");  // rank 0's disk decides for all
      ready = verdict.ok() ? world.AgreeOn(made) : verdict.status();
      finished = verdict.ok() && !verdict->empty();
    }
  }
  if (!ready.ok()) {  // the same verdict on all ranks: rank 0 speaks
    const bool speak = world.rank() == 0;
    world.Close();
    return speak ? ready : WithFault(Status(ready.code(), ""), FaultOf(ready));
  }
  if (finished) {
    if (world.rank() == 0) {
      std::fprintf(stderr, "tightwire: %s is finished; nothing to do\n", run.run_dir.c_str());
    }
    world.Close();
    return OkStatus();
  }
  std::error_code ignored;
  std::filesystem::create_directories(run.run_dir, ignored);  // hosts without a shared disk
  OpenLog(run.run_dir, world.rank());
  const Status status = run.Go();
  if (!status.ok()) {
    FlushLog();
    EndJob(world, status);
  }
  world.Close();
  return OkStatus();
}

}  // namespace tw
