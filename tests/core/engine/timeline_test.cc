// What the times of a step count, held against its timeline.

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <map>

#include "core/base/clock.h"
#include "core/engine/trainer.h"
#include "tests/core/engine/line_task.h"

namespace tw {
namespace {

std::vector<Span> Of(const SpanLog& log, SpanKind kind) {
  std::vector<Span> out;
  for (const Span& span : log.spans()) {
    if (span.kind == kind) out.push_back(span);
  }
  return out;
}

// Bytes that take as long as they take, whatever the machine does.
class ClockTicket : public Ticket {
 public:
  explicit ClockTicket(double end_ms) : end_ms_(end_ms) {}
  StatusOr<Progress> Test() override {
    return NowMs() >= end_ms_ ? Progress::kDone : Progress::kIdle;
  }
  Status Wait() override {
    while (NowMs() < end_ms_) {
    }
    return OkStatus();
  }

 private:
  double end_ms_;
};

// A link that needs `ms` a bucket. Leaves each rank its own gradient.
class SlowExchange : public Exchange {
 public:
  explicit SlowExchange(double ms) : ms_(ms) {}
  Merge merge() const override { return Merge::kSum; }
  Async Start(ExchangeCall call) const override {
    {
      ScopedTimer timer(&call.times->exchange_ms);
      ClockTicket ticket(NowMs() + ms_);
      TW_CO_RETURN_IF_ERROR(co_await ticket);
    }
    ++done;
    co_return OkStatus();
  }
  mutable std::atomic<int> done = 0;

 private:
  double ms_;
};

constexpr double kLinkMs = 40;

struct Measured {
  ReduceOutcome outcome;
  std::vector<Span> wire, wait;
  double before_finish_ms = 0;
};

// One step of two ranks over the slow link; rank 0's. `hidden`: Finish comes when the bytes have
// arrived, as after a long backward.
Measured ReduceSlowly(bool overlap, bool hidden) {
  const SlowExchange link(kLinkMs);
  Measured result;
  RunRanks(2, [&](Communicator& comm) {
    at::set_num_threads(1);
    const TiedModel model;
    RouteMaker routes;
    PlanOptions options = routes.Options(2);
    options.dense.exchange = &link;
    PlanRule rule;
    rule.route = routes.Make("none", "none");
    options.exchanges = {&link};
    options.rules = {rule};
    const auto plan = Plan::Build(SpecsOf(model.parameters()), options);
    TW_CHECK_OK(plan);
    Lane lane;
    StateBag state;
    SpanLog log(1, 1, 256, {});
    GradientReducer reducer(model.parameters(), &*plan, &comm, &lane, &state,
                            {1 << 20, overlap, 5, &log});
    log.BeginStep(1);
    reducer.ZeroGradients();
    const at::Tensor loss = model.Loss(comm.rank(), 0) + model.spare.sum();
    reducer.Arm(0);
    loss.backward();
    while (hidden && link.done < 2) {
    }
    const double before = NowMs();
    double sums[] = {1.0};
    const auto outcome = reducer.Finish(sums);
    TW_CHECK_OK(outcome);
    TW_CHECK_OK(log.EndStep(before, NowMs()));
    if (comm.rank() != 0) return;
    result = {*outcome, Of(log, SpanKind::kWire), Of(log, SpanKind::kWait), before};
  });
  return result;
}

TEST(ExposedMs, IsTheTimeThatFinishWaitsForASlowLink) {
  for (const bool overlap : {true, false}) {
    const Measured m = ReduceSlowly(overlap, false);
    ASSERT_EQ(m.wait.size(), 1u);
    ASSERT_EQ(m.wire.size(), 1u);
    EXPECT_EQ(m.outcome.exposed_ms, m.wait[0].end_ms - m.wait[0].begin_ms);
    EXPECT_GE(m.wait[0].begin_ms, m.before_finish_ms);
    EXPECT_GE(m.wait[0].end_ms, m.wire[0].end_ms);
    EXPECT_GE(m.outcome.times.exchange_ms, kLinkMs);
    // Without overlap the link is not used before Finish: all of it is exposed.
    if (!overlap) {
      EXPECT_GE(m.outcome.exposed_ms, kLinkMs);
    }
  }
}

TEST(ExposedMs, DoesNotCountWhatBackwardHides) {
  const Measured m = ReduceSlowly(true, true);
  ASSERT_EQ(m.wait.size(), 1u);
  ASSERT_EQ(m.wire.size(), 1u);
  EXPECT_GE(m.outcome.times.exchange_ms, kLinkMs);
  EXPECT_LE(m.wire[0].end_ms, m.wait[0].begin_ms);
  EXPECT_EQ(m.outcome.exposed_ms, m.wait[0].end_ms - m.wait[0].begin_ms);
}

struct Traced {
  std::vector<Span> spans;
  std::vector<StepRecord> records;
};

constexpr int64_t kSteps = 4, kFirst = 2, kLast = 3;

// Rank 0 of two, every parameter a bucket of its own.
Traced Train(const std::string& compressor, const std::string& feedback, bool overlap) {
  Traced result;
  RunRanks(2, [&](Communicator& comm) {
    at::set_num_threads(1);
    LineTask task(comm.rank(), 4, 2);
    RouteMaker routes;
    PlanOptions options = routes.Options(2);
    PlanRule rule;
    rule.route = routes.Make(compressor, feedback);
    rule.min_numel = 16;
    options.rules = {rule};
    const auto plan = Plan::Build(SpecsOf(task.parameters()), options);
    TW_CHECK_OK(plan);
    Lane lane;
    StateBag state;
    SpanLog log(kFirst, kLast, 1024, {});
    GradientReducer reducer(task.parameters(), &*plan, &comm, &lane, &state, {1, overlap, 5, &log});
    const auto optimizer = MakeVariant<Optimizer>("adamw");
    const auto schedule = MakeVariant<Schedule>("constant");
    const auto strategy = MakeVariant<Strategy>("sync");
    RecordingSink sink;
    TrainerParts parts{.task = &task,
                       .reducer = &reducer,
                       .optimizer = optimizer.get(),
                       .schedule = schedule.get(),
                       .strategy = strategy.get(),
                       .state = &state,
                       .comm = &comm,
                       .lane = &lane};
    parts.sinks = {&sink};
    parts.spans = &log;
    Trainer trainer(parts, {.steps = kSteps, .accumulate = 2});
    TW_CHECK_OK(trainer.Run(0));
    EXPECT_EQ(log.dropped(), 0);
    if (comm.rank() == 0) result = {{log.spans().begin(), log.spans().end()}, sink.records};
  });
  return result;
}

// Spans of one row, and of a bucket on the wire, are one behind the other or one inside the other.
void ExpectNested(std::vector<Span> spans) {
  std::stable_sort(spans.begin(), spans.end(), [](const Span& a, const Span& b) {
    return a.begin_ms != b.begin_ms ? a.begin_ms < b.begin_ms : a.end_ms > b.end_ms;
  });
  std::vector<Span> open;
  for (const Span& span : spans) {
    EXPECT_LE(span.begin_ms, span.end_ms);
    while (!open.empty() && open.back().end_ms <= span.begin_ms) open.pop_back();
    if (!open.empty()) {
      EXPECT_LE(span.end_ms, open.back().end_ms)
          << SpanName(span.kind) << " in " << SpanName(open.back().kind);
    }
    open.push_back(span);
  }
}

void ExpectTimelineOf(const Traced& run, int64_t step) {
  const StepRecord& record = run.records[static_cast<size_t>(step - 1)];
  std::map<SpanKind, double> sums;
  std::map<std::pair<SpanRow, int32_t>, std::vector<Span>> rows;
  Span whole;
  for (const Span& span : run.spans) {
    if (span.step != step) continue;
    sums[span.kind] += span.end_ms - span.begin_ms;
    const SpanRow row = RowOf(span.kind);
    rows[{row, row == SpanRow::kWire ? span.bucket : -1}].push_back(span);
    if (span.kind == SpanKind::kStep) whole = span;
  }
  ASSERT_GT(whole.end_ms, 0);
  for (const auto& [row, spans] : rows) ExpectNested(spans);
  for (const auto& [row, spans] : rows) {
    for (const Span& span : spans) {
      EXPECT_GE(span.begin_ms, whole.begin_ms) << SpanName(span.kind);
      EXPECT_LE(span.end_ms, whole.end_ms) << SpanName(span.kind);
    }
  }
  EXPECT_EQ(rows.size(), 4u);  // main, lane, two buckets
  const auto expect = [&](SpanKind kind, double ms) {
    EXPECT_NEAR(sums[kind], ms, 1e-6) << SpanName(kind);
  };
  expect(SpanKind::kStep, record.step_ms);
  expect(SpanKind::kForward, record.forward_ms);
  expect(SpanKind::kBackward, record.backward_ms);
  expect(SpanKind::kWait, record.exposed_ms);
  expect(SpanKind::kOptimizer, record.optimizer_ms);
  expect(SpanKind::kEncode, record.encode_ms);
  expect(SpanKind::kDecode, record.decode_ms);
  expect(SpanKind::kWire, record.exchange_ms);
  EXPECT_GT(record.exchange_ms, 0);
}

TEST(Timeline, SpansNestInTheStepAndAddUpToTheMetrics) {
  for (const auto& [compressor, feedback] :
       {std::pair("none", "none"), std::pair("topk", "ef14"), std::pair("powersgd", "ef14"),
        std::pair("blockquant", "ef14")}) {
    for (const bool overlap : {true, false}) {
      SCOPED_TRACE(compressor);
      const Traced run = Train(compressor, feedback, overlap);
      ASSERT_EQ(run.records.size(), static_cast<size_t>(kSteps));
      for (const Span& span : run.spans) {
        EXPECT_TRUE(span.step == kFirst || span.step == kLast);
      }
      ExpectTimelineOf(run, kFirst);
      ExpectTimelineOf(run, kLast);
    }
  }
}

}  // namespace
}  // namespace tw
