// Whole runs whose gradients are sketches (memory.activations = compact), from a config, on ranks
// of the thread communicator.
#include <ATen/Parallel.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "core/engine/checkpoint.h"
#include "launch/compose.h"
#include "tests/core/data/temp_folder.h"
#include "tests/core/engine/reducer_rank.h"

namespace tw {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

using Overrides = std::vector<std::string>;

const Overrides kSmall = {"task.name=lm",          "data.path=synthetic",
                          "data.context=16",       "train.batch_size=4",
                          "model.name=llama",      "model.layers=2",
                          "model.width=32",        "model.heads=2",
                          "optimizer.lr=0.01",     "memory.activations=compact",
                          "train.steps=6",         "memory.compact_gap=2",
                          "schedule.name=constant"};

StatusOr<std::unique_ptr<Assembly>> Assembled(const Overrides& more, int rank = 0, int ranks = 1) {
  Overrides all = kSmall;
  all.insert(all.end(), more.begin(), more.end());
  TW_ASSIGN_OR_RETURN(const LoadedConfig loaded, LoadedConfig::Load("", all));
  return Assemble(loaded, rank, ranks);
}

struct Outcome {
  std::vector<uint64_t> hashes;
  double first_loss = 0, last_loss = 0;
  int64_t optimizer_bytes = 0, gradient_numel = 0;
  double payload_bytes = 0;
};

class LossSink : public MetricSink {
 public:
  Status Write(const StepRecord& record) override {
    losses.push_back(record.loss);
    return OkStatus();
  }
  Status Flush() override { return OkStatus(); }
  std::vector<double> losses;
};

// A checkpoint in run_dir, if it has one, is where the run starts; it leaves one after `stop`.
Outcome Train(int ranks, const Overrides& more, const std::string& run_dir = "",
              int64_t steps = 6) {
  Outcome out;
  out.hashes.resize(static_cast<size_t>(ranks));
  RunRanks(ranks, [&](Communicator& comm) {
    at::set_num_threads(1);
    auto made = Assembled(more, comm.rank(), comm.size());
    TW_CHECK_OK(made);
    Assembly& a = **made;
    Lane lane;
    StateBag state;
    ReducerOptions reducer_options;
    reducer_options.sketches = a.sketches;
    GradientReducer reducer(a.parameters, a.plan.get(), &comm, &lane, &state, reducer_options);
    CheckpointSpec spec;
    spec.model = a.parameters;
    spec.state = &state;
    int64_t first = 0;
    if (!run_dir.empty()) {
      const auto found = LoadNewestCheckpoint(run_dir, spec, comm);
      TW_CHECK_OK(found);
      if (*found) first = (*found)->manifest.step;
    }
    LossSink sink;
    TrainerParts parts;
    parts.task = a.task.get();
    parts.reducer = &reducer;
    parts.optimizer = a.optimizer.get();
    parts.schedule = a.schedule.get();
    parts.strategy = a.strategy.get();
    parts.state = &state;
    parts.comm = &comm;
    parts.lane = &lane;
    if (comm.rank() == 0) parts.sinks = {&sink};
    parts.save_checkpoint = [&](int64_t done) -> Status {
      spec.step = done;
      return SaveCheckpoint(run_dir, spec, comm, 1).status();
    };
    TrainerOptions options;
    options.steps = steps;
    options.lr = 0.01;
    options.check_replicas_every = 1;
    options.accumulate = 2;
    options.checkpoint_every = run_dir.empty() ? 0 : steps;
    Trainer trainer(parts, options);
    TW_CHECK_OK(trainer.Run(first));
    out.hashes[static_cast<size_t>(comm.rank())] = ParametersHash(reducer.views());
    if (comm.rank() != 0) return;
    out.first_loss = sink.losses.front();
    out.last_loss = sink.losses.back();
    out.optimizer_bytes = state.bytes("optimizer/");
    out.payload_bytes = trainer.summary().payload_bytes_per_step;
    for (const ParameterView& p : reducer.views()) out.gradient_numel += p.grad.numel;
  });
  for (const uint64_t hash : out.hashes) EXPECT_EQ(hash, out.hashes[0]) << "replicas differ";
  return out;
}

// Numbers in all gradients: a quarter of those of q, k, v, gate, up and down.
constexpr int64_t kDim = 32, kHidden = 112, kVocab = 256;
constexpr int64_t kSketched =
    2 * (3 * kDim * kDim / 4 + 2 * kHidden * kDim / 4 + kDim * kHidden / 4);
constexpr int64_t kWhole = 2 * (kDim * kDim + 2 * kDim) + kDim + 2 * kVocab * kDim;

TEST(SketchTraining, GradientsMomentsAndWhatTravelsAreOfTheSketchesSize) {
  for (const int ranks : {1, 2}) {
    const Outcome run = Train(ranks, {});
    EXPECT_EQ(run.gradient_numel, kSketched + kWhole);
    EXPECT_EQ(run.optimizer_bytes, 8 * (kSketched + kWhole));
    EXPECT_LT(run.last_loss, run.first_loss - 0.1) << ranks;
    if (ranks == 2) {
      EXPECT_EQ(run.payload_bytes, 4.0 * (kSketched + kWhole));
    }
  }
}

TEST(SketchTraining, GoesThroughCompressorsFeedbackAndOtherOptimizers) {
  for (const Overrides& more :
       {Overrides{"compressor.name=topk", "compressor.ratio=0.1", "feedback.name=ef14"},
        {"compressor.name=powersgd", "compressor.rank=2", "feedback.name=ef14"},
        {"optimizer.name=sgdm"},
        {"optimizer.name=adam_mini"},
        {"model.width=64", "optimizer.state=int4"},
        {"memory.mlp_chunks=2", "memory.head_chunks=3"},
        {"memory.activations=int8"},
        {"train.precision=bf16"},
        {"model.name=gpt"}}) {
    SCOPED_TRACE(more[0]);
    const Outcome run = Train(2, more);
    EXPECT_LT(run.last_loss, run.first_loss);
  }
}

TEST(SketchTraining, AResumedRunIsTheUnbrokenOne) {
  const TempFolder folder;
  const Outcome whole = Train(2, {}, folder.Path("whole"), 5);
  Train(2, {}, folder.Path("broken"), 3);  // inside a gap of 2 steps
  const Outcome resumed = Train(2, {}, folder.Path("broken"), 5);
  EXPECT_EQ(resumed.hashes, whole.hashes);
}

TEST(SketchTraining, RefusesWhatCannotBe) {
  const auto message = [](const Overrides& more) {
    const auto made = Assembled(more);
    EXPECT_EQ(FaultOf(made.status()), Fault::kConfig);
    return std::string(made.status().message());
  };
  EXPECT_THAT(message({"strategy.name=diloco"}), AllOf(HasSubstr("diloco"), HasSubstr("\"sync\"")));
  EXPECT_THAT(message({"optimizer.name=sgdm", "optimizer.weight_decay=0.1"}),
              HasSubstr("optimizer.weight_decay = 0"));
  EXPECT_THAT(message({"memory.activations=compac"}), HasSubstr("compact"));
  EXPECT_THAT(message({"task.name=tabular", "model.name=linear"}), HasSubstr("memory.activations"));
}

}  // namespace
}  // namespace tw
