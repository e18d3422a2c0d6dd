#pragma once
// What an experiment works with: runs of a method on a problem, and claims about what they gave.
// Every rank runs the same calls; rank 0's context is the one that is written down.

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/api/problem.h"
#include "core/engine/fleet/fleet.h"

namespace tw {

// One method on one problem with one seed.
struct LabRun {
  // Of the series in tables and plots: "METHOD" or "METHOD, VARIANT". Plots give a method one
  // colour and a variant its own row; a variant that begins with "tuning" is in curves.csv only.
  std::string label;
  uint64_t seed = 1;  // of codecs, noise and samples
  Problem* problem = nullptr;
  int64_t rounds = 1000;
  // "section.key=value" as for `train`: compressor, feedback, strategy, optimizer, schedule. Where
  // they say nothing: none, none, sync, plain gradient steps (sgdm without momentum), constant; no
  // clipping, and no parameter is too small for the compressor.
  std::vector<std::string> settings;
  // The same for what the server sends (compressor and feedback); empty: dense.
  std::vector<std::string> server;
  int64_t points = 200;  // how many of the curve are measured, evenly spread, with the last
  // How many receive each message: the neighbours, where there is no server. Bytes up count that
  // often.
  int copies = 1;
  // More metrics, after the problem's, of what clients hold (Fleet::ClientSlots). Called on every
  // rank at each measured point, to write one number each.
  std::vector<std::string> fleet_metrics;
  std::function<Status(Fleet& fleet, std::span<double> out)> measure_fleet;
};

struct LabTraining;  // launch/lab/lab_training.h
struct Trained;

struct CurvePoint {
  int64_t round = 0;  // rounds done
  int64_t uplink_bytes = 0;
  int64_t total_bytes = 0;  // up and down
  std::vector<double> y;    // as Problem::metrics()
};

struct Curve {
  std::string label;
  uint64_t seed = 1;
  std::vector<std::string> metrics;
  std::vector<CurvePoint> points;
  bool diverged = false;      // it ended early: nothing finite was left
  std::vector<TensorView> x;  // where it ended; valid until the next run

  // Infinity when it diverged.
  double last(size_t metric = 0) const;
  // Mean over the last part of the points, e.g. 0.1 for a tenth.
  double tail(double part, size_t metric = 0) const;
  // The first point at which the metric is at most `target`; null when there is none.
  const CurvePoint* Reaches(double target, size_t metric = 0) const;
};

// The threshold of what is told and not judged.
inline constexpr char kReported[] = "reported";

// What of the seeds is judged, or told: Claim::of.
inline constexpr char kMean[] = "mean", kEverySeed[] = "every seed", kMedian[] = "median";

struct Claim {
  std::string claim;
  double measured = 0;    // what `of` says of `values`
  std::string threshold;  // "< 1e-10", ">= 20", "in [8, 12]"
  bool pass = false;
  int seeds = 1;
  std::string does_not_hold;   // not empty: a claim known not to hold at this scale, and why
  std::vector<double> values;  // in the order of the seeds; several a seed where a claim has them
  std::string of = kMean;
  double std = 0;               // over the seeds, of a sample; 0 of one
  std::optional<double> worst;  // of `values`; none where nothing is judged

  bool judged() const { return threshold != kReported; }
  // PASS, FAIL, "does not hold here" or "reported".
  std::string verdict() const;
};

// What of the curves is drawn, where it is not their first metric as it is.
struct LabPlot {
  std::string metric;         // empty: each curve's first
  bool from_start = false;    // the difference from each run's first point
  std::vector<double> lines;  // values of the metric that claims speak of
  bool training = false;      // steps of ranks in place of rounds of clients; Train() sets it
};

struct LabOptions {
  bool quick = false;
  int seeds = 3;  // 1 where quick
  std::string out = "runs/lab";
  std::string images;  // folder with MNIST's four IDX files; empty: Debian's Fashion-MNIST
  std::string rows;    // LIBSVM file of two classes; empty: what the experiment draws
};

class LabContext {
 public:
  LabContext(const LabOptions& options, Communicator* comm, Lane* lane);
  ~LabContext();

  bool quick() const { return options_.quick; }
  // `at_least` for rows that need more seeds; quick runs have one.
  std::vector<uint64_t> seeds(int at_least = 1) const;
  // Data of the user's in place of the experiments' own; empty where none is given.
  const std::string& images() const {
    took_images_ = true;
    return options_.images;
  }
  const std::string& rows() const {
    took_rows_ = true;
    return options_.rows;
  }
  // Whether the experiment has asked for them.
  bool took_images() const { return took_images_; }
  bool took_rows() const { return took_rows_; }
  // The communicator of a claim that needs one; see Fleet.
  Communicator& comm() const { return *comm_; }

  // Called after each round of each run, on this thread.
  using Watcher = std::function<void(const LabRun& run, int64_t round)>;
  void Watch(Watcher watcher) { watcher_ = std::move(watcher); }

  // Collective. The curve is also kept for the files.
  StatusOr<Curve> Run(const LabRun& run);
  // Collective. A run of `train` in this process; see lab_training.h.
  StatusOr<Trained> Train(const LabTraining& training);
  // The fleet of the last run, for invariants.
  const Fleet& fleet() const;

  // Claims over seeds: their mean must hold, as the protocol of all experiments has it; the worst
  // value and the standard deviation are shown beside it. Where `values` has several a seed (seed
  // by seed, e.g. of several problems), the mean of each must hold, and the worst of these is what
  // is shown. NaN never passes. `seeds` of a claim are those of the last seeds(), or as many as
  // there are values.
  void Below(const std::string& claim, const std::vector<double>& values, double limit);
  void Above(const std::string& claim, const std::vector<double>& values, double limit);
  void Within(const std::string& claim, const std::vector<double>& values, double low, double high);
  void AtLeast(const std::string& claim, const std::vector<double>& values, double limit);
  // For what a method promises of every run, and not of the average one: each value is judged.
  void Always(const std::string& claim, const std::vector<double>& values, double low, double high);
  // Told, not judged: the mean, or the median where some may be infinite.
  void Report(const std::string& what, const std::vector<double>& values);
  void ReportMedian(const std::string& what, const std::vector<double>& values);
  // From here on claims are told and not judged: their thresholds are for other data.
  void TellOnly() { tell_only_ = true; }
  void Add(Claim claim) { claims_.push_back(std::move(claim)); }
  // The last claim is not expected to hold at this scale; says why.
  void DoesNotHoldHere(const std::string& why);

  // What strategies and feedback policies had to say about their constants in any run, each once.
  // Said on the log as well, when it is found.
  const std::vector<std::string>& warnings() const { return warnings_; }
  const std::vector<Claim>& claims() const { return claims_; }
  const std::vector<Curve>& curves() const { return curves_; }
  LabPlot& plot() { return plot_; }

 private:
  struct Method;
  struct Limits;

  void Judge(const std::string& claim, const std::vector<double>& values, const Limits& limits,
             const char* of);

  int SeedsOf(size_t num_values) const;
  void NoteWarnings(const LabRun& run);

  LabOptions options_;
  mutable bool took_images_ = false, took_rows_ = false;
  mutable size_t last_seeds_ = 0;  // how many seeds() gave
  Watcher watcher_;
  Communicator* comm_;
  Lane* lane_;
  std::vector<std::string> warnings_;
  std::vector<Claim> claims_;
  std::vector<Curve> curves_;
  LabPlot plot_;
  bool tell_only_ = false;
  std::unique_ptr<Method> method_;
};

}  // namespace tw
