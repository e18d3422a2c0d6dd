#include "launch/trace_file.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>

#include "core/base/clock.h"
#include "core/base/file_io.h"

namespace tw {
namespace {

TEST(TraceSteps, OneStepOrARange) {
  const auto one = ParseTraceSteps("7");
  ASSERT_TRUE(one.ok());
  EXPECT_EQ(one->first, 7);
  EXPECT_EQ(one->last, 7);
  const auto range = ParseTraceSteps("100:103");
  ASSERT_TRUE(range.ok());
  EXPECT_EQ(range->first, 100);
  EXPECT_EQ(range->last, 103);
}

TEST(TraceSteps, AnythingElseIsRefusedByName) {
  for (const char* text :
       {"0", "5:4", "x", "1:", ":3", "1:2:3", "1-2", " 1", "99999999999999999999"}) {
    const auto steps = ParseTraceSteps(text);
    ASSERT_FALSE(steps.ok()) << text;
    EXPECT_EQ(ExitCode(steps.status()), 2);
    EXPECT_NE(steps.status().message().find(text), std::string::npos);
  }
}

// Two steps of which the second is asked for.
void Record(SpanLog& log) {
  for (int64_t step = 4; step <= 5; ++step) {
    const double t = 1000.0 * static_cast<double>(step);
    log.BeginStep(step);
    SpanTarget{&log, SpanKind::kForward}.Add(t + 1, t + 3);
    SpanTarget{&log, SpanKind::kWire, 2}.Add(t + 2, t + 9);
    SpanTarget{&log, SpanKind::kEncode, 2}.Add(t + 1.5, t + 2);
    ASSERT_TRUE(log.EndStep(t, t + 10).ok());
  }
}

TEST(TraceJson, EventsCarryRowStepBucketAndMicroseconds) {
  SpanLog log(5, 5, 16, {});
  Record(log);
  const auto file = nlohmann::json::parse(TraceJson(log, 3));
  std::map<std::string, nlohmann::json> spans;
  std::map<int, std::string> rows;
  for (const auto& event : file["traceEvents"]) {
    EXPECT_EQ(event["pid"], 3);
    if (event["ph"] == "X") {
      EXPECT_TRUE(spans.emplace(event["name"].get<std::string>(), event).second) << event;
    } else if (event["name"] == "thread_name") {
      rows[event["tid"].get<int>()] = event["args"]["name"].get<std::string>();
    }
  }
  ASSERT_EQ(spans.size(), 4u);  // nothing of step 4
  EXPECT_EQ(spans["step"]["ts"], 5e6);
  EXPECT_EQ(spans["step"]["dur"], 1e4);
  EXPECT_EQ(spans["wire"]["ts"], 5.002e6);
  EXPECT_EQ(spans["wire"]["args"]["bucket"], 2);
  EXPECT_EQ(spans["wire"]["args"]["step"], 5);
  const auto row = [&](const char* name) { return rows[spans[name]["tid"].get<int>()]; };
  EXPECT_EQ(row("step"), "main");
  EXPECT_EQ(row("forward"), "main");
  EXPECT_EQ(row("encode"), "lane");
  EXPECT_EQ(row("wire"), "wire, bucket 2");
  EXPECT_EQ(file["otherData"]["dropped_spans"], 0);
}

TEST(SpanLog, WhatFindsNoRoomIsCounted) {
  SpanLog log(4, 5, 3, {});
  Record(log);
  EXPECT_EQ(log.spans().size(), 3u);
  EXPECT_EQ(log.dropped(), 5);
  EXPECT_EQ(nlohmann::json::parse(TraceJson(log, 0))["otherData"]["dropped_spans"], 5);
}

TEST(ScopedTimer, SumAndSpanAreTheSameInterval) {
  SpanLog log(1, 1, 8, {});
  log.BeginStep(1);
  TimedSum sum{0, {&log, SpanKind::kDecode, 1}};
  for (int i = 0; i < 3; ++i) ScopedTimer timer(&sum);
  double spans_ms = 0;
  for (const Span& span : log.spans()) spans_ms += span.end_ms - span.begin_ms;
  EXPECT_EQ(log.spans().size(), 3u);
  EXPECT_EQ(spans_ms, sum.ms);
}

TEST(OpenTrace, WritesItsFileAfterTheLastStepThatTheRunHas) {
  const std::string dir = ::testing::TempDir() + "trace_file_test";
  std::filesystem::remove_all(dir);
  std::filesystem::create_directories(dir);
  auto log = OpenTrace("4:900", 5, dir, 1);
  ASSERT_TRUE(log.ok());
  Record(**log);
  const auto text = ReadTextFile(dir + "/trace.rank1.json");
  ASSERT_TRUE(text.ok()) << text.status();
  EXPECT_EQ(nlohmann::json::parse(*text)["otherData"]["last_step"], 5);
  std::filesystem::remove_all(dir);
  const auto none = OpenTrace("", 5, dir, 1);
  ASSERT_TRUE(none.ok());
  EXPECT_EQ(none->get(), nullptr);
}

}  // namespace
}  // namespace tw
