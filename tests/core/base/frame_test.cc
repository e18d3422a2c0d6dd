#include "core/base/frame.h"

#include <gtest/gtest.h>

#include <vector>

namespace tw {
namespace {

const FrameHeader kHeader{4, 7, 120, 1000};

std::vector<uint8_t> MakeFrame(std::vector<uint8_t> body) {
  std::vector<uint8_t> bytes(kFrameHeaderBytes);
  bytes.insert(bytes.end(), body.begin(), body.end());
  WriteFrameHeader(kHeader, ByteSpan(bytes).subspan(kFrameHeaderBytes), bytes.data());
  return bytes;
}

TEST(Frame, RoundTrips) {
  auto bytes = MakeFrame({1, 2, 3});
  bytes.push_back(99);  // the next frame
  const auto frame = ParseFrame(bytes);
  ASSERT_TRUE(frame.ok()) << frame.status();
  EXPECT_TRUE(CheckFrame(*frame, kHeader).ok());
  EXPECT_EQ(frame->body.size(), 3u);
  EXPECT_EQ(frame->body[2], 3);
  EXPECT_EQ(frame->total_bytes, 51);
}

TEST(Frame, LayoutIsTheDocumentedOne) {
  const auto bytes = MakeFrame({0xAB});
  EXPECT_EQ(std::string(bytes.begin(), bytes.begin() + 4), "TWF1");
  EXPECT_EQ(LoadLE<uint16_t>(bytes.data() + 4), 1);
  EXPECT_EQ(LoadLE<uint16_t>(bytes.data() + 6), 4);
  EXPECT_EQ(LoadLE<uint32_t>(bytes.data() + 8), 7u);
  EXPECT_EQ(LoadLE<uint64_t>(bytes.data() + 16), 120u);
  EXPECT_EQ(LoadLE<uint64_t>(bytes.data() + 24), 1000u);
  EXPECT_EQ(LoadLE<uint64_t>(bytes.data() + 32), 1u);
}

TEST(Frame, EmptyBodyIsAllowed) {
  const auto bytes = MakeFrame({});
  EXPECT_TRUE(ParseFrame(bytes).ok());
}

TEST(Frame, EveryTruncationIsDataLoss) {
  const auto bytes = MakeFrame({1, 2, 3, 4, 5});
  for (size_t n = 0; n < bytes.size(); ++n) {
    const auto frame = ParseFrame(ByteSpan(bytes).first(n));
    EXPECT_EQ(frame.status().code(), absl::StatusCode::kDataLoss) << n;
  }
}

TEST(Frame, EveryFlippedBitIsDataLoss) {
  const auto bytes = MakeFrame({1, 2, 3, 4, 5});
  for (size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    auto damaged = bytes;
    damaged[bit / 8] ^= static_cast<uint8_t>(1u << (bit % 8));
    EXPECT_EQ(ParseFrame(damaged).status().code(), absl::StatusCode::kDataLoss) << bit;
  }
}

TEST(Frame, CheckNamesTheFieldThatDiffers) {
  const auto bytes = MakeFrame({1});
  const auto frame = ParseFrame(bytes);
  FrameHeader other = kHeader;
  other.step = 121;
  const Status status = CheckFrame(*frame, other);
  EXPECT_EQ(std::string(status.message()), "frame: step 120, expected 121");
  other = kHeader;
  other.wire_id = 5;
  EXPECT_FALSE(CheckFrame(*frame, other).ok());
  other = kHeader;
  other.parameter = 8;
  EXPECT_FALSE(CheckFrame(*frame, other).ok());
  other = kHeader;
  other.numel = 1;
  EXPECT_FALSE(CheckFrame(*frame, other).ok());
}

}  // namespace
}  // namespace tw
