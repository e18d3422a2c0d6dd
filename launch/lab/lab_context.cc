#include "launch/lab/lab_context.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <optional>

#include "absl/strings/str_format.h"
#include "core/base/log.h"
#include "launch/compose.h"

namespace tw {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
// Rounds in a row in which no client's message was finite: it has diverged.
constexpr int kMaxSkipped = 20;

bool Says(const std::vector<std::string>& settings, const std::string& key) {
  return std::any_of(settings.begin(), settings.end(),
                     [&](const std::string& s) { return s.starts_with(key + "="); });
}

// A setting that does nothing is an error: an experiment would claim something about it.
StatusOr<LoadedConfig> LoadMethod(const LabRun& run, const std::vector<std::string>& settings) {
  std::vector<std::string> all = {"train.grad_clip=0", "compressor.min_numel=0",
                                  "train.steps=" + std::to_string(run.rounds),
                                  "train.seed=" + std::to_string(run.seed)};
  if (!Says(settings, "optimizer.name")) {
    all.insert(all.end(), {"optimizer.name=sgdm", "optimizer.momentum=0"});
  }
  all.insert(all.end(), settings.begin(), settings.end());
  TW_ASSIGN_OR_RETURN(LoadedConfig loaded, LoadedConfig::Load("", all));
  if (!loaded.idle.empty()) return ConfigError(run.label + ": " + loaded.idle[0]);
  return loaded;
}

std::vector<TensorSpec> SpecsOf(const Problem& problem) {
  return {problem.parameters().begin(), problem.parameters().end()};
}

double MeanOf(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

double StdOf(const std::vector<double>& values) {
  if (values.size() < 2) return 0;
  const double mean = MeanOf(values);
  double sum = 0;
  for (const double v : values) sum += (v - mean) * (v - mean);
  return std::sqrt(sum / static_cast<double>(values.size() - 1));
}

}  // namespace

struct LabContext::Method {
  LoadedConfig config;
  Assembly parts, server;
  std::optional<Route> server_route;
  std::unique_ptr<Fleet> fleet;
};

double Curve::last(size_t metric) const {
  return diverged || points.empty() ? kInfinity : points.back().y[metric];
}

double Curve::tail(double part, size_t metric) const {
  if (diverged || points.empty()) return kInfinity;
  const size_t count = std::clamp<size_t>(
      static_cast<size_t>(std::llround(part * static_cast<double>(points.size()))), 1,
      points.size());
  double sum = 0;
  for (size_t i = points.size() - count; i < points.size(); ++i) sum += points[i].y[metric];
  return sum / static_cast<double>(count);
}

const CurvePoint* Curve::Reaches(double target, size_t metric) const {
  const auto it = std::find_if(points.begin(), points.end(),
                               [&](const CurvePoint& p) { return p.y[metric] <= target; });
  return it == points.end() ? nullptr : &*it;
}

std::string Claim::verdict() const {
  if (!judged()) return kReported;
  if (pass) return "PASS";
  return does_not_hold.empty() ? "FAIL" : "does not hold here";
}

LabContext::LabContext(const LabOptions& options, Communicator* comm, Lane* lane)
    : options_(options), comm_(comm), lane_(lane) {}
LabContext::~LabContext() = default;

std::vector<uint64_t> LabContext::seeds(int at_least) const {
  const int count = options_.quick ? options_.seeds : std::max(options_.seeds, at_least);
  std::vector<uint64_t> out;
  for (int s = 1; s <= count; ++s) out.push_back(static_cast<uint64_t>(s));
  last_seeds_ = out.size();
  return out;
}

const Fleet& LabContext::fleet() const {
  TW_CHECK(method_ && method_->fleet);
  return *method_->fleet;
}

void LabContext::NoteWarnings(const LabRun& run) {
  for (const ParameterPlan& p : method_->parts.plan->parameters()) {
    for (const auto& lines : {p.route.policy->Warnings(p.spec, *p.route.codec),
                              method_->parts.strategy->Warnings(p.spec, *p.route.codec)}) {
      for (const std::string& line : lines) {
        if (std::find(warnings_.begin(), warnings_.end(), line) != warnings_.end()) continue;
        warnings_.push_back(line);
        if (comm_->rank() == 0) LogWarning(run.label + ": " + line);
      }
    }
  }
}

StatusOr<Curve> LabContext::Run(const LabRun& run) {
  method_ = std::make_unique<Method>();
  Method& m = *method_;
  TW_ASSIGN_OR_RETURN(m.config, LoadMethod(run, run.settings));
  const int clients = run.problem->num_clients();
  // Both hops compressed is what peers do; here the server has a codec of its own.
  constexpr Merge kMerges[] = {Merge::kSum, Merge::kGather};
  TW_RETURN_IF_ERROR(
      Annotate(AssembleMethod(m.config, SpecsOf(*run.problem), clients, kMerges, &m.parts).status(),
               run.label));
  NoteWarnings(run);
  if (!run.server.empty()) {
    TW_ASSIGN_OR_RETURN(const LoadedConfig server, LoadMethod(run, run.server));
    TW_RETURN_IF_ERROR(
        AssembleMethod(server, SpecsOf(*run.problem), clients, kMerges, &m.server).status());
    m.server_route = m.server.routes.back().route;
  }
  const Settings& s = m.config.settings;
  TW_ASSIGN_OR_RETURN(
      m.fleet,
      Fleet::Create({run.problem, m.parts.plan.get(), m.server_route ? &*m.server_route : nullptr,
                     m.parts.optimizer.get(), m.parts.schedule.get(), m.parts.strategy.get(), comm_,
                     comm_->size() > 1 ? lane_ : nullptr},
                    {run.rounds, s.optimizer.lr, s.train.grad_clip, run.seed}));
  Curve curve;
  curve.label = run.label;
  curve.seed = run.seed;
  curve.metrics = run.problem->metrics();
  const size_t own_metrics = curve.metrics.size();
  curve.metrics.insert(curve.metrics.end(), run.fleet_metrics.begin(), run.fleet_metrics.end());
  const auto measure = [&]() -> Status {
    const int64_t uplink = m.fleet->traffic().uplink_bytes * run.copies;
    CurvePoint point{m.fleet->steps_done(), uplink, uplink + m.fleet->traffic().downlink_bytes,
                     std::vector<double>(curve.metrics.size())};
    const std::span<double> y = point.y;
    TW_RETURN_IF_ERROR(run.problem->Measure(m.fleet->x(), y.first(own_metrics)));
    if (run.measure_fleet) {
      TW_RETURN_IF_ERROR(run.measure_fleet(*m.fleet, y.subspan(own_metrics)));
    }
    curve.diverged = !std::isfinite(point.y[0]);
    curve.points.push_back(std::move(point));
    return OkStatus();
  };
  TW_RETURN_IF_ERROR(measure());
  int skipped = 0;
  for (int64_t round = 1; round <= run.rounds && !curve.diverged; ++round) {
    TW_ASSIGN_OR_RETURN(const StepResult result, m.fleet->Step());
    skipped = result.skip == Skip::kNo ? 0 : skipped + 1;
    const bool due = round * run.points / run.rounds != (round - 1) * run.points / run.rounds;
    if (due || round == run.rounds) TW_RETURN_IF_ERROR(measure());
    curve.diverged = curve.diverged || skipped >= kMaxSkipped;
    if (watcher_) watcher_(run, round);
  }
  curves_.push_back(curve);
  curve.x.assign(m.fleet->x().begin(), m.fleet->x().end());
  return curve;
}

// What is claimed of a number.
struct LabContext::Limits {
  double low = -kInfinity, high = kInfinity;
  bool strict = true;

  bool Hold(double v) const {
    // A limit that is not there is not missed by what is infinite.
    const bool above = low == -kInfinity || (strict ? v > low : v >= low);
    const bool below = high == kInfinity || (strict ? v < high : v <= high);
    return above && below && !std::isnan(v);
  }
  // Larger is worse.
  double Badness(double v) const {
    if (std::isnan(v)) return kInfinity;
    if (low == -kInfinity) return v;
    return high == kInfinity ? -v : std::abs(v - (low + high) / 2);
  }
  double Worst(const std::vector<double>& values) const {
    double worst = values[0];
    for (const double v : values) {
      if (Badness(v) > Badness(worst)) worst = v;
    }
    return worst;
  }
  std::string Text() const {
    if (low == -kInfinity) return absl::StrFormat(strict ? "< %g" : "<= %g", high);
    if (high == kInfinity) return absl::StrFormat(strict ? "> %g" : ">= %g", low);
    return absl::StrFormat("in [%g, %g]", low, high);
  }
};

void LabContext::Below(const std::string& claim, const std::vector<double>& values, double limit) {
  Judge(claim, values, {.high = limit}, kMean);
}

void LabContext::Above(const std::string& claim, const std::vector<double>& values, double limit) {
  Judge(claim, values, {.low = limit}, kMean);
}

void LabContext::AtLeast(const std::string& claim, const std::vector<double>& values,
                         double limit) {
  Judge(claim, values, {.low = limit, .strict = false}, kMean);
}

void LabContext::Within(const std::string& claim, const std::vector<double>& values, double low,
                        double high) {
  Judge(claim, values, {low, high, /*strict=*/false}, kMean);
}

void LabContext::Always(const std::string& claim, const std::vector<double>& values, double low,
                        double high) {
  Judge(claim, values, {low, high, /*strict=*/false}, kEverySeed);
}

void LabContext::Judge(const std::string& claim, const std::vector<double>& values,
                       const Limits& limits, const char* of) {
  if (tell_only_) return Report(claim, values);
  TW_CHECK(!values.empty());
  const int seeds = SeedsOf(values.size());
  // Several values a seed: of what each stands for, over the seeds.
  const size_t kinds = values.size() / static_cast<size_t>(seeds);
  std::vector<double> means, stds;
  for (size_t kind = 0; kind < kinds; ++kind) {
    std::vector<double> own;
    for (size_t i = kind; i < values.size(); i += kinds) own.push_back(values[i]);
    means.push_back(MeanOf(own));
    stds.push_back(StdOf(own));
  }
  const double mean = limits.Worst(means), worst = limits.Worst(values);
  const bool every = of == std::string(kEverySeed);
  const size_t shown =
      static_cast<size_t>(std::find_if(means.begin(), means.end(),
                                       [&](double v) { return v == mean || std::isnan(v); }) -
                          means.begin());
  claims_.push_back({.claim = claim,
                     .measured = every ? worst : mean,
                     .threshold = limits.Text(),
                     .pass = limits.Hold(every ? worst : mean),
                     .seeds = seeds,
                     .values = values,
                     .of = of,
                     .std = stds[shown],
                     .worst = worst});
}

void LabContext::Report(const std::string& what, const std::vector<double>& values) {
  TW_CHECK(!values.empty());
  claims_.push_back({.claim = what,
                     .measured = MeanOf(values),
                     .threshold = kReported,
                     .pass = true,
                     .seeds = SeedsOf(values.size()),
                     .values = values,
                     .std = StdOf(values)});
}

void LabContext::ReportMedian(const std::string& what, const std::vector<double>& values) {
  Report(what, values);
  std::vector<double> sorted = values;
  std::sort(sorted.begin(), sorted.end());
  const size_t half = sorted.size() / 2;
  claims_.back().measured =
      sorted.size() % 2 == 1 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
  claims_.back().of = kMedian;
}

int LabContext::SeedsOf(size_t num_values) const {
  const bool whole = last_seeds_ > 0 && num_values % last_seeds_ == 0;
  return static_cast<int>(whole ? last_seeds_ : num_values);
}

void LabContext::DoesNotHoldHere(const std::string& why) {
  TW_CHECK(!claims_.empty());
  if (tell_only_) return;
  claims_.back().does_not_hold = why;
}

}  // namespace tw
