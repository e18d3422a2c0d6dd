// lab: lists and runs the registered experiments. Alone it runs as many beside each other as there
// are cores, each in a process of its own. Under mpirun one after the other, the clients of every
// experiment spread over the ranks; rank 0 speaks and writes.

#include <ATen/Parallel.h>
#include <algorithm>
#include <cstdio>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <ostream>
#include <thread>

#include "absl/strings/numbers.h"
#include "absl/strings/str_format.h"
#include "core/base/clock.h"
#include "core/data/file.h"
#include "core/data/libsvm.h"
#include "core/engine/catch_torch.h"
#include "launch/commands.h"
#include "launch/lab/lab_jobs.h"
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
  int jobs = 0;  // experiments at a time; 0: as many as cores, one under a launcher
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
    } else if (key == "jobs") {
      if (!absl::SimpleAtoi(value, &a.jobs) || a.jobs < 1 || a.jobs > 1000) {
        return ConfigError("lab: " + word + ": a number in [1, 1000] is expected");
      }
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
                         KnownWords(key, {"images", "jobs", "out", "plot", "rows", "seeds"}));
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

// Other ranks do not answer any more. An experiment's own threads may be ranks, too: what they
// lose is theirs.
bool Lost(World& world, const Status& status) {
  return world.size() > 1 && FaultOf(status) == Fault::kPeer;
}

// Expected seconds of each experiment as it will be run now.
std::map<std::string, double> Expected(const LabArguments& a, int ranks) {
  std::map<std::string, double> out;
  for (const std::string& name : a.names) {
    const double full = (*Make(name))->info().seconds;
    const double guess = full * a.options.seeds / DefaultLabSeeds(/*quick=*/false);
    out[name] = EarlierSeconds(name, a.options, ranks).value_or(guess);
  }
  return out;
}

// Collective. Runs it, and on rank 0 writes its files.
LabResult RunExperiment(const std::string& name, const LabOptions& options, bool json, World* world,
                        const LabContext::Watcher& watcher) {
  const bool speaks = world->rank() == 0;
  LabResult out;
  const auto experiment = Make(name);
  if (!experiment.ok()) {
    out.status = experiment.status();
    return out;
  }
  LabRecord& record = out.record;
  record = {
      .name = name, .info = (*experiment)->info(), .options = options, .ranks = world->size()};
  Lane lane;  // its own: a lane does nothing more after an error
  LabContext lab(options, &world->comm(), &lane);
  if (watcher) lab.Watch(watcher);
  const double start_ms = NowMs();
  out.status = CatchTorch([&] { return (*experiment)->Run(lab); });
  if (!Lost(*world, out.status)) out.status = world->AgreeOn(out.status);
  if (Lost(*world, out.status)) return out;
  record.seconds = (NowMs() - start_ms) / 1e3;
  record.error = std::string(out.status.message());
  record.claims = lab.claims();
  record.curves = lab.curves();
  record.plot = lab.plot();
  out.took_rows = lab.took_rows();
  out.took_images = lab.took_images();
  if (speaks) {
    if (json) {
      for (const Claim& c : record.claims) out.text += ClaimJson(record, c).dump() + "\n";
    } else {
      out.text = ClaimTable(record);
    }
    out.written = WriteRecord(record);
  }
  record.curves.clear();  // they may be large
  out.written = world->AgreeOn(out.written);
  return out;
}

class LabSession {
 public:
  LabSession(const LabArguments& arguments, World* world, bool json, std::ostream* out)
      : a_(arguments),
        world_(world),
        json_(json),
        out_(out),
        expected_(Expected(a_, world_->size())),
        progress_(world->rank() == 0 ? StderrTerminal() : Silence(), expected_, a_.jobs) {}

  // What cannot be run does not keep the others from it, unless ranks are gone or nothing can be
  // written.
  Status Go() {
    const double start_ms = NowMs();
    TW_RETURN_IF_ERROR(world_->AgreeOn(CheckFiles(a_, speaks())));
    TW_RETURN_IF_ERROR(a_.jobs > 1 ? BesideEachOther() : OneByOne());
    if (speaks() && !json_) {
      *out_ << (records_.size() > 1 ? "\n" : "") << Totals(records_, (NowMs() - start_ms) / 1e3);
      out_->flush();
    }
    if (speaks()) TellUnused();
    return Verdict();
  }
  // Whether there is something on the disk to draw.
  bool wrote() const { return wrote_; }

 private:
  bool speaks() const { return world_->rank() == 0; }

  static ConsoleTerminal Silence() {
    return {.print = [](const std::string&) {}, .now_ms = NowMs};
  }

  Status OneByOne() {
    for (const std::string& name : a_.names) {
      progress_.Begin(name);
      LabResult result =
          RunExperiment(name, a_.options, json_, world_,
                        [&](const LabRun& run, int64_t round) { progress_.Round(run, round); });
      if (Lost(*world_, result.status)) return result.status;
      TW_RETURN_IF_ERROR(Take(std::move(result)));
    }
    return OkStatus();
  }

  Status BesideEachOther() {
    std::vector<LabJob> jobs;
    for (const std::string& name : a_.names) {
      jobs.push_back({name, expected_.at(name), (*Make(name))->info().alone});
    }
    SortJobs(jobs);
    Status taken;
    const auto command = [&](const std::string& name) {
      std::vector<std::string> words = {"tightwire", "lab", "work", name};
      const LabOptions& o = a_.options;
      words.push_back("seeds=" + std::to_string(o.seeds));
      words.push_back("out=" + o.out);
      if (!o.images.empty()) words.push_back("images=" + o.images);
      if (!o.rows.empty()) words.push_back("rows=" + o.rows);
      if (o.quick) words.push_back("--quick");
      if (json_) words.push_back("--json");
      return words;
    };
    const Status ran = RunJobs(jobs, a_.jobs, command,
                               {.began = [&](const LabJob& job) { progress_.Begin(job.name); },
                                .ended =
                                    [&](LabResult result) {
                                      const Status status = Take(std::move(result));
                                      if (taken.ok()) taken = status;
                                    },
                                .tick = [&] { progress_.Tick(); }});
    TW_RETURN_IF_ERROR(ran);
    return taken;
  }

  // On stdout and into the totals; an error where its files could not be written.
  Status Take(LabResult result) {
    progress_.End(result.record);
    if (!result.status.ok() && first_error_.ok()) {
      first_error_ = Annotate(result.status, result.record.name);
    }
    took_rows_ = took_rows_ || result.took_rows;
    took_images_ = took_images_ || result.took_images;
    if (speaks()) {
      *out_ << result.text;
      out_->flush();
      wrote_ = wrote_ || result.written.ok();
    }
    records_.push_back(std::move(result.record));
    return result.written;
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
      for (const Claim& c : record.claims) failed += c.verdict() == "FAIL";
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
  std::map<std::string, double> expected_;
  LabProgress progress_;
  std::vector<LabRecord> records_;
  Status first_error_;
  bool took_rows_ = false, took_images_ = false, wrote_ = false;
};

Status Run(LabArguments a, bool json, std::ostream& out) {
  const bool launched = ReadLauncher().mpi;
  if (launched && a.jobs > 1) {
    return ConfigError("lab: jobs=" + std::to_string(a.jobs) +
                       ": under mpirun experiments run one after the other");
  }
  if (launched || a.names.size() == 1) a.jobs = 1;
  if (a.jobs == 0) a.jobs = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  TW_ASSIGN_OR_RETURN(const auto world, World::Open("auto", 300));
  const bool speaks = world->rank() == 0;
  LabSession session(a, world.get(), json, &out);
  const Status status = session.Go();
  if (Lost(*world, status)) EndJob(*world, status);
  world->Close();
  if (speaks && a.plot && session.wrote()) DrawLab(a.options.out, a.names);
  return speaks || status.ok() ? status : WithFault(Status(status.code(), ""), FaultOf(status));
}

// The process of one of several experiments that run beside each other; see LabJobs.
Status Work(const LabArguments& a, bool json, std::ostream& out) {
  EndWithParent();
  TW_ASSIGN_OR_RETURN(const auto world, World::Open("auto", 300));
  const LabResult result = RunExperiment(a.names[0], a.options, json, world.get(), nullptr);
  world->Close();
  out << ResultJson(result) << "\n";
  out.flush();
  return OkStatus();
}

}  // namespace

Status RunLab(const std::string& verb, const std::vector<std::string>& words, bool quick, bool json,
              std::ostream& out) {
  if (verb == "list") return List(words, json, out);
  if (verb != "run" && verb != "work") {
    return ConfigError("lab " + verb + ": there is no such verb" +
                       KnownWords(verb, {"list", "run"}));
  }
  TW_ASSIGN_OR_RETURN(const LabArguments arguments, ReadArguments(words, quick));
  // One core an experiment: more cores take more experiments, or more ranks.
  at::set_num_threads(1);
  return verb == "run" ? Run(arguments, json, out) : Work(arguments, json, out);
}

}  // namespace tw
