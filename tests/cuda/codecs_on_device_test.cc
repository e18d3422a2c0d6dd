// Every compressor on a device against itself on the host: bodies, residuals, what is decoded and
// what is kept for the next step, of several tensors in common launches. The device's memory is the
// emulation's, which the host cannot touch.

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "tests/compressors/codec_under_test.h"
#include "tests/core/kernels/sample_data.h"
#include "tests/cuda/codec_settings.h"
#include "tests/cuda/test_device.h"

namespace tw {
namespace {

using Bytes = std::vector<uint8_t>;

// Products have other sums on a device (lowrank_device.h): what is made of them is close only. All
// else has the host's bits.
bool IsProduct(const std::string& name) { return name == "powersgd" || name == "unbiased_lowrank"; }

template <class T>
void ExpectSame(const std::vector<T>& want, const std::vector<T>& got, const std::string& what) {
  ASSERT_EQ(want.size(), got.size()) << what;
  for (size_t i = 0; i < want.size(); ++i) {
    ASSERT_EQ(std::memcmp(&want[i], &got[i], sizeof(T)), 0)
        << what << ", " << i << " of " << want.size() << ": " << +want[i] << ", got " << +got[i];
  }
}
void ExpectClose(const std::vector<float>& want, const std::vector<float>& got,
                 const std::string& what) {
  ASSERT_EQ(want.size(), got.size()) << what;
  for (size_t i = 0; i < want.size(); ++i) {
    ASSERT_NEAR(want[i], got[i], 1e-4 * (1 + std::fabs(want[i]))) << what << ", " << i;
  }
}
std::vector<float> AsFloats(const Bytes& bytes) {
  std::vector<float> out(bytes.size() / sizeof(float));
  if (!bytes.empty()) std::memcpy(out.data(), bytes.data(), bytes.size());
  return out;
}

// A tensor and its codec, on the host and on the device.
struct Tensor {
  Tensor(const Setting& setting, const std::vector<int64_t>& shape, StateBag* bag, int number)
      : host(setting.name, shape, setting.keys),
        device_state(bag, "codec/" + std::to_string(number) + "/", StatePlace::kTensors),
        name(setting.name),
        what(setting.name) {
    for (const auto& [key, value] : setting.keys) what += " " + key;
    what += " " + testing::PrintToString(shape);
    host.spec.id = static_cast<uint32_t>(number);
    host.context.rank = 1;
    host.context.world_size = 3;
  }
  CodecContext DeviceContext(Workspace* scratch) const {
    CodecContext context = host.context;
    context.state = &device_state;
    context.scratch = scratch;
    return context;
  }
  const Compressor& codec() const { return *host.codec; }
  size_t numel() const { return static_cast<size_t>(host.spec.numel()); }

  CodecUnderTest host;
  StateScope device_state;
  const std::string name;
  std::string what;
  std::vector<float> message, addend;
  Bytes body;  // the host's, of the round before or the last one
};

class CodecsOnDevice : public testing::Test {
 protected:
  CodecsOnDevice()
      : queue_(device_.NewQueue()), scratch_(&device_.memory()), bag_(&device_.memory()) {}

  void Add(const Setting& setting, const std::vector<int64_t>& shape) {
    auto tensor =
        std::make_unique<Tensor>(setting, shape, &bag_, static_cast<int>(tensors_.size()));
    if (tensor->codec().traits().host_only) return;
    tensors_.push_back(std::move(tensor));
  }

  // work(tensor number) for all of them, in common launches.
  template <class Work>
  void OnDevice(Work work) {
    const DeviceScope scope(queue_.get());
    Together together;
    for (size_t i = 0; i < tensors_.size(); ++i) {
      together.Next();
      work(i);
    }
  }

  void Step(uint64_t step) {
    std::vector<DeviceBuffer<float>> buffers, addends;
    int rounds = 0;
    for (auto& t : tensors_) {
      t->host.context.step = step;
      t->message = RandomFloats(t->numel(), step + t->numel());
      t->addend = RandomFloats(t->numel(), step + 9, 0.5f);
      t->body.clear();
      buffers.emplace_back(device_, t->message);
      addends.emplace_back(device_, t->addend);
      rounds = std::max(rounds, t->codec().traits().rounds);
    }
    for (int round = 0; round < rounds; ++round) Encode(round, buffers, addends);
    for (size_t i = 0; i < tensors_.size(); ++i) {
      const Tensor& t = *tensors_[i];
      IsProduct(t.name) ? ExpectClose(t.message, buffers[i].Values(), t.what)
                        : ExpectSame(t.message, buffers[i].Values(), t.what);
    }
    Decode();
    ExpectSameStates();
  }

 private:
  // Round `round` of those that have it, from the host's body of the round before.
  void Encode(int round, std::vector<DeviceBuffer<float>>& buffers,
              std::vector<DeviceBuffer<float>>& addends) {
    std::vector<DeviceBuffer<uint8_t>> reduced, bodies;
    std::vector<int64_t> sizes(tensors_.size());
    const auto takes_part = [&](size_t i) { return round < tensors_[i]->codec().traits().rounds; };
    // Odd tensors have a pending addition, if any has.
    const auto view = [&](size_t i, std::span<float> buffer, const float* addend) {
      return MessageView{buffer, i % 2 && round == 0 && pending_ ? addend : nullptr, 0.25f};
    };
    for (size_t i = 0; i < tensors_.size(); ++i) {
      Tensor& t = *tensors_[i];
      reduced.emplace_back(device_, t.body, i % 3);  // bodies lie at any address
      const size_t room = static_cast<size_t>(t.codec().MaxEncodedBytes(t.host.spec, round));
      bodies.emplace_back(device_, Bytes(takes_part(i) ? room : 0, 0xC7), (i + 1) % 4);
    }
    OnDevice([&](size_t i) {
      if (!takes_part(i)) return;
      const Tensor& t = *tensors_[i];
      const auto size = t.codec().EncodeRound(round, reduced[i].span(),
                                              view(i, buffers[i].span(), addends[i].data()),
                                              t.DeviceContext(&scratch_), bodies[i].span());
      TW_CHECK_OK(size);
      sizes[i] = *size;
    });
    for (size_t i = 0; i < tensors_.size(); ++i) {
      if (!takes_part(i)) continue;
      Tensor& t = *tensors_[i];
      Bytes body(bodies[i].size());
      const auto size = t.codec().EncodeRound(round, t.body, view(i, t.message, t.addend.data()),
                                              t.host.context, body);
      TW_CHECK_OK(size);
      ASSERT_EQ(*size, sizes[i]) << t.what;
      body.resize(static_cast<size_t>(*size));
      t.body = body;
      Bytes got = bodies[i].Values();
      got.resize(body.size());
      IsProduct(t.name) ? ExpectClose(AsFloats(body), AsFloats(got), t.what)
                        : ExpectSame(body, got, t.what);
    }
  }

  // The host's bodies.
  void Decode() {
    std::vector<DeviceBuffer<float>> outs;
    std::vector<DeviceBuffer<uint8_t>> bodies;
    for (size_t i = 0; i < tensors_.size(); ++i) {
      outs.emplace_back(device_, RandomFloats(tensors_[i]->numel(), 77));
      bodies.emplace_back(device_, tensors_[i]->body, i % 4);
    }
    OnDevice([&](size_t i) {
      CodecContext context = tensors_[i]->DeviceContext(&scratch_);
      context.mean = true;
      TW_CHECK_OK(tensors_[i]->codec().DecodeAdd(bodies[i].span(), 0.3f, context, outs[i].span()));
    });
    for (size_t i = 0; i < tensors_.size(); ++i) {
      Tensor& t = *tensors_[i];
      std::vector<float> want = RandomFloats(t.numel(), 77);
      CodecContext context = t.host.context;
      context.mean = true;
      TW_CHECK_OK(t.codec().DecodeAdd(t.body, 0.3f, context, want));
      ExpectSame(want, outs[i].Values(), t.what + ", decoded");
    }
    EXPECT_TRUE(queue_->TakeAllFinite());
    EXPECT_TRUE(queue_->Wait().ok());
  }

  void ExpectSameStates() {
    const HostMayLook look;
    size_t slots = 0;
    for (const auto& t : tensors_) {
      t->host.bag.ForEach([&](const std::string& name, const StateSlot& want) {
        const std::string slot = name.substr(t->host.state.prefix().size());
        const StateSlot* got = bag_.Find(t->device_state.prefix() + slot);
        ASSERT_NE(got, nullptr) << t->what << " " << slot;
        EXPECT_TRUE(got->on_device);
        ++slots;
        ASSERT_EQ(want.shape, got->shape);
        const ByteSpan a = want.view.raw(), b = got->view.raw();
        ExpectSame(Bytes(a.begin(), a.end()), Bytes(b.begin(), b.end()), t->what + " " + slot);
      });
    }
    size_t there = 0;
    bag_.ForEach([&](const std::string&, const StateSlot&) { ++there; });
    EXPECT_EQ(there, slots);
  }

 protected:
  TestDevice device_;
  std::unique_ptr<kernels::DeviceKernels> queue_;
  Workspace scratch_;
  StateBag bag_;
  std::vector<std::unique_ptr<Tensor>> tensors_;
  bool pending_ = true;
};

class OneCodecOnDevice : public CodecsOnDevice, public testing::WithParamInterface<Setting> {};

TEST_P(OneCodecOnDevice, BodiesResidualsSumsAndStatesAreTheHosts) {
  for (const auto& shape : Shapes()) Add(GetParam(), shape);
  for (const uint64_t step : {5, 6}) Step(step);
}

// Nothing says that they arrive whole, and a device does not look at them.
TEST_P(OneCodecOnDevice, WhateverABodyHoldsNothingIsWrittenOutside) {
  for (const auto& shape : Shapes()) Add(GetParam(), shape);
  for (const uint64_t seed : {1, 2}) {
    std::vector<DeviceBuffer<float>> outs;
    std::vector<DeviceBuffer<uint8_t>> bodies;
    for (const auto& t : tensors_) {
      outs.emplace_back(device_, std::vector<float>(t->numel(), 1.0f));
      const int last = t->codec().traits().rounds - 1;
      Bytes noise(static_cast<size_t>(t->codec().MaxEncodedBytes(t->host.spec, last)), 0xFF);
      const auto stream = RngStream::Of(seed, RngPurpose::kTest, 0, 0, 0);
      for (size_t i = 0; seed == 1 && i < noise.size(); ++i) {
        noise[i] = static_cast<uint8_t>(stream.At(i)[0]);
      }
      bodies.emplace_back(device_, noise);
    }
    OnDevice([&](size_t i) {  // refused where a length says so
      (void)tensors_[i]->codec().DecodeAdd(bodies[i].span(), 1.0f,
                                           tensors_[i]->DeviceContext(&scratch_), outs[i].span());
    });
    EXPECT_TRUE(queue_->Wait().ok());
  }  // what is written behind a buffer shows when it is freed
}

// Not threshold: each tensor of it waits for its count.
class MergedCodecOnDevice : public OneCodecOnDevice {};
TEST_P(MergedCodecOnDevice, ABucketOfManyTensorsTakesTheLaunchesOfOne) {
  pending_ = false;
  std::vector<Counted> launches;
  const std::vector<std::vector<std::vector<int64_t>>> buckets = {
      {{8, 8}}, {{64, 64}, {8, 8}, {32, 128}, {128, 32}}};
  for (const auto& shapes : buckets) {
    tensors_.clear();
    bag_.Clear();
    for (const auto& shape : shapes) Add(GetParam(), shape);
    launches.push_back(LaunchesOf([&] { Step(5); }));
  }
  EXPECT_EQ(launches[0], launches[1]);
}

INSTANTIATE_TEST_SUITE_P(Settings, OneCodecOnDevice, testing::ValuesIn(Settings()), SettingName);
INSTANTIATE_TEST_SUITE_P(Settings, MergedCodecOnDevice, testing::ValuesIn(FixedSettings()),
                         SettingName);

// One bucket, one scratch, all codecs: none may count on memory that another has been given.
TEST_F(CodecsOnDevice, AllOfThemShareLaunchesAndScratch) {
  for (const Setting& setting : Settings()) {
    Add(setting, {17, 33});
    Add(setting, {300});
  }
  for (const uint64_t step : {5, 6, 7}) Step(step);
}

TEST_F(CodecsOnDevice, NumbersThatAreNotFiniteAreNoted) {
  Add({"powersgd", {}}, {17, 33});
  const Tensor& t = *tensors_[0];
  Bytes body(static_cast<size_t>(t.codec().MaxEncodedBytes(t.host.spec, 1)), 0);
  StoreLE(body.data() + 40, INFINITY);
  const DeviceBuffer<uint8_t> bad(device_, body);
  const DeviceBuffer<float> out(device_, std::vector<float>(t.numel()));
  const DeviceScope scope(queue_.get());
  TW_CHECK_OK(t.codec().DecodeAdd(bad.span(), 1.0f, t.DeviceContext(&scratch_), out.span()));
  EXPECT_FALSE(queue_->TakeAllFinite());
}

// fp32 messages of parameters in 16 bits.
TEST_F(CodecsOnDevice, NoneRoundsLikeTheHost) {
  for (const DType dtype : {DType::kF16, DType::kBF16}) {
    for (const size_t n : {0, 1, 129, 4099}) {
      CodecUnderTest host("none", {static_cast<int64_t>(n)}, {}, dtype);
      std::vector<float> x = AwkwardFloats(n, n), out = RandomFloats(n, 3);
      const DeviceBuffer<float> buffer(device_, x), sum(device_, out);
      const DeviceBuffer<uint8_t> body(device_, Bytes(2 * n, 0xC7), 1);
      const Bytes want = host.Encode(x);
      TW_CHECK_OK(host.DecodeAdd(want, 0.3f, out));
      CodecContext context = host.context;
      context.scratch = &scratch_;
      {
        const DeviceScope scope(queue_.get());
        Message message{ViewOf(buffer.span()), {}, 1.0f};
        TW_CHECK_OK(host.codec->EncodeAny(0, {}, message, context, body.span()));
        TW_CHECK_OK(host.codec->DecodeAddAny(body.span(), 0.3f, context, ViewOf(sum.span())));
      }
      const std::string what = std::string(DTypeName(dtype)) + " " + std::to_string(n);
      ExpectSame(want, body.Values(), what);
      ExpectSame(x, buffer.Values(), what);
      ExpectSame(out, sum.Values(), what);
    }
  }
}

}  // namespace
}  // namespace tw
