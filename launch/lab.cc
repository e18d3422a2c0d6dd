// lab: lists and runs the registered experiments. Under mpirun the clients of every experiment are
// spread over the ranks; rank 0 speaks and writes.

#include <chrono>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <ostream>

#include "absl/strings/numbers.h"
#include "absl/strings/str_format.h"
#include "launch/commands.h"
#include "launch/lab/experiment.h"
#include "launch/world.h"

namespace tw {
namespace {

using Json = nlohmann::ordered_json;

// JSON has no infinities: they go as text.
Json Number(double value) {
  if (std::isfinite(value)) return value;
  return std::isnan(value) ? "nan" : value > 0 ? "inf" : "-inf";
}

StatusOr<std::unique_ptr<Experiment>> Make(const std::string& name) {
  const auto& registry = Registry<Experiment>::Get();
  const auto* entry = registry.Find(name);
  if (!entry) {
    return ConfigError("lab run " + name + ": there is no such experiment" +
                       KnownWords(name, registry.names()));
  }
  return entry->make(ConfigSection{});
}

Status List(bool json, std::ostream& out) {
  for (const std::string& name : Registry<Experiment>::Get().names()) {
    TW_ASSIGN_OR_RETURN(const auto experiment, Make(name));
    const ExperimentInfo info = experiment->info();
    if (json) {
      out << Json({{"name", name},
                   {"paper", info.paper},
                   {"arxiv", info.arxiv},
                   {"claims", info.claims},
                   {"seconds", info.seconds}})
                 .dump()
          << "\n";
      continue;
    }
    out << absl::StrFormat("%-24s %5.0f s  %s (arXiv %s)\n", name, info.seconds, info.paper,
                           info.arxiv);
    for (const std::string& claim : info.claims) out << "    " << claim << "\n";
  }
  return OkStatus();
}

const char* Verdict(const Claim& claim) {
  if (claim.pass) return "PASS";
  return claim.does_not_hold.empty() ? "FAIL" : "does not hold here";
}

// One row a measured point; the columns of all metrics that any curve has.
Status WriteCurves(const std::filesystem::path& folder, const std::vector<Curve>& curves) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  const std::filesystem::path path = folder / "curves.csv";
  std::ofstream file(path);
  file << "series,seed,round,uplink_bytes,total_bytes,metric,value\n";
  for (const Curve& curve : curves) {
    for (const CurvePoint& point : curve.points) {
      for (size_t m = 0; m < curve.metrics.size(); ++m) {
        file << absl::StrFormat("%s,%d,%d,%d,%d,%s,%.17g\n", curve.label, curve.seed, point.round,
                                point.uplink_bytes, point.total_bytes, curve.metrics[m],
                                point.y[m]);
      }
    }
  }
  file.close();
  return file ? OkStatus() : DataError("cannot write " + path.string());
}

struct LabArguments {
  std::vector<std::string> names;
  LabOptions options;
};

StatusOr<LabArguments> ReadArguments(const std::vector<std::string>& words, bool quick) {
  LabArguments a;
  a.options.quick = quick;
  for (const std::string& word : words) {
    const size_t equals = word.find('=');
    const std::string key = word.substr(0, equals);
    if (equals == std::string::npos) {
      a.names.push_back(word);
    } else if (key == "out") {
      a.options.out = word.substr(equals + 1);
    } else if (key == "images") {
      a.options.images = word.substr(equals + 1);
    } else if (key == "rows") {
      a.options.rows = word.substr(equals + 1);
    } else if (key == "seeds") {
      if (!absl::SimpleAtoi(word.substr(equals + 1), &a.options.seeds) || a.options.seeds < 1 ||
          a.options.seeds > 1000) {
        return ConfigError("lab: " + word + ": a number in [1, 1000] is expected");
      }
    } else {
      return ConfigError("lab: " + word + ": there is no such key" +
                         KnownWords(key, {"images", "out", "rows", "seeds"}));
    }
  }
  if (a.names == std::vector<std::string>{"all"}) a.names = Registry<Experiment>::Get().names();
  if (a.names.empty())
    return ConfigError("lab run: which experiment? (tightwire lab list), or all");
  for (const std::string& name : a.names) TW_RETURN_IF_ERROR(Make(name).status());
  return a;
}

Status Run(const LabArguments& a, bool json, std::ostream& out) {
  TW_ASSIGN_OR_RETURN(const auto world, World::Open("auto", 300));
  const bool speaks = world->rank() == 0;
  int failed = 0;
  Status status;
  for (const std::string& name : a.names) {
    TW_ASSIGN_OR_RETURN(const auto experiment, Make(name));
    LabContext lab(a.options, &world->comm(), &world->lane());
    const auto start = std::chrono::steady_clock::now();
    status = experiment->Run(lab);
    const double seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    if (!status.ok()) {
      status = Annotate(status, name);
      break;
    }
    for (const Claim& c : lab.claims()) {
      failed += !c.pass && c.does_not_hold.empty();
      if (!speaks) continue;
      if (!json) {
        out << absl::StrFormat("%-20s %-52s %12.5g  %-18s %s%s\n", name, c.claim, c.measured,
                               c.threshold, Verdict(c),
                               c.does_not_hold.empty() ? "" : ": " + c.does_not_hold);
        continue;
      }
      Json line = {{"experiment", name},       {"claim", c.claim}, {"measured", Number(c.measured)},
                   {"threshold", c.threshold}, {"pass", c.pass},   {"seeds", c.seeds},
                   {"seconds", seconds}};
      if (!c.does_not_hold.empty()) line["does_not_hold_here"] = c.does_not_hold;
      out << line.dump() << "\n";
    }
    out.flush();
    if (speaks) status = WriteCurves(std::filesystem::path(a.options.out) / name, lab.curves());
    status = world->AgreeOn(status);
    if (!status.ok()) break;
  }
  if (FaultOf(status) == Fault::kPeer) EndJob(*world, status);
  world->Close();
  if (status.ok() && failed > 0) {
    status = NumbersError(std::to_string(failed) + (failed == 1 ? " claim fails" : " claims fail"));
  }
  return speaks || status.ok() ? status : WithFault(Status(status.code(), ""), FaultOf(status));
}

}  // namespace

Status RunLab(const std::string& verb, const std::vector<std::string>& words, bool quick, bool json,
              std::ostream& out) {
  if (verb == "list") return List(json, out);
  if (verb != "run") {
    return ConfigError("lab " + verb + ": there is no such verb" +
                       KnownWords(verb, {"list", "run"}));
  }
  TW_ASSIGN_OR_RETURN(const LabArguments arguments, ReadArguments(words, quick));
  return Run(arguments, json, out);
}

}  // namespace tw
