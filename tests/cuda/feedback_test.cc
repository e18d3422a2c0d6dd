#include "core/kernels/feedback.h"

#include "core/kernels/feedback_device.h"
#include "tests/core/kernels/sample_data.h"
#include "tests/cuda/device_memory.h"

namespace tw {
namespace {

namespace device = kernels::device;
using Segment = device::FeedbackSegment<float>;

// Of one size: values on the CPU, and their copies on the device.
struct Memories {
  std::vector<float> v, g, h, e;
  Segment segment;
};

class DeviceFeedback : public DeviceTest {
 protected:
  // Both sides get the same four buffers of every size.
  void ExpectSame(const std::function<void(Memories&)>& cpu,
                  const std::function<void(device::Table<Segment>)>& gpu) {
    std::vector<Memories> all;
    std::vector<Segment> segments;
    for (const size_t n : DeviceSizes()) {
      Memories m{AwkwardFloats(n, 3 * n + 1),
                 RandomFloats(n, 3 * n + 2),
                 AwkwardFloats(n, 3 * n),
                 RandomFloats(n, n),
                 {}};
      m.segment.estimate = m.segment.v = Upload(m.v);
      m.segment.mean = m.segment.g = Upload(m.g);
      m.segment.h = Upload(m.h);
      m.segment.e = Upload(m.e);
      m.segment.r = m.segment.g;
      m.segment.numel = static_cast<int64_t>(n);
      segments.push_back(m.segment);
      cpu(m);
      all.push_back(m);
    }
    const auto table = TableOf(segments);
    EXPECT_EQ(LaunchesOf(1, [&] { gpu(table); }), 1);
    for (const Memories& m : all) {
      EXPECT_TRUE(SameBits(m.v, Download(m.segment.v, m.v.size())));
      EXPECT_TRUE(SameBits(m.g, Download(m.segment.g, m.g.size())));
      EXPECT_TRUE(SameBits(m.e, Download(m.segment.e, m.e.size())));
    }
  }
};

TEST_F(DeviceFeedback, EveryUpdateHasTheCpusBits) {
  ExpectSame([](Memories& m) { kernels::Advance(m.v, m.g); },
             [&](auto table) { device::Advance(table, stream()); });
  ExpectSame([](Memories& m) { kernels::DampedAdvance(m.v, m.g, 0.3f); },
             [&](auto table) { device::DampedAdvance(table, 0.3f, stream()); });
  ExpectSame([](Memories& m) { kernels::ErrorMessage(m.g, m.h, m.e, 0.3f); },
             [&](auto table) { device::ErrorMessage(table, 0.3f, stream()); });
  ExpectSame([](Memories& m) { kernels::ErrorMemory(m.e, m.g, 0.7f); },
             [&](auto table) { device::ErrorMemory(table, 0.7f, stream()); });
  ExpectSame([](Memories& m) { kernels::MomentumMessage(m.v, m.g, m.h, 0.9f, 0.1f); },
             [&](auto table) { device::MomentumMessage(table, 0.9f, 0.1f, stream()); });
  ExpectSame(
      [](Memories& m) { kernels::MomentumErrorMessage(m.v, m.g, m.h, m.e, 0.9f, 0.1f, 0.3f); },
      [&](auto table) { device::MomentumErrorMessage(table, 0.9f, 0.1f, 0.3f, stream()); });
}

TEST_F(DeviceFeedback, WorksInDoublesToo) {
  std::vector<double> e = {10, 1e300}, r = {7.5, 1};
  device::FeedbackSegment<double> segment;
  segment.e = Upload(e);
  segment.r = Upload(r);
  segment.numel = 2;
  device::ErrorMemory(TableOf(std::vector{segment}), 0.5, stream());
  kernels::ErrorMemory(e, r, 0.5);
  EXPECT_EQ(Download(segment.e, 2), e);
}

}  // namespace
}  // namespace tw
