#pragma once
// Takes parameters of one rank through encode, exchange and decode, as the engine does, for tests.

#include <algorithm>
#include <string>
#include <vector>

#include "core/api/exchange.h"
#include "core/base/device.h"
#include "core/base/frame.h"

namespace tw {

inline constexpr uint64_t kTestStep = 9;

// Parameter `id` of a test; shape fixed by the test.
inline TensorSpec TestSpec(uint32_t id, std::vector<int64_t> shape, DType dtype = DType::kF32) {
  std::string name = "w";
  name += std::to_string(id);
  return {id, std::move(name), std::move(shape), dtype};
}

// A value of either sign for (rank, parameter, element), of size about 1, some exactly zero.
inline float TestValue(int rank, uint32_t parameter, int64_t i) {
  const RngStream stream =
      RngStream::Of(1, RngPurpose::kTest, 0, parameter, static_cast<uint32_t>(rank));
  const float u = stream.Uniform(static_cast<uint64_t>(i));
  return u < 0.1f ? 0.0f : 3.0f * (u - 0.55f);
}

inline std::vector<float> TestMessage(int rank, const TensorSpec& spec) {
  std::vector<float> message;
  for (int64_t i = 0; i < spec.numel(); ++i) message.push_back(TestValue(rank, spec.id, i));
  return message;
}

// Memory of the host or of a device.
class TestMemory {
 public:
  TestMemory(DeviceMemory* memory, size_t bytes) {
    memory ? void(block_ = DeviceBlock(memory, bytes)) : host_.resize(bytes);
  }
  uint8_t* data() { return host_.empty() ? block_.data() : host_.data(); }

 private:
  std::vector<uint8_t> host_;
  DeviceBlock block_;
};

// One rank's memory between calls: the host's, or a device's, in a DeviceScope then.
class ExchangeRunner {
 public:
  explicit ExchangeRunner(Communicator& comm, DeviceMemory* memory = nullptr)
      : comm_(comm), memory_(memory), bag_(memory), scratch_(memory) {}

  CodecContext Context(const TensorSpec& spec, int rank, int size) {
    CodecContext context;
    context.spec = &spec;
    context.seed = 5;
    context.step = kTestStep;
    context.rank = rank;
    context.world_size = size;
    context.scratch = &scratch_;
    return context;
  }

  // Encodes this rank's test messages of `specs` (fp32) in one bucket and returns the means.
  StatusOr<std::vector<std::vector<float>>> Run(const std::vector<TensorSpec>& specs,
                                                const Compressor& codec, Merge merge) {
    return Run(specs, codec, FindExchange(merge));
  }
  StatusOr<std::vector<std::vector<float>>> Run(const std::vector<TensorSpec>& specs,
                                                const Compressor& codec, const Exchange* exchange) {
    if (!exchange) return BugError("no such exchange");
    const size_t count = specs.size(), header = static_cast<size_t>(exchange->header_bytes(comm_));
    std::vector<TestMemory> messages, means, buffers;
    std::vector<Segment> segments(count);
    std::vector<std::unique_ptr<StateScope>> scopes;
    for (const TensorSpec& spec : specs) {
      const std::vector<float> message = TestMessage(comm_.rank(), spec);
      messages.emplace_back(memory_, 4 * message.size());
      means.emplace_back(memory_, 4 * message.size());
      PutBytes(messages.back().data(), message.data(), 4 * message.size());
      ZeroBytes(means.back().data(), 4 * message.size());
      scopes.push_back(
          std::make_unique<StateScope>(&bag_, "codec/" + spec.name + "/", StatePlace::kTensors));
    }
    const int rounds = codec.traits().rounds;
    for (int round = 0; round < rounds; ++round) {
      size_t room = 0;
      for (const TensorSpec& spec : specs) {
        room += header + static_cast<size_t>(codec.MaxEncodedBytes(spec, round));
      }
      const MutableByteSpan buffer(buffers.emplace_back(memory_, room + 64).data(), room + 64);
      size_t at = 0;
      for (size_t s = 0; s < count; ++s) {
        Segment& segment = segments[s];
        const ByteSpan reduced = segment.body;
        segment.codec = &codec;
        segment.context = Context(specs[s], comm_.rank(), comm_.size());
        segment.context.state = scopes[s].get();
        segment.wire_id = 77;
        segment.hop = hop_feedback ? scopes[s].get() : nullptr;
        segment.mean = {means[s].data(), DType::kF32, specs[s].numel()};
        Message message{{messages[s].data(), DType::kF32, specs[s].numel()}, {}, 1.0f};
        const MutableByteSpan space =
            buffer.subspan(at + header)
                .first(static_cast<size_t>(codec.MaxEncodedBytes(specs[s], round)));
        TW_ASSIGN_OR_RETURN(const int64_t size,
                            codec.EncodeAny(round, reduced, message, segment.context, space));
        segment.body = space.first(static_cast<size_t>(size));
        at += header + static_cast<size_t>(size);
      }
      TW_RETURN_IF_ERROR(exchange->Run(segments, buffer.first(at), round, round + 1 == rounds,
                                       {kTestStep, 3, "test"}, comm_, scratch_, &times_));
    }
    std::vector<std::vector<float>> out;
    for (size_t s = 0; s < count; ++s) {
      out.emplace_back(static_cast<size_t>(specs[s].numel()));
      GetBytes(out[s].data(), means[s].data(), 4 * out[s].size());
    }
    return out;
  }

  // decode(body of `rank`) for a codec of one round, by the same context as in Run.
  StatusOr<std::vector<float>> OwnDecoded(const TensorSpec& spec, const Compressor& codec,
                                          int rank) {
    const StateScope scope(&bag_, "codec/" + spec.name + "/");
    CodecContext context = Context(spec, rank, comm_.size());
    context.state = &scope;
    std::vector<float> values = TestMessage(rank, spec);
    std::vector<uint8_t> body(static_cast<size_t>(codec.MaxEncodedBytes(spec, 0)) + 64);
    Message message{ViewOf(values), {}, 1.0f};
    TW_ASSIGN_OR_RETURN(const int64_t size, codec.EncodeAny(0, {}, message, context, body));
    std::vector<float> decoded(values.size(), 0.0f);
    TW_RETURN_IF_ERROR(codec.DecodeAddAny(ByteSpan(body).first(static_cast<size_t>(size)), 1.0f,
                                          context, ViewOf(decoded)));
    return decoded;
  }

  // The exact mean over ranks of the decoded bodies.
  StatusOr<std::vector<double>> MeanOfDecoded(const TensorSpec& spec, const Compressor& codec) {
    std::vector<double> mean(static_cast<size_t>(spec.numel()), 0.0);
    for (int r = 0; r < comm_.size(); ++r) {
      TW_ASSIGN_OR_RETURN(const std::vector<float> decoded, OwnDecoded(spec, codec, r));
      for (size_t i = 0; i < mean.size(); ++i) mean[i] += decoded[i];
    }
    for (double& x : mean) x /= comm_.size();
    return mean;
  }

  bool hop_feedback = false;  // of Run

  size_t scratch_bytes() const { return scratch_.bytes(); }
  const ExchangeTimes& times() const { return times_; }

 private:
  Communicator& comm_;
  DeviceMemory* const memory_;
  StateBag bag_;
  Workspace scratch_;
  ExchangeTimes times_;
};

}  // namespace tw
