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
  EXPECT_NE(message("run", {"econtrol_lsq", "seeds=0"}).find("[1, 1000]"), std::string::npos);
}

TEST(Lab, ClaimsShowTheWorstSeedAndNaNNeverPasses) {
  RunRanks(1, [](Communicator& comm) {
    LabContext lab({}, &comm, nullptr);
    EXPECT_EQ(lab.seeds().size(), 3u);
    EXPECT_EQ(lab.seeds(5).size(), 5u);
    lab.Below("a", {1, 3, 2}, 4);
    lab.Below("b", {1, 4, 2}, 4);
    lab.Above("c", {5, 6}, 4);
    lab.Within("d", {8, 12, 9}, 8, 12);
    lab.Within("e", {8, 13}, 8, 12);
    lab.Below("f", {1, std::nan("")}, 4);
    lab.DoesNotHoldHere("because");
    lab.Below("g", {INFINITY}, 4);
    const std::vector<double> worst = {3, 4, 5, 8, 13};
    const std::vector<bool> pass = {true, false, true, true, false, false, false};
    for (size_t i = 0; i < pass.size(); ++i) {
      EXPECT_EQ(lab.claims()[i].pass, pass[i]) << lab.claims()[i].claim;
      if (i < worst.size()) {
        EXPECT_EQ(lab.claims()[i].measured, worst[i]);
      }
    }
    EXPECT_TRUE(std::isnan(lab.claims()[5].measured));
    EXPECT_EQ(lab.claims()[5].does_not_hold, "because");
    EXPECT_EQ(lab.claims()[3].threshold, "in [8, 12]");
  });
}

}  // namespace
}  // namespace tw
