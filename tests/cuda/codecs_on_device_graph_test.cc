// A bucket's whole way through a codec, captured once as a graph: launched on other gradients it
// does what the calls would do, with the random numbers of the captured step.

#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <vector>

#include "core/kernels/elementwise.h"
#include "core/kernels/optimizer.h"
#include "tests/core/kernels/sample_data.h"
#include "tests/cuda/codec_settings.h"
#include "tests/cuda/device_memory.h"
#include "tests/cuda/test_device.h"

namespace tw {
namespace {

constexpr float kScale = 0.25f;

// Tensors with their codec, error memories, bodies and sums on a device.
class Bucket {
 public:
  Bucket(TestDevice& device, const Setting& setting)
      : queue_(device.NewQueue()), scratch_(&device.memory()), bag_(&device.memory()) {
    int number = 0;
    for (const std::vector<int64_t>& shape : Shapes()) {
      auto t = std::make_unique<Tensor>(device, setting, shape, &bag_, number++);
      if (!t->codec.codec->traits().host_only) tensors_.push_back(std::move(t));
    }
  }
  kernels::DeviceKernels& queue() { return *queue_; }
  bool empty() const { return tensors_.empty(); }

  void Fill(uint64_t seed) {
    const DeviceScope scope(queue_.get());
    for (auto& t : tensors_) {
      const std::vector<float> x = RandomFloats(t->numel(), seed + t->numel());
      queue_->CopyIn(t->gradient.data(), x.data(), x.size() * sizeof(float));
    }
  }
  // error + scale * gradient is encoded, what is left becomes the error, and the body is decoded.
  void Run(uint64_t step) {
    const DeviceScope scope(queue_.get());
    Together together;
    for (auto& t : tensors_) {
      together.Next();
      const Compressor& codec = *t->codec.codec;
      CodecContext context = t->codec.context;
      context.step = step;
      context.state = &t->state;
      context.scratch = &scratch_;
      std::span<uint8_t> body;
      for (int round = 0; round < codec.traits().rounds; ++round) {
        const MessageView message{t->error.span(), round == 0 ? t->gradient.data() : nullptr,
                                  kScale};
        const auto size = codec.EncodeRound(round, body, message, context,
                                            t->bodies[static_cast<size_t>(round)].span());
        TW_CHECK_OK(size);
        body = t->bodies[static_cast<size_t>(round)].span().first(static_cast<size_t>(*size));
      }
      TW_CHECK_OK(codec.DecodeAdd(body, 0.5f, context, t->out.span()));
    }
  }
  std::vector<std::vector<float>> Left() const {
    TW_CHECK_OK(queue_->Wait());
    std::vector<std::vector<float>> out;
    for (const auto& t : tensors_) {
      out.push_back(t->error.Values());
      out.push_back(t->out.Values());
    }
    return out;
  }

 private:
  struct Tensor {
    Tensor(TestDevice& device, const Setting& setting, const std::vector<int64_t>& shape,
           StateBag* bag, int number)
        : codec(setting.name, shape, setting.keys),
          state(bag, "codec/" + std::to_string(number) + "/", StatePlace::kTensors),
          error(device, std::vector<float>(numel())),
          gradient(device, std::vector<float>(numel())),
          out(device, std::vector<float>(numel())) {
      codec.spec.id = static_cast<uint32_t>(number);
      for (int round = 0; round < codec.codec->traits().rounds; ++round) {
        const int64_t room = codec.codec->MaxEncodedBytes(codec.spec, round);
        bodies.emplace_back(device, std::vector<uint8_t>(static_cast<size_t>(room)), 1);
      }
    }
    size_t numel() const { return static_cast<size_t>(codec.spec.numel()); }

    CodecUnderTest codec;
    StateScope state;
    DeviceBuffer<float> error, gradient, out;
    std::vector<DeviceBuffer<uint8_t>> bodies;
  };

  const std::unique_ptr<kernels::DeviceKernels> queue_;
  Workspace scratch_;
  StateBag bag_;
  std::vector<std::unique_ptr<Tensor>> tensors_;
};

void ExpectSame(const std::vector<std::vector<float>>& want,
                const std::vector<std::vector<float>>& got) {
  ASSERT_EQ(want.size(), got.size());
  for (size_t i = 0; i < want.size(); ++i) EXPECT_TRUE(SameBits(want[i], got[i])) << i;
}

class CodecGraphs : public testing::TestWithParam<Setting> {};

TEST_P(CodecGraphs, DoWhatTheCallsDo) {
  TestDevice device;
  Bucket called(device, GetParam()), captured(device, GetParam());
  if (called.empty()) return;                    // its bodies are the host's work
  for (Bucket* bucket : {&called, &captured}) {  // states and scratch get their memory
    bucket->Fill(1);
    bucket->Run(1);
    TW_CHECK_OK(bucket->queue().Wait());
  }
  TW_CHECK_OK(captured.queue().BeginCapture());
  captured.Run(2);
  auto graph = captured.queue().EndCapture();
  TW_CHECK_OK(graph);
  ExpectSame(called.Left(), captured.Left());  // nothing was done
  for (const uint64_t seed : {2, 3, 4}) {
    called.Fill(seed);
    called.Run(2);
    captured.Fill(seed);
    (*graph)->Launch();
    captured.Fill(99);  // behind it
  }
  ExpectSame(called.Left(), captured.Left());
}

INSTANTIATE_TEST_SUITE_P(Settings, CodecGraphs, testing::ValuesIn(FixedSettings()), SettingName);

TEST(DeviceGraphs, KeepTheirTablesWhileTheQueueWorksOn) {
  TestDevice device;
  const auto queue = device.NewQueue();
  std::vector<float> want(5000, 1.0f), one(3, 0.5f), piece(300000, 2.0f);
  DeviceBuffer<float> x(device, want), y(device, one), z(device, piece);
  TW_CHECK_OK(queue->BeginCapture());
  {
    const DeviceScope scope(queue.get());
    {
      Together together;
      for (const std::span<float> half : {x.span().first(2000), x.span().subspan(2000)}) {
        together.Next();
        kernels::Scale(half, 2.0f);
      }
    }
    kernels::AddInPlace(x.span().first(3), 1.0f, y.span());
    PutBytes(y.data(), one.data(), one.size() * sizeof(float));
    PutBytes(z.data(), piece.data(), piece.size() * sizeof(float));
    ZeroBytes(x.data() + 10, 4 * sizeof(float));
    CopyBytes(x.data() + 20, y.data(), sizeof(float));
  }
  const auto graph = queue->EndCapture();
  TW_CHECK_OK(graph);
  EXPECT_EQ(x.Values(), want);
  one.assign(3, 77.0f), piece.assign(300000, 77.0f);
  for (int round = 0; round < 2; ++round) {
    for (int i = 0; i < 10; ++i) {  // the ring comes round
      queue->CopyIn(z.data(), piece.data(), piece.size() * sizeof(float));
      queue->Scale(z.span().first(1), 3.0f);
    }
    (*graph)->Launch();
    for (size_t i = 0; i < want.size(); ++i) want[i] = 2 * want[i] + (i < 3 ? 0.5f : 0.0f);
    std::fill(want.begin() + 10, want.begin() + 14, 0.0f);
    want[20] = 0.5f;
    EXPECT_TRUE(queue->Wait().ok());
    EXPECT_TRUE(SameBits(want, x.Values()));
    EXPECT_EQ(z.Values(), std::vector<float>(300000, 2.0f));
  }
}

TEST(DeviceGraphs, SayWhatTheyCannotHold) {
  TestDevice device;
  const auto queue = device.NewQueue();
  DeviceBuffer<float> x(device, std::vector<float>(100, 1.0f));
  float got = 5;
  TW_CHECK_OK(queue->BeginCapture());
  queue->Scale(x.span(), 2.0f);
  queue->CopyOut(&got, x.data(), sizeof(got));
  queue->Scale(x.span(), 2.0f);
  const auto graph = queue->EndCapture();
  ASSERT_FALSE(graph.ok());
  EXPECT_EQ(graph.status().message(), "GPU 0: a graph cannot hold what the host waits for");
  EXPECT_EQ(got, 0);
  queue->Scale(x.span(), 3.0f);
  queue->CopyOut(&got, x.data(), sizeof(got));
  EXPECT_EQ(got, 3);

  DeviceBuffer<double> norm(device, {5.0});
  uint8_t* pinned = queue->AllocatePinned(16);
  const auto refused_for = [&](auto work) {
    TW_CHECK_OK(queue->BeginCapture());
    work();
    const auto none = queue->EndCapture();
    return none.ok() ? "nothing" : std::string(none.status().message().substr(27));
  };
  EXPECT_EQ(refused_for([&] {
              queue->ClipSteps(1, norm.data());
              queue->SgdStep(x.span(), x.span(), {});
              queue->ClipSteps(0, nullptr);
            }),
            "steps that are clipped");
  EXPECT_EQ(refused_for([&] { queue->StartCopyOut(pinned, x.data(), 16); }), "memory of the host");
  EXPECT_EQ(refused_for([&] { queue->StartCopyIn(x.data(), pinned, 16); }), "memory of the host");
  EXPECT_EQ(refused_for([&] { EXPECT_TRUE(queue->Mark()->reached()); }), "a mark");
  queue->FreePinned(pinned);
  const auto shared = device.NewQueue(kernels::QueueStream::kDefault);
  const Status refused = shared->BeginCapture();
  EXPECT_EQ(refused.message().substr(0, 26), "GPU 0: no capture begins: ") << refused.message();
  EXPECT_TRUE(shared->Wait().ok());
}

}  // namespace
}  // namespace tw
