#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "launch/commands.h"
#include "launch/lab/experiment.h"
#include "tests/comm/thread_group.h"

namespace tw {
namespace {

using Json = nlohmann::json;

std::vector<Json> Lines(const std::string& text) {
  std::vector<Json> out;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) out.push_back(Json::parse(line));
  return out;
}

TEST(Lab, ListsWhatIsRegistered) {
  std::ostringstream out;
  ASSERT_TRUE(RunLab("list", {}, false, true, out).ok());
  const auto lines = Lines(out.str());
  EXPECT_EQ(lines.size(), Registry<Experiment>::Get().names().size());
  bool found = false;
  for (const Json& line : lines) {
    EXPECT_FALSE(line["paper"].get<std::string>().empty());
    EXPECT_FALSE(line["claims"].empty());
    EXPECT_GT(line["seconds"].get<double>(), 0);
    found = found || line["name"] == "econtrol_lsq";
  }
  EXPECT_TRUE(found);
}

TEST(Lab, RunsAnExperimentAndWritesItsCurves) {
  const auto folder = std::filesystem::path(testing::TempDir()) / "tw_lab_test";
  std::filesystem::remove_all(folder);
  std::ostringstream out;
  const Status status = RunLab("run", {"econtrol_lsq", "plot=no", "out=" + folder.string()},
                               /*quick=*/true, /*json=*/true, out);
  EXPECT_TRUE(status.ok()) << status;
  const auto lines = Lines(out.str());
  ASSERT_EQ(lines.size(), 6u);
  for (const Json& line : lines) {
    EXPECT_EQ(line["experiment"], "econtrol_lsq");
    EXPECT_TRUE(line["pass"].get<bool>()) << line;
    EXPECT_EQ(line["seeds"], 1);
    EXPECT_GT(line["seconds"].get<double>(), 0);
  }
  EXPECT_EQ(lines[3]["claim"], "econtrol: |x - x*| after 4000 rounds");
  EXPECT_EQ(lines[3]["threshold"], "< 1e-10");
  EXPECT_LT(lines[3]["measured"].get<double>(), 1e-10);
  std::ifstream curves(folder / "econtrol_lsq" / "curves.csv");
  std::string line;
  std::getline(curves, line);
  EXPECT_EQ(line, "series,seed,round,uplink_bytes,total_bytes,metric,value");
  int64_t rows = 0;
  while (std::getline(curves, line)) ++rows;
  EXPECT_EQ(rows, 6 * 201 * 2);  // methods, points, metrics
  std::filesystem::remove_all(folder);
}

TEST(Lab, RefusesWhatItDoesNotKnow) {
  const auto message = [](const std::string& verb, const std::vector<std::string>& words) {
    std::ostringstream out;
    const Status status = RunLab(verb, words, false, false, out);
    EXPECT_EQ(FaultOf(status), Fault::kConfig);
    return std::string(status.message());
  };
  EXPECT_NE(message("run", {"econtrol_lqs"}).find("did you mean econtrol_lsq?"), std::string::npos);
  EXPECT_NE(message("runs", {}).find("did you mean run?"), std::string::npos);
  EXPECT_NE(message("run", {}).find("which experiment"), std::string::npos);
  EXPECT_NE(message("run", {"econtrol_lsq", "seed=1"}).find("did you mean seeds?"),
            std::string::npos);
  EXPECT_NE(message("run", {"all", "econtrol_lqs"}).find("did you mean"), std::string::npos);
  EXPECT_NE(message("list", {"econtrol_lqs"}).find("did you mean"), std::string::npos);
  EXPECT_NE(message("run", {"econtrol_lsq", "plot=maybe"}).find("yes or no"), std::string::npos);
  EXPECT_NE(message("run", {"econtrol_lsq", "out="}).find("a folder"), std::string::npos);
  EXPECT_NE(message("run", {"econtrol_lsq", "rows="}).find("a file"), std::string::npos);
  EXPECT_NE(message("run", {"econtrol_lsq", "images="}).find("a folder"), std::string::npos);
  EXPECT_NE(message("run", {"econtrol_lsq", "seeds=0"}).find("[1, 1000]"), std::string::npos);
  EXPECT_NE(message("run", {"econtrol_lsq", "jobs=0"}).find("[1, 1000]"), std::string::npos);
}

TEST(Lab, ClaimsAreOnTheMeanOverSeedsAndNaNNeverPasses) {
  RunRanks(1, [](Communicator& comm) {
    LabContext lab({}, &comm, nullptr);
    EXPECT_EQ(lab.seeds(5).size(), 5u);
    EXPECT_EQ(lab.seeds().size(), 3u);
    struct Case {
      double measured, worst;
      bool pass;
      std::string threshold;
    };
    std::vector<Case> wanted;
    const auto expect = [&](double measured, double worst, bool pass, const char* threshold) {
      wanted.push_back({measured, worst, pass, threshold});
    };
    lab.Below("a", {1, 3, 5}, 4);
    expect(3, 5, true, "< 4");
    lab.Below("b", {1, 9, 2}, 4);
    expect(4, 9, false, "< 4");
    lab.Above("c", {5, 6}, 4);
    expect(5.5, 5, true, "> 4");
    lab.Within("d", {8, 13, 9}, 8, 12);
    expect(10, 13, true, "in [8, 12]");
    lab.Within("e", {8, 18}, 8, 12);
    expect(13, 18, false, "in [8, 12]");
    lab.AtLeast("f", {20, 20}, 20);
    expect(20, 20, true, ">= 20");
    lab.Above("g", {20, 20}, 20);
    expect(20, 20, false, "> 20");
    lab.Always("h", {0, 1}, 0, 0.9);
    expect(1, 1, false, "in [0, 0.9]");
    // Two problems a seed: each has a mean of its own, and the worse one counts.
    lab.Below("i", {1, 10, 2, 20, 3, 30}, 15);
    expect(20, 30, false, "< 15");
    lab.Below("j", {INFINITY, 1, 1}, 4);
    expect(INFINITY, INFINITY, false, "< 4");
    lab.Above("l", {INFINITY, 2, 2}, 1);
    expect(INFINITY, 2, true, "> 1");
    for (size_t i = 0; i < wanted.size(); ++i) {
      const Claim& claim = lab.claims()[i];
      EXPECT_EQ(claim.measured, wanted[i].measured) << claim.claim;
      EXPECT_EQ(claim.worst, wanted[i].worst) << claim.claim;
      EXPECT_EQ(claim.pass, wanted[i].pass) << claim.claim;
      EXPECT_EQ(claim.threshold, wanted[i].threshold);
      EXPECT_EQ(claim.of, claim.claim == "h" ? kEverySeed : kMean);
    }
    EXPECT_EQ(lab.claims()[0].std, 2);
    EXPECT_EQ(lab.claims()[8].std, 10);
    EXPECT_EQ(lab.claims()[8].seeds, 3);
    lab.Below("k", {1, std::nan("")}, 4);
    lab.DoesNotHoldHere("because");
    EXPECT_TRUE(std::isnan(lab.claims().back().measured));
    EXPECT_EQ(lab.claims().back().verdict(), "does not hold here");
  });
}

TEST(Lab, WhatIsToldIsNotJudged) {
  RunRanks(1, [](Communicator& comm) {
    LabContext lab({}, &comm, nullptr);
    lab.Report("a", {1, 2, 6});
    EXPECT_EQ(lab.claims().back().measured, 3);
    EXPECT_FALSE(lab.claims().back().worst.has_value());
    lab.ReportMedian("b", {INFINITY, 1, 2});
    EXPECT_EQ(lab.claims().back().measured, 2);
    EXPECT_EQ(lab.claims().back().of, kMedian);
    lab.TellOnly();  // thresholds are for other data
    lab.Below("c", {9, 9}, 1);
    lab.DoesNotHoldHere("because");
    EXPECT_EQ(lab.claims().back().verdict(), kReported);
    EXPECT_EQ(lab.claims().back().measured, 9);
    EXPECT_EQ(lab.claims().back().does_not_hold, "");
  });
}

}  // namespace
}  // namespace tw
