#include "launch/lab/lab_training.h"

#include <ATen/Parallel.h>
#include <cmath>
#include <cstring>
#include <limits>
#include <thread>

#include "comm/thread_communicator.h"
#include "core/base/quiet_log.h"
#include "core/engine/agree.h"
#include "core/engine/catch_torch.h"
#include "core/engine/parameters_hash.h"
#include "launch/compose.h"

namespace tw {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kTimeoutSeconds = 60;

// One rank's share of a point.
struct PointPart {
  int64_t step = 0;
  double loss = kNaN;  // mean of its steps since the last point
  int64_t payload_bytes = 0, wire_bytes = 0;
  EvalResult eval;
};

// Of one rank, on its main thread.
class Recorder : public MetricSink {
 public:
  Recorder(Task* task, int rank, int ranks, int64_t steps, int64_t points)
      : task_(task), rank_(rank), ranks_(ranks), steps_(steps), points_(points) {}

  void set_planner(const PlanUpdater* planner) { planner_ = planner; }

  Status Write(const StepRecord& record) override {
    if (!record.skipped) {
      losses_ += record.loss;
      ++counted_;
    }
    payload_bytes_ += record.payload_bytes;
    wire_bytes_ += record.wire_bytes;
    TakePlan();
    const int64_t step = record.step;
    const bool due = step * points_ / steps_ != (step - 1) * points_ / steps_;
    if (!due && step != steps_) return OkStatus();
    PointPart part{step, counted_ ? losses_ / static_cast<double>(counted_) : kNaN, payload_bytes_,
                   wire_bytes_, EvalResult{}};
    TW_ASSIGN_OR_RETURN(part.eval, CatchTorch([&] { return task_->EvaluatePart(rank_, ranks_); }));
    parts.push_back(part);
    losses_ = 0;
    counted_ = 0;
    return OkStatus();
  }
  // After each step and at the end: rounds are further apart.
  void TakePlan() {
    if (!planner_ || planner_->num_rounds() == static_cast<int64_t>(plans.size())) return;
    const PlanRound& r = planner_->last_round();
    plans.push_back({r.bytes_after, r.bytes_configured, r.error_after, r.error_configured});
  }

  std::vector<PointPart> parts;
  std::vector<TrainedPlan> plans;

 private:
  Task* task_;
  const int rank_, ranks_;
  const int64_t steps_, points_;
  const PlanUpdater* planner_ = nullptr;
  double losses_ = 0;
  int64_t counted_ = 0, payload_bytes_ = 0, wire_bytes_ = 0;
};

struct RankResult {
  Status status;
  std::vector<PointPart> parts;
  std::vector<TrainedPlan> plans;
  int64_t num_parameters = 0;
};

// As train.cc's Go, without a run folder.
Status TrainRank(const LoadedConfig& loaded, int64_t points, Communicator& comm, RankResult* out) {
  const Settings& s = loaded.settings;
  at::set_num_threads(1);
  Lane lane(static_cast<int>(s.comm.concurrent_buckets));
  const auto agree_on = [&](const Status& mine) {
    return lane.Run([&] { return AgreeStatus(comm, mine, {0, -1, "agreement"}); });
  };
  auto assembled = Assemble(loaded, comm.rank(), comm.size());
  TW_RETURN_IF_ERROR(agree_on(assembled.status()));
  Assembly& a = **assembled;
  StateBag state;
  const auto seed = static_cast<uint64_t>(s.train.seed);
  GradientReducer reducer(a.parameters, a.plan.get(), &comm, &lane, &state,
                          {static_cast<int64_t>(s.comm.bucket_cap_mb * (1 << 20)), s.comm.overlap,
                           seed, nullptr, nullptr, a.sketches});
  for (const ParameterView& p : reducer.views()) out->num_parameters += p.value.numel;
  Recorder recorder(a.task.get(), comm.rank(), comm.size(), s.train.steps, points);
  std::unique_ptr<PlanUpdater> updater;
  if (a.planner) {
    auto made = PlanUpdater::Create(
        {a.planner.get(), s.planner, &a.choices, a.plan.get(), &state, &comm, &lane, seed}, 0);
    TW_RETURN_IF_ERROR(agree_on(made.status()));
    updater = std::move(made).value();
    reducer.set_observer(updater.get());
    recorder.set_planner(updater.get());
  }
  TrainerParts parts;
  parts.task = a.task.get();
  parts.reducer = &reducer;
  parts.optimizer = a.optimizer.get();
  parts.treatments = a.treatments;
  parts.schedule = a.schedule.get();
  parts.strategy = a.strategy.get();
  parts.plan_updater = updater.get();
  parts.state = &state;
  parts.comm = &comm;
  parts.lane = &lane;
  parts.sinks = {&recorder};
  TrainerOptions options;
  options.steps = s.train.steps;
  options.accumulate = s.train.accumulate;
  options.lr = s.optimizer.lr;
  options.seed = seed;
  options.masters = a.masters;
  options.grad_clip = s.train.grad_clip;
  options.check_replicas_every = s.comm.check_replicas_every;
  options.max_skipped = s.train.max_skipped;
  Status status = CatchTorch([&] { return Trainer(parts, options).Run(0); });
  if (status.ok()) {
    const uint64_t hash = ParametersHash(reducer.views());
    status = lane.Run([&] { return comm.Agree(hash, "params_hash at the end"); });
  }
  recorder.TakePlan();
  out->parts = std::move(recorder.parts);
  out->plans = std::move(recorder.plans);
  return status;
}

// The points that all ranks have come to.
void MergePoints(const std::vector<RankResult>& ranks, Curve* curve) {
  size_t count = ranks[0].parts.size();
  bool has_accuracy = count > 0;
  for (const RankResult& r : ranks) {
    count = std::min(count, r.parts.size());
    for (const PointPart& part : r.parts) has_accuracy &= part.eval.accuracy.has_value();
  }
  curve->metrics = {"loss", "eval_loss"};
  if (has_accuracy) curve->metrics.push_back("eval_error");
  for (size_t p = 0; p < count; ++p) {
    CurvePoint point;
    double loss = 0, eval_loss = 0, correct = 0, tokens = 0;
    for (const RankResult& r : ranks) {
      const PointPart& part = r.parts[p];
      point.round = part.step;
      point.uplink_bytes += part.payload_bytes;
      point.total_bytes += part.wire_bytes;
      loss += part.loss / static_cast<double>(ranks.size());
      const auto n = static_cast<double>(part.eval.tokens);
      eval_loss += n * part.eval.loss;
      correct += n * part.eval.accuracy.value_or(0);
      tokens += n;
    }
    point.y = {loss, tokens > 0 ? eval_loss / tokens : kNaN};
    if (has_accuracy) point.y.push_back(1 - correct / tokens);
    curve->points.push_back(std::move(point));
  }
}

// The error of the lowest rank that has one of its own: ranks that wait for it in vain say so only
// after their deadline.
Status Verdict(const std::vector<RankResult>& ranks) {
  Status verdict;
  for (const RankResult& r : ranks) {
    if (r.status.ok()) continue;
    if (verdict.ok() || (FaultOf(verdict) == Fault::kPeer && FaultOf(r.status) != Fault::kPeer)) {
      verdict = r.status;
    }
  }
  return verdict;
}

// As plain numbers, for the other ranks of the lab: whole ones are below 2^53.
std::vector<double> Flatten(const Trained& t) {
  const size_t num_metrics = t.curve.metrics.size();
  std::vector<double> out = {
      static_cast<double>(t.curve.diverged),      static_cast<double>(t.steps),
      static_cast<double>(t.num_parameters),      static_cast<double>(num_metrics),
      static_cast<double>(t.curve.points.size()), static_cast<double>(t.plans.size())};
  for (const CurvePoint& p : t.curve.points) {
    for (const int64_t n : {p.round, p.uplink_bytes, p.total_bytes}) {
      out.push_back(static_cast<double>(n));
    }
    out.insert(out.end(), p.y.begin(), p.y.end());
  }
  for (const TrainedPlan& p : t.plans) {
    out.insert(out.end(), {p.bytes, p.uniform_bytes, p.error, p.uniform_error});
  }
  return out;
}

Trained Unflatten(std::span<const double> in) {
  size_t at = 0;
  const auto whole = [&] { return static_cast<int64_t>(in[at++]); };
  Trained t;
  t.curve.diverged = whole() != 0;
  t.steps = whole();
  t.num_parameters = whole();
  const auto num_metrics = static_cast<size_t>(whole());
  t.curve.points.resize(static_cast<size_t>(whole()));
  t.plans.resize(static_cast<size_t>(whole()));
  t.curve.metrics = {"loss", "eval_loss", "eval_error"};
  t.curve.metrics.resize(num_metrics);
  for (CurvePoint& p : t.curve.points) {
    p.round = whole();
    p.uplink_bytes = whole();
    p.total_bytes = whole();
    for (size_t m = 0; m < num_metrics; ++m) p.y.push_back(in[at++]);
  }
  for (TrainedPlan& p : t.plans) {
    p.bytes = in[at++];
    p.uniform_bytes = in[at++];
    p.error = in[at++];
    p.uniform_error = in[at++];
  }
  return t;
}

}  // namespace

StatusOr<Trained> TrainInThreads(const LabTraining& training) {
  std::vector<std::string> settings = training.settings;
  settings.push_back("train.seed=" + std::to_string(training.seed));
  TW_ASSIGN_OR_RETURN(const LoadedConfig loaded, LoadedConfig::Load("", settings));
  const Settings& s = loaded.settings;
  if (!loaded.idle.empty()) return ConfigError(training.label + ": " + loaded.idle[0]);
  if (s.comm.hierarchical == "on" || s.comm.group_size > 0) {
    return ConfigError(training.label + ": the lab's ranks exchange flat, without groups");
  }
  const QuietLog quiet;
  const int threads_before = at::get_num_threads();
  std::vector<RankResult> ranks(static_cast<size_t>(training.ranks));
  {
    const auto group = MakeThreadGroup(training.ranks, kTimeoutSeconds);
    std::vector<std::thread> threads;
    for (size_t r = 0; r < ranks.size(); ++r) {
      threads.emplace_back(
          [&, r] { ranks[r].status = TrainRank(loaded, training.points, *group[r], &ranks[r]); });
    }
    for (std::thread& thread : threads) thread.join();
  }
  at::set_num_threads(threads_before);  // of threads that LibTorch has yet to see, too
  const Status verdict = Verdict(ranks);
  if (!verdict.ok() && FaultOf(verdict) != Fault::kNumbers) {
    return Annotate(verdict, training.label);
  }
  Trained out;
  out.curve.label = training.label;
  out.curve.seed = training.seed;
  MergePoints(ranks, &out.curve);
  out.curve.diverged = !verdict.ok() || out.curve.points.empty() ||
                       !std::isfinite(out.curve.points.back().y[0]) ||
                       !std::isfinite(out.curve.points.back().y[1]);
  out.steps = s.train.steps;
  out.num_parameters = ranks[0].num_parameters;
  out.plans = ranks[0].plans;
  return out;
}

StatusOr<Trained> LabContext::Train(const LabTraining& training) {
  const bool trains = comm_->rank() == 0;
  StatusOr<Trained> mine = trains ? TrainInThreads(training) : StatusOr<Trained>(Trained{});
  if (comm_->size() > 1) {
    std::string text;
    TW_RETURN_IF_ERROR(lane_->Run([&]() -> Status {
      const OpTag tag{0, -1, "training"};
      TW_RETURN_IF_ERROR(AgreeStatus(*comm_, mine.status(), tag));
      const std::vector<double> numbers = Flatten(*mine);
      text.assign(reinterpret_cast<const char*>(numbers.data()), numbers.size() * sizeof(double));
      TW_ASSIGN_OR_RETURN(text, BroadcastText(*comm_, text, 0, tag));
      return OkStatus();
    }));
    std::vector<double> numbers(text.size() / sizeof(double));
    std::memcpy(numbers.data(), text.data(), text.size());
    mine = Unflatten(numbers);
    mine->curve.label = training.label;
    mine->curve.seed = training.seed;
  }
  TW_RETURN_IF_ERROR(mine.status());
  curves_.push_back(mine->curve);
  plot_.training = true;
  return mine;
}

}  // namespace tw
