// lab: lists and runs the registered experiments. Under mpirun the clients of every experiment are
// spread over the ranks; rank 0 speaks and writes.

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>
#include <ostream>

#include "absl/strings/numbers.h"
#include "absl/strings/str_format.h"
#include "core/base/clock.h"
#include "core/data/file.h"
#include "core/data/libsvm.h"
#include "core/engine/catch_torch.h"
#include "launch/commands.h"
#include "launch/lab/lab_plots.h"
#include "launch/lab/lab_view.h"
#include "launch/world.h"

namespace tw {
namespace {

using Json = nlohmann::ordered_json;

StatusOr<std::unique_ptr<Experiment>> Make(const std::string& name) {
  const auto& registry = Registry<Experiment>::Get();
  const auto* entry = registry.Find(name);
  if (!entry) {
    return ConfigError("lab: " + name + ": there is no such experiment" +
                       KnownWords(name, registry.names()));
  }
  return entry->make(ConfigSection{});
}

Status List(std::vector<std::string> names, bool json, std::ostream& out) {
  if (names.empty()) names = Registry<Experiment>::Get().names();
  double seconds = 0;
  for (const std::string& name : names) {
    TW_ASSIGN_OR_RETURN(const auto experiment, Make(name));
    const ExperimentInfo info = experiment->info();
    seconds += info.seconds;
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
    out << absl::StrFormat("%-24s %5.0f s  %s%s\n", name, info.seconds, info.paper,
                           info.arxiv.empty() ? "" : " (arXiv " + info.arxiv + ")");
    for (const std::string& claim : info.claims) out << "    " << claim << "\n";
  }
  if (!json && names.size() > 1) {
    out << absl::StrFormat("%d experiments, about %s in all; --quick about a third\n", names.size(),
                           HumanDuration(seconds));
  }
  return OkStatus();
}

struct LabArguments {
  std::vector<std::string> names;
  LabOptions options;
  bool plot = true;
};

StatusOr<LabArguments> ReadArguments(const std::vector<std::string>& words, bool quick) {
  LabArguments a;
  a.options.quick = quick;
  a.options.seeds = DefaultLabSeeds(quick);
  bool all = false;
  for (const std::string& word : words) {
    const size_t equals = word.find('=');
    const std::string key = word.substr(0, equals);
    if (equals == std::string::npos) {
      all = all || word == "all";
      // Named twice is run once.
      if (std::find(a.names.begin(), a.names.end(), word) == a.names.end()) a.names.push_back(word);
      continue;
    }
    const std::string value = word.substr(equals + 1);
    if (key == "out" && !value.empty()) {
      a.options.out = value;
    } else if (key == "images" && !value.empty()) {
      a.options.images = value;
    } else if (key == "rows" && !value.empty()) {
      a.options.rows = value;
    } else if (key == "plot" && (value == "yes" || value == "no")) {
      a.plot = value == "yes";
    } else if (key == "seeds") {
      if (!absl::SimpleAtoi(value, &a.options.seeds) || a.options.seeds < 1 ||
          a.options.seeds > 1000) {
        return ConfigError("lab: " + word + ": a number in [1, 1000] is expected");
      }
    } else if (key == "out" || key == "images" || key == "rows" || key == "plot") {
      return ConfigError("lab: " + word + ": " +
                         (key == "plot"   ? "yes or no"
                          : key == "rows" ? "a file"
                                          : "a folder") +
                         " is expected");
    } else {
      return ConfigError("lab: " + word + ": there is no such key" +
                         KnownWords(key, {"images", "out", "plot", "rows", "seeds"}));
    }
  }
  if (a.names.empty()) {
    return ConfigError("lab run: which experiment? (tightwire lab list), or all");
  }
  for (const std::string& name : a.names) {
    if (name != "all") TW_RETURN_IF_ERROR(Make(name).status());
  }
  if (all) a.names = Registry<Experiment>::Get().names();
  return a;
}

// What can be known to fail is known before the first round.
Status CheckFiles(const LabArguments& a, bool writes) {
  if (!a.options.rows.empty()) {
    std::ifstream file(a.options.rows);
    if (IsFolder(a.options.rows) || !file) {
      return DataError("lab: rows=" + a.options.rows + ": there is no such file to read");
    }
    const auto rows = CatchTorch([&] { return ReadLibsvm(a.options.rows); });
    TW_RETURN_IF_ERROR(Annotate(rows.status(), "lab: rows=" + a.options.rows));
    if (rows->classes != 2) {
      return DataError("lab: rows=" + a.options.rows + ": 2 classes are expected, not " +
                       std::to_string(rows->classes));
    }
  }
  if (!a.options.images.empty() && !IsFolder(a.options.images)) {
    return DataError("lab: images=" + a.options.images + ": there is no such folder");
  }
  return writes ? Annotate(OpenLabFolder(a.options.out), "lab: out=" + a.options.out) : OkStatus();
}

// Expected seconds of each experiment as it will be run now.
std::vector<double> Expected(const LabArguments& a, int ranks) {
  std::vector<double> out;
  for (const std::string& name : a.names) {
    const double full = (*Make(name))->info().seconds;
    const double guess = full * a.options.seeds / DefaultLabSeeds(/*quick=*/false);
    out.push_back(EarlierSeconds(name, a.options, ranks).value_or(guess));
  }
  return out;
}

class LabSession {
 public:
  LabSession(const LabArguments& arguments, World* world, bool json, std::ostream* out)
      : a_(arguments),
        world_(world),
        json_(json),
        out_(out),
        progress_(world->rank() == 0 ? StderrTerminal() : Silence(), a_.names,
                  Expected(a_, world->size())) {}

  // One after the other; what cannot be run does not keep the others from it, unless ranks are
  // gone.
  Status Go() {
    const double start_ms = NowMs();
    TW_RETURN_IF_ERROR(world_->AgreeOn(CheckFiles(a_, speaks())));
    for (const std::string& name : a_.names) {
      Status status = One(name);
      if (Lost(status)) return status;
      if (!status.ok() && first_error_.ok()) first_error_ = Annotate(status, name);
      TW_RETURN_IF_ERROR(world_->AgreeOn(Write()));
    }
    if (speaks() && !json_) {
      *out_ << (records_.size() > 1 ? "\n" : "") << Totals(records_, (NowMs() - start_ms) / 1e3);
      out_->flush();
    }
    if (speaks()) TellUnused();
    return Verdict();
  }
  // Whether there is something on the disk to draw.
  bool wrote() const { return wrote_; }
  // Other ranks do not answer any more. An experiment's own threads may be ranks, too: what they
  // lose is theirs.
  bool Lost(const Status& status) const {
    return world_->size() > 1 && FaultOf(status) == Fault::kPeer;
  }

 private:
  bool speaks() const { return world_->rank() == 0; }

  static ConsoleTerminal Silence() {
    return {.print = [](const std::string&) {}, .now_ms = NowMs};
  }

  Status One(const std::string& name) {
    TW_ASSIGN_OR_RETURN(const auto experiment, Make(name));
    LabRecord record{
        .name = name, .info = experiment->info(), .options = a_.options, .ranks = world_->size()};
    Lane lane;  // its own: a lane does nothing more after an error
    LabContext lab(a_.options, &world_->comm(), &lane);
    lab.Watch([&](const LabRun& run, int64_t round) { progress_.Round(run, round); });
    progress_.Begin();
    const double start_ms = NowMs();
    Status status = CatchTorch([&] { return experiment->Run(lab); });
    if (!Lost(status)) status = world_->AgreeOn(status);
    record.seconds = (NowMs() - start_ms) / 1e3;
    record.error = std::string(status.message());
    record.claims = lab.claims();
    record.curves = lab.curves();
    record.plot = lab.plot();
    took_rows_ = took_rows_ || lab.took_rows();
    took_images_ = took_images_ || lab.took_images();
    progress_.End(record);
    records_.push_back(std::move(record));
    return status;
  }

  // The last record, on stdout and on the disk.
  Status Write() {
    LabRecord& record = records_.back();
    if (!speaks()) return OkStatus();
    if (json_) {
      for (const Claim& claim : record.claims) *out_ << ClaimJson(record, claim).dump() << "\n";
    } else {
      *out_ << ClaimTable(record);
    }
    out_->flush();
    const Status status = WriteRecord(record);
    wrote_ = wrote_ || status.ok();
    record.curves.clear();  // they may be large
    return status;
  }

  // Data that nobody has read is a mistake of the user's that no result would show.
  void TellUnused() const {
    if (!a_.options.rows.empty() && !took_rows_) {
      std::fprintf(stderr, "lab: rows=%s: none of these experiments takes rows\n",
                   a_.options.rows.c_str());
    }
    if (!a_.options.images.empty() && !took_images_) {
      std::fprintf(stderr, "lab: images=%s: none of these experiments takes images\n",
                   a_.options.images.c_str());
    }
  }

  Status Verdict() const {
    size_t failed = 0, broken = 0;
    for (const LabRecord& record : records_) {
      broken += !record.error.empty();
      for (const Claim& c : record.claims) failed += !c.pass && c.does_not_hold.empty();
    }
    const std::string fails =
        failed == 0 ? "" : std::to_string(failed) + (failed == 1 ? " claim fails" : " claims fail");
    if (!first_error_.ok()) {
      std::string line(first_error_.message());
      if (broken > 1) line += "; " + std::to_string(broken - 1) + " more could not run";
      if (failed > 0) line += "; " + fails;
      return WithFault(Status(first_error_.code(), line), FaultOf(first_error_));
    }
    return failed == 0 ? OkStatus() : NumbersError(fails);
  }

  const LabArguments& a_;
  World* world_;
  bool json_;
  std::ostream* out_;
  LabProgress progress_;
  std::vector<LabRecord> records_;
  Status first_error_;
  bool took_rows_ = false, took_images_ = false, wrote_ = false;
};

Status Run(const LabArguments& a, bool json, std::ostream& out) {
  TW_ASSIGN_OR_RETURN(const auto world, World::Open("auto", 300));
  const bool speaks = world->rank() == 0;
  LabSession session(a, world.get(), json, &out);
  const Status status = session.Go();
  if (session.Lost(status)) EndJob(*world, status);
  world->Close();
  if (speaks && a.plot && session.wrote()) DrawLab(a.options.out, a.names);
  return speaks || status.ok() ? status : WithFault(Status(status.code(), ""), FaultOf(status));
}

}  // namespace

Status RunLab(const std::string& verb, const std::vector<std::string>& words, bool quick, bool json,
              std::ostream& out) {
  if (verb == "list") return List(words, json, out);
  if (verb != "run") {
    return ConfigError("lab " + verb + ": there is no such verb" +
                       KnownWords(verb, {"list", "run"}));
  }
  TW_ASSIGN_OR_RETURN(const LabArguments arguments, ReadArguments(words, quick));
  return Run(arguments, json, out);
}

}  // namespace tw
