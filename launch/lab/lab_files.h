#pragma once
// What `lab run` leaves behind: a folder an experiment, with what was claimed and measured
// (claims.json, claims.csv) and the curves (curves.csv). Everything else, pictures, index page and
// docs/reproductions.md, is made from these.

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "launch/lab/experiment.h"

namespace tw {

// One experiment that was run, or could not be.
struct LabRecord {
  std::string name;
  ExperimentInfo info;
  LabOptions options;
  int ranks = 1;
  double seconds = 0;
  std::string error;  // not empty: it could not run
  std::vector<Claim> claims;
  std::vector<Curve> curves;
  LabPlot plot;
};

// As many seeds as a run has that is not told how many.
inline int DefaultLabSeeds(bool quick) { return quick ? 1 : LabOptions{}.seeds; }

// What repeats it: "mpirun -np 2 tightwire lab run NAME seeds=5".
std::string LabCommand(const std::string& name, const LabOptions& options, int ranks);

// One claim as `lab run --json` prints it.
nlohmann::ordered_json ClaimJson(const LabRecord& record, const Claim& claim);
// claims.json: the experiment, how it was run, and its claims.
nlohmann::ordered_json RecordJson(const LabRecord& record);
std::string ClaimsCsv(const LabRecord& record);
// One row a point and metric; a run that diverged ends with a value that is not finite.
std::string CurvesCsv(const std::vector<Curve>& curves);

// Makes the folder; DataError where no file can be written in it.
Status OpenLabFolder(const std::string& out);
// Replaces what an earlier run left in out/NAME, each file as a whole or not at all, claims.json
// last. Pictures of the earlier run go: they would belong to other numbers.
Status WriteRecord(const LabRecord& record);
// How long the same command took last time; nothing where out/NAME knows no such run.
std::optional<double> EarlierSeconds(const std::string& name, const LabOptions& options, int ranks);

}  // namespace tw
