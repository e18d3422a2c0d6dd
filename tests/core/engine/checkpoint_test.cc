#include "core/engine/checkpoint.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <thread>

#include "comm/thread_communicator.h"
#include "core/base/file_io.h"

namespace tw {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// What one rank trains: two parameters, state of every kind. `salt` makes it differ.
struct Replica {
  explicit Replica(int rank, int salt) {
    spec.model = {{"a.weight", at::arange(12, at::kFloat).reshape({3, 4}) * salt},
                  {"b", at::full({5}, 0.1 * salt, at::kBFloat16)}};
    spec.state = &state;
    spec.config_hash = "00000000c0ffee00";
    spec.simd = "AVX2";
    spec.seed = 7;
    if (salt == 0) return;  // a fresh run: no slot was used yet
    Fill("optim/a.weight/m", {3, 4}, Reshard::kReplicated, 0.5f * static_cast<float>(salt));
    Fill("feedback/a.weight/e", {3, 4}, Reshard::kKeepMean,
         1.25f * static_cast<float>(salt) + static_cast<float>(rank * rank));
    state.Slot("feedback/b/e", {0}, DType::kF32, Reshard::kKeepMean);
    const TensorView count = state.Slot("optim/a.weight/t", {1}, DType::kI64, Reshard::kReplicated);
    *static_cast<int64_t*>(count.data) = 1000 + salt;
    spec.step = salt;
    spec.counters = {{"samples", 8 * salt}, {"tokens", 1024 * salt}};
  }
  void Fill(const std::string& name, const std::vector<int64_t>& shape, Reshard reshard,
            float first) {
    for (float& x : state.Slot(name, shape, DType::kF32, reshard).f32()) x = first += 0.125f;
  }
  std::span<const float> E() const { return state.Find("feedback/a.weight/e")->view.f32(); }
  StateBag state;
  CheckpointSpec spec;
};

bool SameBits(const Replica& a, const Replica& b) {
  for (size_t i = 0; i < a.spec.model.size(); ++i) {
    if (!at::equal(a.spec.model[i].second, b.spec.model[i].second)) return false;
  }
  bool same = true;
  a.state.ForEach([&](const std::string& name, const StateSlot& slot) {
    const StateSlot* other = b.state.Find(name);
    same = same && other && other->shape == slot.shape && other->reshard == slot.reshard &&
           std::ranges::equal(other->view.raw(), slot.view.raw());
  });
  return same;
}

class Checkpoint : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string folder = (fs::temp_directory_path() / "tw_checkpoint_XXXXXX").string();
    ASSERT_NE(::mkdtemp(folder.data()), nullptr);
    run_ = folder;
  }
  void TearDown() override { fs::remove_all(run_); }

  static void OnRanks(int n, const std::function<void(Communicator&)>& body) {
    auto group = MakeThreadGroup(n, /*timeout_s=*/30);
    std::vector<std::thread> threads;
    for (auto& comm : group) threads.emplace_back([&] { body(*comm); });
    for (auto& thread : threads) thread.join();
  }
  void Save(int n, int salt, int keep = 3) {
    OnRanks(n, [&](Communicator& comm) {
      const Replica replica(comm.rank(), salt);
      const auto saved = SaveCheckpoint(run_, replica.spec, comm, keep);
      EXPECT_TRUE(saved.ok()) << saved.status();
      EXPECT_EQ(saved.value_or(""), Folder(salt));
    });
  }
  // Loads on n fresh ranks; all must come to the same end.
  struct Loaded {
    Status status;
    int64_t step = 0;
    std::vector<std::string> warnings;
    std::vector<std::unique_ptr<Replica>> ranks;
  };
  Loaded Load(int n, const std::string& path,
              const std::function<void(Replica&)>& prepare = nullptr) {
    Loaded out;
    out.ranks.resize(static_cast<size_t>(n));
    std::vector<Loaded> each(static_cast<size_t>(n));
    OnRanks(n, [&](Communicator& comm) {
      const auto rank = static_cast<size_t>(comm.rank());
      out.ranks[rank] = std::make_unique<Replica>(comm.rank(), 0);
      if (prepare) prepare(*out.ranks[rank]);
      const auto loaded = LoadCheckpoint(path, out.ranks[rank]->spec, comm);
      each[rank].status = loaded.status();
      if (!loaded.ok()) return;
      each[rank].step = loaded->manifest.step;
      each[rank].warnings = loaded->warnings;
    });
    for (const Loaded& one : each) {
      EXPECT_EQ(one.status, each[0].status);
      EXPECT_EQ(one.step, each[0].step);
      EXPECT_EQ(one.warnings, each[0].warnings);
    }
    out.status = each[0].status;
    out.step = each[0].step;
    out.warnings = each[0].warnings;
    return out;
  }
  std::string Folder(int64_t step) const { return run_ + "/checkpoints/" + CheckpointName(step); }
  std::vector<std::string> Names() const {
    std::vector<std::string> out;
    for (const auto& e : fs::directory_iterator(run_ + "/checkpoints")) {
      out.push_back(e.path().filename().string());
    }
    std::sort(out.begin(), out.end());
    return out;
  }
  static void FlipByte(const std::string& path, int64_t from_end) {
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(-from_end, std::ios::end);
    const char byte = static_cast<char>(file.get() ^ 0x10);
    file.seekp(-from_end, std::ios::end);
    file.put(byte);
  }
  std::string run_;
};

TEST_F(Checkpoint, ComesBackBitForBitAtOneTwoAndFourRanks) {
  for (int n : {1, 2, 4}) {
    Save(n, 10 + n);
    const Loaded loaded = Load(n, run_);
    ASSERT_TRUE(loaded.status.ok()) << loaded.status;
    EXPECT_EQ(loaded.step, 10 + n);
    EXPECT_THAT(loaded.warnings, ElementsAre());
    for (int r = 0; r < n; ++r) {
      EXPECT_TRUE(SameBits(Replica(r, 10 + n), *loaded.ranks[static_cast<size_t>(r)])) << r;
    }
  }
}

TEST_F(Checkpoint, ManifestHoldsWhatARunNeedsToGoOn) {
  Save(2, 5);
  const auto manifest = ReadManifest(Folder(5));
  ASSERT_TRUE(manifest.ok()) << manifest.status();
  EXPECT_EQ(manifest->step, 5);
  EXPECT_EQ(manifest->world_size, 2);
  EXPECT_EQ(manifest->seed, 7u);
  EXPECT_EQ(manifest->counters.at("tokens"), 5120);
  std::vector<std::string> files;
  for (const auto& file : manifest->files) files.push_back(file.name);
  EXPECT_THAT(files, ElementsAre("model.safetensors", "replicated.safetensors",
                                 "rank-00000.safetensors", "rank-00001.safetensors"));
  EXPECT_TRUE(VerifyCheckpointFiles(Folder(5), *manifest).ok());
}

TEST_F(Checkpoint, KeepsTheNewest) {
  for (int step : {1, 2, 3, 4}) Save(1, step, /*keep=*/2);
  EXPECT_THAT(Names(), ElementsAre("step-00000003", "step-00000004"));
  Save(1, 5, /*keep=*/0);  // never the only good one
  EXPECT_THAT(Names(), ElementsAre("step-00000005"));
}

TEST_F(Checkpoint, SavingAfterGoingBackRemovesTheContinuationThatWasGivenUp) {
  for (int step : {10, 20, 30}) Save(1, step);
  Save(1, 15);
  EXPECT_THAT(Names(), ElementsAre("step-00000010", "step-00000015"));
}

TEST_F(Checkpoint, SavingTheSameStepAgainReplacesIt) {
  Save(2, 10);
  FlipByte(Folder(10) + "/model.safetensors", 1);
  Save(2, 10);
  EXPECT_THAT(Names(), ElementsAre("step-00000010"));
  EXPECT_TRUE(Load(2, run_).status.ok());
}

TEST_F(Checkpoint, WhatAKilledRunLeftBehindIsPassedOverAndSwept) {
  Save(2, 10);
  // Killed between writing and renaming: all is there but the name.
  fs::copy(Folder(10), Folder(20) + ".tmp", fs::copy_options::recursive);
  const Loaded loaded = Load(2, run_);
  EXPECT_TRUE(loaded.status.ok());
  EXPECT_EQ(loaded.step, 10);
  Save(2, 30);
  EXPECT_THAT(Names(), ElementsAre("step-00000010", "step-00000030"));
}

TEST_F(Checkpoint, FallsBackFromADamagedFileWithAWarningThatNamesIt) {
  const std::string files[] = {"manifest.json", "model.safetensors", "replicated.safetensors",
                               "rank-00001.safetensors"};
  for (const std::string& file : files) {
    for (const bool truncate : {false, true}) {
      SCOPED_TRACE(file + (truncate ? " truncated" : " flipped"));
      Save(2, 10);
      Save(2, 20);
      const std::string path = Folder(20) + "/" + file;
      if (truncate) {
        fs::resize_file(path, fs::file_size(path) - 9);
      } else {
        FlipByte(path, static_cast<int64_t>(fs::file_size(path)) / 2);
      }
      const Loaded loaded = Load(2, run_);
      ASSERT_TRUE(loaded.status.ok()) << loaded.status;
      EXPECT_EQ(loaded.step, 10);
      ASSERT_EQ(loaded.warnings.size(), 1u);
      EXPECT_THAT(loaded.warnings[0], HasSubstr(path));
      EXPECT_TRUE(SameBits(Replica(1, 10), *loaded.ranks[1]));
    }
  }
}

TEST_F(Checkpoint, FallsBackFromAMissingFile) {
  Save(2, 10);
  Save(2, 20);
  fs::remove(Folder(20) + "/rank-00001.safetensors");
  const Loaded loaded = Load(2, run_);
  EXPECT_EQ(loaded.step, 10);
  ASSERT_EQ(loaded.warnings.size(), 1u);
  EXPECT_THAT(loaded.warnings[0],
              HasSubstr("rank-00001.safetensors: cannot open: No such file or directory"));
}

TEST_F(Checkpoint, DoesNotStartOverWhenAllAreDamaged) {
  Save(1, 10);
  Save(1, 20);
  for (int step : {10, 20}) FlipByte(Folder(step) + "/model.safetensors", 1);
  OnRanks(1, [&](Communicator& comm) {
    Replica fresh(0, 0);
    const auto loaded = LoadNewestCheckpoint(run_, fresh.spec, comm);
    EXPECT_EQ(ExitCode(loaded.status()), 3);
    EXPECT_THAT(std::string(loaded.status().message()), HasSubstr("all 2 checkpoints are damaged"));
  });
}

TEST_F(Checkpoint, AutoFindsNothingInANewRunFolder) {
  OnRanks(2, [&](Communicator& comm) {
    Replica fresh(comm.rank(), 0);
    const auto loaded = LoadNewestCheckpoint(run_ + "/not/there", fresh.spec, comm);
    ASSERT_TRUE(loaded.ok());
    EXPECT_FALSE(loaded->has_value());
  });
}

TEST_F(Checkpoint, RefusesWhatIsNoCheckpoint) {
  EXPECT_THAT(std::string(Load(2, run_ + "/nowhere").status.message()),
              HasSubstr("no such folder; wanted a run folder or a checkpoint"));
  EXPECT_THAT(std::string(Load(2, run_).status.message()), HasSubstr("manifest.json: cannot open"));
  std::ofstream(run_ + "/manifest.json") << "not json";
  const Status status = Load(2, run_).status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("is no checkpoint manifest"));
  EXPECT_EQ(ExitCode(status), 3);
}

TEST_F(Checkpoint, RefusesAnotherModelAndNamesTheDifferences) {
  Save(2, 10);
  const Loaded loaded = Load(2, run_, [](Replica& fresh) {
    fresh.spec.model = {{"a.weight", at::zeros({4, 4})}, {"c", at::zeros({5})}};
  });
  EXPECT_EQ(ExitCode(loaded.status), 3);
  const std::string message(loaded.status.message());
  EXPECT_THAT(message, HasSubstr("missing: c"));
  EXPECT_THAT(message, HasSubstr("not in the model: b"));
  EXPECT_THAT(message, HasSubstr("a.weight is [3, 4] in the file, [4, 4] in the model"));
}

TEST_F(Checkpoint, RefusesStateOfAnotherShape) {
  Save(1, 10);
  const Loaded loaded = Load(1, run_, [](Replica& fresh) {
    fresh.state.Slot("optim/a.weight/m", {12}, DType::kBF16, Reshard::kReplicated);
  });
  EXPECT_THAT(
      std::string(loaded.status.message()),
      HasSubstr("state optim/a.weight/m is fp32 [3, 4] in the checkpoint, bf16 [12] in this "
                "run"));
}

TEST_F(Checkpoint, SaysWhatKeepsTheBitsFromBeingTheSame) {
  Save(1, 10);
  const Loaded loaded = Load(1, run_, [](Replica& fresh) {
    fresh.spec.threads = 2;
    fresh.spec.simd = "AVX3";
  });
  EXPECT_TRUE(loaded.status.ok());
  EXPECT_THAT(loaded.warnings, ElementsAre(HasSubstr("thread count 1, resumed with 2"),
                                           HasSubstr("SIMD target AVX2, resumed with AVX3")));
}

// Mean over ranks of element i of the error memory.
double MeanE(const std::vector<std::unique_ptr<Replica>>& ranks, size_t i) {
  double sum = 0;
  for (const auto& rank : ranks) sum += rank->E()[i];
  return sum / static_cast<double>(ranks.size());
}

TEST_F(Checkpoint, KeepsTheMeanOfErrorMemoriesFromFourToTwoToOneToThreeRanks) {
  std::vector<std::unique_ptr<Replica>> ranks;
  for (int r = 0; r < 4; ++r) ranks.push_back(std::make_unique<Replica>(r, 10));
  const double mean0 = MeanE(ranks, 0), mean7 = MeanE(ranks, 7);
  Save(4, 10);
  int64_t step = 10;
  for (int n : {2, 1, 3, 6, 4}) {
    const Loaded loaded = Load(n, run_);
    ASSERT_TRUE(loaded.status.ok()) << loaded.status;
    EXPECT_NEAR(MeanE(loaded.ranks, 0), mean0, 1e-6) << n;
    EXPECT_NEAR(MeanE(loaded.ranks, 7), mean7, 1e-6) << n;
    ASSERT_EQ(loaded.warnings.size(), 1u);
    EXPECT_THAT(loaded.warnings[0], HasSubstr("their mean over ranks is kept"));
    for (const auto& rank : loaded.ranks) {  // replicated state is taken over
      EXPECT_EQ(rank->state.Find("optim/a.weight/m")->view.f32()[0], 5.125f);
    }
    ++step;
    OnRanks(n, [&](Communicator& comm) {
      CheckpointSpec spec = loaded.ranks[static_cast<size_t>(comm.rank())]->spec;
      spec.step = step;
      EXPECT_TRUE(SaveCheckpoint(run_, spec, comm, 3).ok());
    });
  }
}

TEST(Reshard, GroupsCopiesOrAveragesAll) {
  EXPECT_THAT(ReshardSources(4, 2, 1), ElementsAre(2, 3));
  EXPECT_THAT(ReshardSources(4, 1, 0), ElementsAre(0, 1, 2, 3));
  EXPECT_THAT(ReshardSources(1, 4, 3), ElementsAre(0));
  EXPECT_THAT(ReshardSources(2, 4, 3), ElementsAre(1));
  EXPECT_THAT(ReshardSources(2, 3, 1), ElementsAre(0, 1));
  EXPECT_THAT(ReshardSources(3, 3, 2), ElementsAre(2));
}

TEST_F(Checkpoint, AFullDiskOnOneRankIsTheSameErrorOnAllAndLeavesTheOldOnes) {
  Save(2, 10);
  // A limit on the size of files stands in for the full disk; only rank 1 has something that large.
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  rlimit tight = before;
  tight.rlim_cur = 64 << 10;
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &tight), 0);
  OnRanks(2, [&](Communicator& comm) {
    Replica replica(comm.rank(), 20);
    const int64_t numel = comm.rank() == 1 ? 1 << 20 : 8;
    replica.state.Slot("feedback/large/e", {numel}, DType::kF32, Reshard::kKeepMean);
    const Status status = SaveCheckpoint(run_, replica.spec, comm, 3).status();
    EXPECT_EQ(ExitCode(status), 3);
    EXPECT_THAT(std::string(status.message()), HasSubstr("checkpoint of step 20: rank 1: "));
    EXPECT_THAT(std::string(status.message()), HasSubstr("cannot write: File too large"));
  });
  ::setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  EXPECT_THAT(Names(), ElementsAre("step-00000010"));
  EXPECT_EQ(Load(2, run_).step, 10);
}

TEST_F(Checkpoint, WeightsAreFoundInARunFolderACheckpointOrAFile) {
  Save(1, 10);
  Save(1, 20);
  const std::string weights = Folder(20) + "/model.safetensors";
  for (const std::string& path : {run_, Folder(20), weights}) {
    const auto found = ResolveWeights(path, nullptr);
    ASSERT_TRUE(found.ok()) << found.status();
    EXPECT_EQ(*found, weights);
  }
  FlipByte(weights, 1);
  std::vector<std::string> warnings;
  const auto older = ResolveWeights(run_, &warnings);
  ASSERT_TRUE(older.ok());
  EXPECT_EQ(*older, Folder(10) + "/model.safetensors");
  EXPECT_THAT(warnings, ElementsAre(HasSubstr(weights + ": damaged: checksum")));
  EXPECT_EQ(ExitCode(ResolveWeights(run_ + "/checkpoints/none", nullptr).status()), 3);
}

}  // namespace
}  // namespace tw
