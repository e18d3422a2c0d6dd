#include "launch/lab/lab_files.h"

#include <unistd.h>

#include <cmath>
#include <ctime>
#include <filesystem>

#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "core/base/file_io.h"

namespace tw {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

// JSON has no infinities: they go as text.
Json Number(double value) {
  if (std::isfinite(value)) return value;
  return std::isnan(value) ? "nan" : value > 0 ? "inf" : "-inf";
}

Json Numbers(const std::vector<double>& values) {
  Json out = Json::array();
  for (const double v : values) out.push_back(Number(v));
  return out;
}

// A claim that was added as it is may have nothing but its measured number.
std::vector<double> ValuesOf(const Claim& claim) {
  return claim.values.empty() ? std::vector<double>{claim.measured} : claim.values;
}

// A field of a CSV file as RFC 4180 has it.
std::string Field(const std::string& text) {
  if (text.find_first_of(",\"\n") == std::string::npos) return text;
  std::string out = "\"";
  for (const char c : text) out.append(c == '"' ? 2 : 1, c);
  return out + "\"";
}

std::string Now() {
  char text[32];
  const std::time_t now = std::time(nullptr);
  std::tm local{};
  localtime_r(&now, &local);
  std::strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &local);
  return text;
}

// What a shell takes as one word.
std::string Word(const std::string& text) {
  return text.find_first_of(" \t'\"$&;()<>|*?\\") == std::string::npos ? text : "'" + text + "'";
}

std::string FolderOf(const std::string& name, const LabOptions& options) {
  return (fs::path(options.out) / name).string();
}

Status MakeFolder(const std::string& path) {
  std::error_code error;
  fs::create_directories(path, error);
  return error ? FileError(path, "make the folder", error.value()) : OkStatus();
}

}  // namespace

std::string LabCommand(const std::string& name, const LabOptions& options, int ranks) {
  std::string out = ranks > 1 ? absl::StrFormat("mpirun -np %d ", ranks) : "";
  out += "tightwire lab run " + name;
  if (options.quick) out += " --quick";
  if (options.seeds != DefaultLabSeeds(options.quick)) {
    out += absl::StrFormat(" seeds=%d", options.seeds);
  }
  if (!options.images.empty()) out += " " + Word("images=" + options.images);
  if (!options.rows.empty()) out += " " + Word("rows=" + options.rows);
  return out;
}

Json ClaimJson(const LabRecord& record, const Claim& claim) {
  Json out = {{"experiment", record.name},
              {"claim", claim.claim},
              {"measured", Number(claim.measured)},
              {"of", claim.of},
              {"std", Number(claim.std)},
              {"threshold", claim.threshold},
              {"pass", claim.pass},
              {"verdict", claim.verdict()},
              {"seeds", claim.seeds},
              {"values", Numbers(ValuesOf(claim))},
              {"seconds", record.seconds}};
  if (claim.worst) out["worst"] = Number(*claim.worst);
  if (!claim.does_not_hold.empty()) out["does_not_hold_here"] = claim.does_not_hold;
  return out;
}

Json RecordJson(const LabRecord& record) {
  Json out = {{"experiment", record.name},
              {"paper", record.info.paper},
              {"arxiv", record.info.arxiv},
              {"command", LabCommand(record.name, record.options, record.ranks)},
              {"quick", record.options.quick},
              {"ranks", record.ranks},
              {"seconds", record.seconds},
              {"date", Now()}};
  if (!record.error.empty()) out["error"] = record.error;
  out["plot"] = {{"metric", record.plot.metric},
                 {"from_start", record.plot.from_start},
                 {"lines", Numbers(record.plot.lines)},
                 {"training", record.plot.training}};
  out["claims"] = Json::array();
  for (const Claim& claim : record.claims) {
    Json row = ClaimJson(record, claim);
    row.erase("experiment");
    row.erase("seconds");
    out["claims"].push_back(std::move(row));
  }
  return out;
}

std::string ClaimsCsv(const LabRecord& record) {
  std::string out =
      "experiment,claim,paper,arxiv,threshold,measured,of,std,worst,values,verdict,why,seeds,"
      "seconds,command\n";
  const std::string command = LabCommand(record.name, record.options, record.ranks);
  for (const Claim& c : record.claims) {
    const auto print = [](std::string* text, double v) { absl::StrAppendFormat(text, "%.17g", v); };
    const std::vector<std::string> row = {record.name,
                                          c.claim,
                                          record.info.paper,
                                          record.info.arxiv,
                                          c.threshold,
                                          absl::StrFormat("%.17g", c.measured),
                                          c.of,
                                          absl::StrFormat("%.17g", c.std),
                                          c.worst ? absl::StrFormat("%.17g", *c.worst) : "",
                                          absl::StrJoin(ValuesOf(c), " ", print),
                                          c.verdict(),
                                          c.does_not_hold,
                                          std::to_string(c.seeds),
                                          absl::StrFormat("%.3f", record.seconds),
                                          command};
    const auto field = [](std::string* text, const std::string& f) { *text += Field(f); };
    out += absl::StrJoin(row, ",", field) + "\n";
  }
  return out;
}

std::string CurvesCsv(const std::vector<Curve>& curves) {
  std::string out = "series,seed,round,uplink_bytes,total_bytes,metric,value\n";
  for (const Curve& curve : curves) {
    const std::string label = Field(curve.label);
    const auto row = [&](const CurvePoint& point, size_t m, double value) {
      absl::StrAppendFormat(&out, "%s,%d,%d,%d,%d,%s,%.17g\n", label, curve.seed, point.round,
                            point.uplink_bytes, point.total_bytes, Field(curve.metrics[m]), value);
    };
    for (const CurvePoint& point : curve.points) {
      for (size_t m = 0; m < curve.metrics.size(); ++m) row(point, m, point.y[m]);
    }
    // It ended early, whatever was measured last.
    if (curve.diverged && !curve.points.empty() && std::isfinite(curve.points.back().y[0])) {
      row(curve.points.back(), 0, INFINITY);
    }
  }
  return out;
}

Status OpenLabFolder(const std::string& out) {
  TW_RETURN_IF_ERROR(MakeFolder(out));
  // Of this process alone: another may open the same folder.
  const std::string probe = (fs::path(out) / (".writable-" + std::to_string(::getpid()))).string();
  TW_RETURN_IF_ERROR(WriteTextFileAtomically(probe, ""));
  ::unlink(probe.c_str());
  return OkStatus();
}

Status WriteRecord(const LabRecord& record) {
  const std::string folder = FolderOf(record.name, record.options);
  TW_RETURN_IF_ERROR(MakeFolder(folder));
  for (const char* old : {"plot.svg", "plot.png"}) ::unlink((folder + "/" + old).c_str());
  TW_RETURN_IF_ERROR(WriteTextFileAtomically(folder + "/curves.csv", CurvesCsv(record.curves)));
  TW_RETURN_IF_ERROR(WriteTextFileAtomically(folder + "/claims.csv", ClaimsCsv(record)));
  const std::string text = RecordJson(record).dump(1, ' ', false, Json::error_handler_t::replace);
  return WriteTextFileAtomically(folder + "/claims.json", text + "\n");
}

std::optional<double> EarlierSeconds(const std::string& name, const LabOptions& options,
                                     int ranks) {
  const auto text = ReadTextFile(FolderOf(name, options) + "/claims.json");
  if (!text.ok()) return std::nullopt;
  const Json json = Json::parse(*text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object() || json.contains("error")) return std::nullopt;
  const auto command = json.find("command"), seconds = json.find("seconds");
  if (command == json.end() || *command != LabCommand(name, options, ranks)) return std::nullopt;
  if (seconds == json.end() || !seconds->is_number()) return std::nullopt;
  return seconds->get<double>();
}

}  // namespace tw
