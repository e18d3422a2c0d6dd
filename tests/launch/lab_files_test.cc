// What `lab run` writes, and that neither a broken experiment nor a full disk hides the others.
#include "launch/lab/lab_files.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "core/base/file_io.h"
#include "launch/commands.h"

namespace tw {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

// Experiments of these tests alone: one that cannot run, one of each verdict.
class Broken : public Experiment {
 public:
  ExperimentInfo info() const override { return {"Nobody: broken", "", {"none"}, 1}; }
  Status Run(LabContext& lab) const override {
    (void)lab.rows();
    return DataError("rows.txt: line 3: no number");
  }
};
class Deserted : public Experiment {
 public:
  ExperimentInfo info() const override { return {"Nobody: threads as ranks", "", {"none"}, 1}; }
  Status Run(LabContext&) const override { return PeerError("rank 1 of its own is gone"); }
};
class Mixed : public Experiment {
 public:
  ExperimentInfo info() const override { return {"Nobody, \"mixed\"", "0000.00000", {"all"}, 1}; }
  Status Run(LabContext& lab) const override {
    std::vector<double> values;
    for (const uint64_t seed : lab.seeds()) values.push_back(static_cast<double>(seed));
    lab.Below("small", values, 10);
    lab.Above("big, and more", values, 10);
    lab.Above("big", values, 10);
    lab.DoesNotHoldHere("seeds are small");
    lab.Report("told", values);
    return OkStatus();
  }
};

TW_REGISTER(
    Experiment, test_broken, 0, NoConfig,
    [](const NoConfig&) -> StatusOr<std::unique_ptr<Experiment>> {
      return std::make_unique<Broken>();
    },
    "cannot run");
TW_REGISTER(
    Experiment, test_mixed, 0, NoConfig,
    [](const NoConfig&) -> StatusOr<std::unique_ptr<Experiment>> {
      return std::make_unique<Mixed>();
    },
    "one of each verdict");

TW_REGISTER(
    Experiment, test_deserted, 0, NoConfig,
    [](const NoConfig&) -> StatusOr<std::unique_ptr<Experiment>> {
      return std::make_unique<Deserted>();
    },
    "loses ranks of its own");

class LabFiles : public testing::Test {
 protected:
  void SetUp() override {
    folder_ =
        fs::path(testing::TempDir()) /
        ("tw_lab_" + std::string(testing::UnitTest::GetInstance()->current_test_info()->name()));
    fs::remove_all(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }

  Status Lab(std::vector<std::string> words, bool json = false) {
    // Workers would be this test program again.
    words.insert(words.end(), {"jobs=1", "plot=no", "out=" + folder_.string()});
    std::ostringstream out;
    const Status status = RunLab("run", words, /*quick=*/false, json, out);
    said_ = out.str();
    return status;
  }
  std::string Text(const std::string& name) const {
    const auto text = ReadTextFile((folder_ / name).string());
    return text.ok() ? *text : "";
  }

  fs::path folder_;
  std::string said_;
};

TEST_F(LabFiles, ClaimsAreKeptWithWhatEachSeedMeasured) {
  EXPECT_EQ(ExitCode(Lab({"test_mixed"})), 5);  // one of them fails
  const Json json = Json::parse(Text("test_mixed/claims.json"));
  EXPECT_EQ(json["experiment"], "test_mixed");
  EXPECT_EQ(json["arxiv"], "0000.00000");
  EXPECT_EQ(json["command"], "tightwire lab run test_mixed");
  EXPECT_EQ(json["quick"], false);
  ASSERT_EQ(json["claims"].size(), 4u);
  EXPECT_EQ(json["claims"][0]["verdict"], "PASS");
  EXPECT_EQ(json["claims"][0]["measured"], 2);
  EXPECT_EQ(json["claims"][0]["of"], "mean");
  EXPECT_EQ(json["claims"][0]["std"], 1);
  EXPECT_EQ(json["claims"][0]["worst"], 3);
  EXPECT_EQ(json["claims"][0]["values"], Json({1.0, 2.0, 3.0}));
  EXPECT_EQ(json["claims"][0]["seeds"], 3);
  EXPECT_EQ(json["claims"][1]["verdict"], "FAIL");
  EXPECT_EQ(json["claims"][2]["verdict"], "does not hold here");
  EXPECT_EQ(json["claims"][2]["does_not_hold_here"], "seeds are small");
  EXPECT_EQ(json["claims"][3]["verdict"], "reported");
  EXPECT_EQ(json["claims"][3]["measured"], 2);  // the mean
  EXPECT_FALSE(json["claims"][3].contains("worst"));

  std::istringstream rows(Text("test_mixed/claims.csv"));
  std::string line;
  std::getline(rows, line);
  EXPECT_EQ(line,
            "experiment,claim,paper,arxiv,threshold,measured,of,std,worst,values,verdict,why,seeds,"
            "seconds,command");
  std::getline(rows, line);
  std::getline(rows, line);
  EXPECT_EQ(line.rfind("test_mixed,\"big, and more\",\"Nobody, \"\"mixed\"\"\",0000.00000,> 10,2,"
                       "mean,1,1,1 2 3,FAIL,,3,",
                       0),
            0u)
      << line;
  EXPECT_NE(said_.find("1 PASS, 1 FAIL, 1 does not hold here, 1 reported"), std::string::npos);
}

TEST_F(LabFiles, ARunReplacesTheOneBefore) {
  ASSERT_EQ(ExitCode(Lab({"test_mixed"})), 5);
  std::ofstream(folder_ / "test_mixed" / "plot.svg") << "old";
  ASSERT_EQ(ExitCode(Lab({"test_mixed", "seeds=2"})), 5);
  const Json json = Json::parse(Text("test_mixed/claims.json"));
  EXPECT_EQ(json["claims"][0]["values"].size(), 2u);
  EXPECT_EQ(json["command"], "tightwire lab run test_mixed seeds=2");
  EXPECT_FALSE(fs::exists(folder_ / "test_mixed" / "plot.svg"));
  for (const auto& entry : fs::recursive_directory_iterator(folder_)) {
    EXPECT_NE(entry.path().extension(), ".tmp") << entry.path();
  }
}

TEST_F(LabFiles, OneThatCannotRunDoesNotStopTheOthers) {
  const Status status = Lab({"test_broken", "test_mixed", "test_broken"});
  EXPECT_EQ(ExitCode(status), 3);
  EXPECT_EQ(status.message(), "test_broken: rows.txt: line 3: no number; 1 claim fails");
  EXPECT_EQ(Json::parse(Text("test_mixed/claims.json"))["claims"].size(), 4u);
  EXPECT_EQ(Json::parse(Text("test_broken/claims.json"))["error"], "rows.txt: line 3: no number");
  EXPECT_NE(said_.find("2 experiments, 4 claims"), std::string::npos) << said_;  // not twice
}

TEST_F(LabFiles, RanksThatAnExperimentLosesAreItsOwn) {
  EXPECT_EQ(ExitCode(Lab({"test_deserted", "test_mixed"})), 4);
  EXPECT_EQ(Json::parse(Text("test_mixed/claims.json"))["claims"].size(), 4u);
}

TEST_F(LabFiles, JsonHasAClaimALineAndNothingElse) {
  EXPECT_EQ(ExitCode(Lab({"test_mixed", "test_broken"}, /*json=*/true)), 3);
  std::istringstream lines(said_);
  int count = 0;
  for (std::string line; std::getline(lines, line); ++count) {
    const Json json = Json::parse(line);
    for (const char* key :
         {"experiment", "claim", "measured", "threshold", "pass", "seeds", "seconds"}) {
      EXPECT_TRUE(json.contains(key)) << key;
    }
  }
  EXPECT_EQ(count, 4);
}

TEST_F(LabFiles, WhatCannotBeWrittenOrReadIsSaidBeforeTheFirstRound) {
  std::ofstream(folder_) << "a file";
  Status status = Lab({"test_mixed"});
  EXPECT_EQ(ExitCode(status), 3);
  EXPECT_NE(status.message().find("out=" + folder_.string()), std::string::npos) << status;
  EXPECT_EQ(said_, "");
  fs::remove(folder_);
  EXPECT_EQ(ExitCode(Lab({"test_mixed", "rows=/nowhere/rows.txt"})), 3);
  EXPECT_EQ(ExitCode(Lab({"test_mixed", "images=/nowhere"})), 3);
  EXPECT_FALSE(fs::exists(folder_ / "test_mixed"));
}

TEST(LabCurves, LabelsAreQuotedAndADivergedRunEndsWithInfinity) {
  Curve curve;
  curve.label = "ef14, zeta 1";
  curve.seed = 2;
  curve.metrics = {"distance"};
  curve.points = {{0, 0, 0, {1.5}}, {3, 10, 30, {2.0}}};
  curve.diverged = true;
  EXPECT_EQ(CurvesCsv({curve}),
            "series,seed,round,uplink_bytes,total_bytes,metric,value\n"
            "\"ef14, zeta 1\",2,0,0,0,distance,1.5\n"
            "\"ef14, zeta 1\",2,3,10,30,distance,2\n"
            "\"ef14, zeta 1\",2,3,10,30,distance,inf\n");
}

TEST(LabCommandLine, RepeatsTheRun) {
  LabOptions options;
  EXPECT_EQ(LabCommand("a", options, 1), "tightwire lab run a");
  options.seeds = 5;
  options.rows = "my rows.txt";
  EXPECT_EQ(LabCommand("a", options, 2),
            "mpirun -np 2 tightwire lab run a seeds=5 'rows=my rows.txt'");
  options = {.quick = true, .seeds = 1};
  EXPECT_EQ(LabCommand("a", options, 1), "tightwire lab run a --quick");
}

}  // namespace
}  // namespace tw
