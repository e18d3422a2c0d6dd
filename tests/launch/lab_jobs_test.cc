#include "launch/lab/lab_jobs.h"

#include <gtest/gtest.h>

#include <cmath>

namespace tw {
namespace {

TEST(LabJobs, AResultComesBackAsItWas) {
  LabResult result;
  result.record.name = "one";
  result.record.seconds = 1.5;
  result.record.claims = {
      {.claim = "a \"quoted\" |x - x*|", .measured = 0.1, .threshold = "< 1", .pass = true},
      {.claim = "b", .measured = INFINITY, .threshold = "< 1", .does_not_hold = "why\nnot"},
      {.claim = "c", .measured = std::nan(""), .threshold = kReported}};
  result.text = "two\nlines\n";
  result.took_images = true;
  const std::string line = ResultJson(result);
  EXPECT_EQ(line.find('\n'), std::string::npos);
  const auto back = ReadResultJson(line);
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(ResultJson(*back), line);
  EXPECT_EQ(back->record.claims[0].measured, 0.1);
  EXPECT_EQ(back->record.claims[1].verdict(), "does not hold here");
  EXPECT_TRUE(std::isnan(back->record.claims[2].measured));
  EXPECT_TRUE(back->status.ok());
  EXPECT_TRUE(back->took_images);
  EXPECT_FALSE(back->took_rows);
}

TEST(LabJobs, AnErrorKeepsItsCode) {
  LabResult result;
  result.status = DataError("no such file");
  result.written = PeerTimeout("late");
  result.record.error = "no such file";
  const auto back = ReadResultJson(ResultJson(result));
  ASSERT_TRUE(back.ok());
  EXPECT_EQ(back->status, result.status);
  EXPECT_EQ(ExitCode(back->status), 3);
  EXPECT_EQ(ExitCode(back->written), 4);
}

TEST(LabJobs, WhatIsNoResultIsAnError) {
  for (const char* line : {"", "{", "[]", "{}", "{\"name\": 1}"}) {
    EXPECT_FALSE(ReadResultJson(line).ok()) << line;
  }
}

TEST(LabJobs, LongOnesFirstThoseAloneLast) {
  std::vector<LabJob> jobs = {{"a", 1}, {"timed", 9, true}, {"b", 5}, {"also", 1}};
  SortJobs(jobs);
  std::string order;
  for (const LabJob& job : jobs) order += job.name + " ";
  EXPECT_EQ(order, "b a also timed ");
}

}  // namespace
}  // namespace tw
