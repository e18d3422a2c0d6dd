// ProgramMain: parses the command line, runs one subcommand, turns its status into one line and an
// exit code.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <iostream>
#include <map>
#include <variant>

#include "core/base/config_value.h"
#include "core/engine/catch_torch.h"
#include "launch/bench_encode.h"
#include "launch/bench_exchange.h"
#include "launch/bench_memory.h"
#include "launch/bench_optimizer.h"
#include "launch/bench_planner.h"
#include "launch/bench_step.h"
#include "launch/commands.h"
#include "launch/inspect.h"
#include "launch/program.h"
#include "launch/world.h"

namespace {

constexpr char kTrainExamples[] = R"(examples:
  tightwire train examples/01_char_lm/config.toml
  mpirun -np 4 tightwire train examples/01_char_lm/config.toml compressor.name=topk compressor.ratio=0.01 feedback.name=ef14
  tightwire train data.path=synthetic train.steps=50          (no file needed: defaults and overrides)
  launch/run -n 4 --restarts 3 -- train examples/01_char_lm/config.toml checkpoint.every=100)";

constexpr char kEvalExamples[] = R"(examples:
  tightwire eval examples/01_char_lm/config.toml checkpoint=runs/char-lm-20260101-120000
  tightwire eval config.toml checkpoint=model.safetensors data.val_path=other.txt --json)";

constexpr char kBenchExamples[] = R"(kinds:
  encode     every compressor under EF14, as multiples of a memory copy of the same bytes
  exchange   one bucket between ranks, against what the link allows; under mpirun
  memory     bytes and time of each way to save activations, against the plain way; memory sweep: the longest
             sequence that fits a budget
  optimizer  a step of every optimizer on every state, bytes a parameter, against PyTorch
  planner    bytes of L-GreCo's plan against uniform compression at no more error, and its cost
  step       a step through the gradient reducer against the same step without it, one rank, and PyTorch's
encode, memory, optimizer and step take device=cuda: the same on this machine's first GPU
examples:
  tightwire bench encode
  tightwire bench encode name=topk ratio=0.001 numel=1000000 --json
  tightwire bench encode name=topk peer=torch
  tightwire bench encode products=4 rows=768 cols=256
  tightwire bench encode device=cuda numel=268435456 peer=torch        (1 GiB, on the GPU)
  tightwire bench optimizer name=adamw state=int4 peer=torch
  launch/cluster --hosts 4 --rate 100mbit -- bench exchange rate=100mbit
  tightwire bench memory name=head chunks=16 form=fused
  tightwire bench memory sweep budget_mb=1024 model.layers=8
  tightwire bench step model.layers=4 blocks=15
  tightwire bench step device=cuda peer=torch model.layers=12 model.width=768 model.heads=12)";

constexpr char kExplainExamples[] = R"(examples:
  tightwire explain examples/01_char_lm/config.toml compressor.name=powersgd compressor.rank=4 ranks=8
  tightwire explain my.toml --ranks 1024 --rate 10gbit --latency 20us        (foretells the step)
  tightwire explain my.toml ranks=64 rate=1gbit run=runs/mine                (with the run's arithmetic))";

constexpr char kListExamples[] =
    R"(kinds: task, model, compressor, feedback, exchange, planner, strategy, optimizer, state, schedule,
  activation, activation_codec, sink, section; and kernel: what runs where on this machine, and why not elsewhere
examples:
  tightwire list compressor
  tightwire list kernels
  tightwire list --json)";

constexpr char kLabExamples[] = R"(examples:
  tightwire lab list
  tightwire lab run econtrol_lsq
  tightwire lab run all --quick                  (one seed; open runs/lab/index.html afterwards)
  mpirun -np 2 tightwire lab run zeta_sweep naive_top1 --seeds 5 --out runs/five
  tightwire lab run scafcom_fashion --images my-idx-folder
runs/lab/NAME/ gets claims.json, claims.csv, curves.csv and plot.svg; runs/lab/index.html shows them all.
exit code 5: a claim fails; one that is known not to hold at this scale says so and is no failure)";

constexpr char kInspectExamples[] = R"(examples:
  tightwire inspect runs/char-lm-20260101-120000
  tightwire inspect runs/char-lm-20260101-120000/checkpoints/step-00001000
  tightwire inspect model.safetensors)";

tw::Status RunBench(const std::string& kind, const std::vector<std::string>& arguments, bool json,
                    const tw::DeviceModule* devices) {
  using Bench = tw::Status (*)(const std::vector<std::string>&, bool, std::ostream&);
  using DeviceBench =
      tw::Status (*)(const std::vector<std::string>&, bool, std::ostream&, const tw::DeviceModule*);
  const std::map<std::string, std::variant<Bench, DeviceBench>> kinds = {
      {"encode", &tw::RunBenchEncode},   {"exchange", &tw::RunBenchExchange},
      {"memory", &tw::RunBenchMemory},   {"optimizer", &tw::RunBenchOptimizer},
      {"planner", &tw::RunBenchPlanner}, {"step", &tw::RunBenchStep}};
  const auto it = kinds.find(kind);
  if (it != kinds.end()) {
    if (const auto* bench = std::get_if<Bench>(&it->second)) {
      return (*bench)(arguments, json, std::cout);
    }
    return std::get<DeviceBench>(it->second)(arguments, json, std::cout, devices);
  }
  std::vector<std::string> known;
  for (const auto& [name, bench] : kinds) known.push_back(name);
  return tw::ConfigError("bench " + kind + ": there is no such kind" + tw::KnownWords(kind, known));
}

// CONFIG may be left out: then the first argument is already key=value.
void SplitConfig(std::vector<std::string>& arguments, std::string& config) {
  if (!arguments.empty() && arguments[0].find('=') == std::string::npos) {
    config = arguments[0];
    arguments.erase(arguments.begin());
  }
}

}  // namespace

namespace tw {

int ProgramMain(int argc, char** argv, const DeviceModule* devices) {
  CLI::App app{"tightwire: data-parallel training over slow networks and in small memory"};
  app.name("tightwire");
  app.set_version_flag("--version", "tightwire " TW_VERSION);
  app.require_subcommand(1);
  bool json = false;
  std::vector<std::string> arguments;
  std::string word;

  const auto with_config = [&](const char* name, const char* help, const char* examples) {
    CLI::App* sub = app.add_subcommand(name, help);
    sub->footer(examples);
    sub->add_option("CONFIG key=value", arguments, "a TOML file, then overrides of its keys");
    sub->add_flag("--json", json, "one JSON object a line on stdout, progress on stderr");
    return sub;
  };
  CLI::App* train =
      with_config("train", "train; alone one rank, under mpirun many", kTrainExamples);
  CLI::App* eval = with_config("eval", "loss and metric on the validation split", kEvalExamples);
  CLI::App* explain = with_config(
      "explain", "effective config, plan, bytes a step, memory; no training", kExplainExamples);
  // Each is a word of the command line, too: ranks=1024.
  std::map<std::string, std::string> cluster;
  for (const auto& [key, help] : std::map<std::string, const char*>{
           {"ranks", "of the job that is explained"},
           {"rate", "of each host's link, as 10gbit: foretells the step at that many ranks"},
           {"latency", "of a link, one way, as 20us"},
           {"run", "a run folder whose metrics tell the arithmetic; without it is measured here"},
           {"times", "of that run: on a core (core), or as they were (wall)"}}) {
    explain->add_option("--" + key, cluster[key], help);
  }
  CLI::App* bench = app.add_subcommand("bench", "measure parts of the program, as ratios");
  bench->footer(kBenchExamples);
  bench->add_option("KIND", word, "what to measure")->required();
  bench->add_option("key=value", arguments, "what to measure it with");
  bench->add_flag("--json", json, "one JSON object a line on stdout");
  CLI::App* list = app.add_subcommand("list", "everything registered, with its keys");
  list->footer(kListExamples);
  list->add_option("KIND", word, "only this kind");
  list->add_flag("--json", json, "one JSON object a line on stdout");
  CLI::App* inspect =
      app.add_subcommand("inspect", "a run folder, checkpoint or safetensors file, in a table");
  inspect->footer(kInspectExamples);
  inspect->add_option("PATH", word, "what to look at")->required();
  inspect->add_flag("--json", json, "JSON on stdout");

  CLI::App* lab = app.add_subcommand("lab", "convergence experiments: claims of papers, checked");
  lab->footer(kLabExamples);
  bool quick = false;
  lab->add_option("VERB", word, "list or run")->required();
  lab->add_option("NAME key=value", arguments,
                  "experiments, or all; the options below as key=value");
  // Words of the command line, too: seeds=5.
  std::map<std::string, std::string> lab_words;
  for (const auto& [key, help] : std::map<std::string, const char*>{
           {"seeds",
            "how many; 3, or 1 with --quick, unless given; claims that need more take more"},
           {"jobs", "experiments at a time; as many as cores unless given, one under mpirun"},
           {"out", "folder for the results, runs/lab unless given"},
           {"images", "folder with MNIST's four IDX files in the place of Fashion-MNIST"},
           {"rows", "LIBSVM file of two classes in the place of drawn rows"},
           {"plot", "yes (default) or no: pictures and index page at the end"}}) {
    lab->add_option("--" + key, lab_words[key], help);
  }
  lab->add_flag("--quick", quick, "one seed, and shorter where that still shows something");
  lab->add_flag("--json", json, "one JSON object a line on stdout");

  try {
    std::vector<std::string> commands;
    for (const CLI::App* sub : app.get_subcommands({})) commands.push_back(sub->get_name());
    if (argc > 1 && argv[1][0] != '-' &&
        std::find(commands.begin(), commands.end(), argv[1]) == commands.end()) {
      throw CLI::ParseError(
          "there is no command " + std::string(argv[1]) + KnownWords(argv[1], commands), 2);
    }
    const std::vector<std::string> options = {"-h", "--help", "--version"};
    if (argc > 1 && argv[1][0] == '-' &&
        std::find(options.begin(), options.end(), argv[1]) == options.end()) {
      throw CLI::ParseError("there is no option " + std::string(argv[1]) +
                                " in front of the command" + KnownWords(argv[1], options),
                            2);
    }
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    if (e.get_exit_code() == 0) return app.exit(e);
    if (tw::ReadLauncher().rank == 0) {
      std::fprintf(stderr, "tightwire: %s; see tightwire --help\n", e.what());
    }
    return static_cast<int>(tw::Fault::kConfig);
  }
  for (const auto* words : {&cluster, &lab_words}) {
    for (const auto& [key, value] : *words) {
      if (!value.empty()) arguments.push_back(key + "=" + value);
    }
  }
  std::string config;
  if (train->parsed() || eval->parsed() || explain->parsed()) SplitConfig(arguments, config);

  // One rank's work: under a launcher rank 0 does it, and the others are silent.
  const bool for_all_ranks = train->parsed() || (lab->parsed() && word == "run") ||
                             (bench->parsed() && word == "exchange");
  const bool silent = !train->parsed() && tw::ReadLauncher().rank > 0;
  if (silent && !for_all_ranks) return 0;

  const auto run = [&]() -> tw::Status {
    if (train->parsed()) return tw::RunTrain(config, arguments, json, devices);
    if (eval->parsed()) return tw::RunEval(config, arguments, json, std::cout);
    if (explain->parsed()) return tw::RunExplain(config, arguments, json, std::cout);
    if (lab->parsed()) return tw::RunLab(word, arguments, quick, json, std::cout);
    if (list->parsed()) return tw::RunList(word, json, std::cout);
    if (inspect->parsed()) return tw::RunInspect(word, json, std::cout);
    return RunBench(word, arguments, json, devices);
  };
  const tw::Status status = tw::CatchTorch(run);
  if (!status.ok() && !status.message().empty() && !silent) {
    std::fprintf(stderr, "tightwire: %s\n", std::string(status.message()).c_str());
  }
  return tw::ExitCode(status);
}

}  // namespace tw
