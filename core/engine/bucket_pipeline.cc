// One bucket, read top to bottom: choose a route per parameter, compose messages, group what
// travels together, and for each group and round encode -> (absorb) -> exchange, then resolve the
// means in the gradients' own memory. Before: gradient_reducer.cc. Next: compressors/*.cc,
// comm/*.cc behind their interfaces. Nothing here knows a codec, a feedback or a transport by name.
// After the first step nothing here allocates tensor memory.
#include "core/engine/bucket_pipeline.h"

#include "core/api/convert.h"
#include "core/base/clock.h"
#include "core/base/device.h"

namespace tw {

struct BucketPipeline::Item {
  int parameter = 0;
  const ParameterPlan* plan = nullptr;
  const Route* route = nullptr;
  bool through_policy =
      false;  // false: the gradient itself is the message and the mean the estimate
  TensorView grad;
  TensorView mean;  // grad, or an fp32 stand-in where the gradient's type is too narrow to add in
  Message message;
  CodecContext codec;
  FeedbackContext feedback;
};

struct BucketPipeline::Group {
  const Exchange* exchange = nullptr;
  int rounds = 1;
  DType element = DType::kF32;
  bool in_place = false;  // gradients travel as they lie in the bucket, no copy is made
  std::vector<int> items;
  std::vector<Segment> segments;  // one an item
};

struct BucketPipeline::Flight {
  explicit Flight(DeviceMemory* memory) : scratch(memory) {}
  int bucket = 0;
  Workspace scratch;
  std::vector<Item> items;
  std::vector<Group> groups;  // the first num_groups of them are this bucket's
};

// Takes an idle flight, or a new one, and gives it back.
class BucketPipeline::Boarding {
 public:
  explicit Boarding(BucketPipeline* pipeline) : pipeline_(pipeline) {
    if (pipeline_->idle_.empty()) {
      flight_ = std::make_unique<Flight>(pipeline_->options_.memory);
    } else {
      flight_ = std::move(pipeline_->idle_.back());
      pipeline_->idle_.pop_back();
    }
  }
  ~Boarding() { pipeline_->idle_.push_back(std::move(flight_)); }
  Boarding(const Boarding&) = delete;
  Boarding& operator=(const Boarding&) = delete;
  Flight& flight() { return *flight_; }

 private:
  BucketPipeline* pipeline_;
  std::unique_ptr<Flight> flight_;
};

BucketPipeline::BucketPipeline(const Plan* plan, Communicator* comm, const PipelineOptions& options)
    : plan_(plan), comm_(comm), options_(options) {
  for (const ParameterPlan& p : plan->parameters()) {
    constexpr StatePlace kTensors = StatePlace::kTensors;
    codec_state_.emplace_back(options.state, "codec/" + p.spec.name + "/", kTensors);
    feedback_state_.emplace_back(options.state, "feedback/" + p.spec.name + "/", kTensors);
    hop_state_.emplace_back(options.state, "hop/" + p.spec.name + "/", kTensors);
    engine_state_.emplace_back(options.state, "engine/" + p.spec.name + "/");
  }
}

BucketPipeline::~BucketPipeline() = default;

int64_t BucketPipeline::scratch_bytes() const {
  size_t bytes = 0;
  for (const auto& flight : idle_) bytes += flight->scratch.bytes();
  return static_cast<int64_t>(bytes);
}

PipelineTimes BucketPipeline::TakeTimes() { return std::exchange(times_, {}); }

// Dense until start_step; the ef21 family sends its first message dense through the policy, so that
// h_0 = g(x_0). Whether that has happened is state, not step number: a skipped or resumed step does
// not lose it. A half-precision gradient starts compressed, from h = 0: its dense mean would be
// rounded to half and H would miss the mean of the h by that for ever.
const Route& BucketPipeline::ChooseRoute(int parameter, uint64_t step, bool* through_policy) {
  const ParameterPlan& p = plan_->parameters()[static_cast<size_t>(parameter)];
  *through_policy =
      !turn_.dense && p.compressed && StepOfWire(step) >= static_cast<uint64_t>(p.start_step);
  if (!*through_policy) return p.compressed ? plan_->dense() : p.route;
  const bool half = p.spec.dtype == DType::kF16 || p.spec.dtype == DType::kBF16;
  if (p.route.policy->traits().dense_first && !half) {
    const TensorView done = engine_state_[static_cast<size_t>(parameter)].Slot(
        "dense_done", {1}, DType::kU8, Reshard::kReplicated);
    auto* flag = static_cast<uint8_t*>(done.data);
    if (*flag == 0) {
      *flag = 1;
      return plan_->dense();
    }
  }
  return p.route;
}

void BucketPipeline::Compose(Item& item, uint64_t step, Workspace* scratch) {
  const size_t i = static_cast<size_t>(item.parameter);
  item.route = &ChooseRoute(item.parameter, step, &item.through_policy);
  item.codec = {};
  item.codec.spec = &item.plan->spec;
  item.codec.seed = options_.seed;
  item.codec.step = step;
  item.codec.rank = comm_->rank();
  item.codec.world_size = comm_->size();
  item.codec.state = &codec_state_[i];
  item.codec.scratch = scratch;
  item.feedback = {&item.plan->spec, item.route->codec, &feedback_state_[i], step, scratch};
  item.message = item.through_policy ? item.plan->route.policy->Compose(item.grad, item.feedback)
                                     : Message{item.grad, {}, 1.0f};
  if (observer_ && item.through_policy) observer_->OnMessage(item.parameter, item.message);
}

// Dense gradients that lie one behind the other are their own bodies, and take the mean in place.
bool BucketPipeline::InPlace(const Flight& flight, const Group& group) {
  if (group.exchange->merge() != Merge::kSum) return false;
  const uint8_t* next = nullptr;
  for (const int i : group.items) {
    const Item& item = flight.items[static_cast<size_t>(i)];
    const ByteSpan bytes = item.grad.raw();
    if (!item.route->codec->traits().lossless || item.through_policy) return false;
    if (next && bytes.data() != next) return false;
    next = bytes.data() + bytes.size();
  }
  return true;
}

MutableByteSpan BucketPipeline::BodiesInPlace(Flight& flight, Group& group) {
  size_t total = 0;
  for (size_t s = 0; s < group.items.size(); ++s) {
    Item& item = flight.items[static_cast<size_t>(group.items[s])];
    group.segments[s].body = item.grad.mutable_raw();
    group.segments[s].mean = item.mean = item.grad;
    total += group.segments[s].body.size();
  }
  times_.payload_bytes += static_cast<int64_t>(total);
  return {group.segments[0].body.data(), total};
}

size_t BucketPipeline::ComposeAll(Flight& flight, uint64_t step, std::span<const int> parameters,
                                  std::span<const TensorView> grads) {
  ScopedTimer timer(&times_.encode_ms, SpansOf(SpanKind::kEncode, flight.bucket));
  flight.items.resize(parameters.size());
  size_t num_groups = 0;
  Together together;
  for (size_t i = 0; i < parameters.size(); ++i) {
    together.Next();
    Item& item = flight.items[i];
    item.parameter = parameters[i];
    item.plan = &plan_->parameters()[static_cast<size_t>(parameters[i])];
    item.grad = grads[i];
    Compose(item, step, &flight.scratch);

    const CompressorTraits& traits = item.route->codec->traits();
    const DType element = traits.lossless ? item.plan->spec.dtype : traits.sum_dtype;
    size_t g = 0;
    while (g < num_groups &&
           !(flight.groups[g].exchange == item.route->exchange &&
             flight.groups[g].rounds == traits.rounds && flight.groups[g].element == element)) {
      ++g;
    }
    if (g == num_groups) {
      if (flight.groups.size() == num_groups) flight.groups.emplace_back();
      flight.groups[g].exchange = item.route->exchange;
      flight.groups[g].rounds = traits.rounds;
      flight.groups[g].element = element;
      flight.groups[g].items.clear();
      ++num_groups;
    }
    flight.groups[g].items.push_back(static_cast<int>(i));
  }
  for (size_t g = 0; g < num_groups; ++g)
    flight.groups[g].in_place = !turn_.sent && InPlace(flight, flight.groups[g]);
  return num_groups;
}

Async BucketPipeline::Start(int bucket, uint64_t step, std::span<const int> parameters,
                            std::span<const TensorView> grads) {
  Boarding boarding(this);
  Flight& flight = boarding.flight();
  flight.bucket = bucket;
  const size_t num_groups = ComposeAll(flight, step, parameters, grads);
  for (size_t g = 0; g < num_groups; ++g) {
    TW_CO_RETURN_IF_ERROR(
        co_await RunGroup(flight, flight.groups[g], {StepOfWire(step), bucket, "exchange"}));
  }
  co_return OkStatus();
}

// Encodes one round of a group into scratch, headers' room included; on the last round the feedback
// takes its share while the own bodies are still there (a sum overwrites them).
Status BucketPipeline::EncodeRound(Flight& flight, Group& group, int round, MutableByteSpan* send) {
  ScopedTimer timer(&times_.encode_ms, SpansOf(SpanKind::kEncode, flight.bucket));
  const int64_t header = group.exchange->header_bytes(*comm_);
  int64_t capacity = 0;
  for (int i : group.items) {
    const Item& item = flight.items[static_cast<size_t>(i)];
    capacity += header + item.route->codec->MaxEncodedBytes(item.plan->spec, round);
  }
  // The sums of round r-1 are read while round r is written: odd and even rounds have their own
  // buffer.
  uint8_t* base =
      flight.scratch.Get<uint8_t>(kScratchSend0 + round % 2, static_cast<size_t>(capacity)).data();
  int64_t at = 0;
  const bool last = round + 1 == group.rounds;
  Together together;
  for (size_t s = 0; s < group.items.size(); ++s) {
    together.Next();
    Item& item = flight.items[static_cast<size_t>(group.items[s])];
    Segment& segment = group.segments[s];
    const Compressor& codec = *item.route->codec;
    at += header;
    const MutableByteSpan room(base + at, static_cast<size_t>(capacity - at));
    const ByteSpan reduced = round == 0 ? ByteSpan() : ByteSpan(segment.body);
    TW_ASSIGN_OR_RETURN(const int64_t size,
                        codec.EncodeAny(round, reduced, item.message, item.codec, room));
    segment.body = room.first(static_cast<size_t>(size));
    at += size;
    times_.payload_bytes += size;
    if (!last) continue;
    const auto own = [&](float scale, TensorView out) {
      return codec.DecodeAddAny(segment.body, scale, item.codec, out);
    };
    if (item.through_policy) {
      TW_RETURN_IF_ERROR(item.plan->route.policy->Absorb(own, item.message.buffer, item.feedback));
    }
    if (turn_.sent) TW_RETURN_IF_ERROR((*turn_.sent)(static_cast<size_t>(item.parameter), own));
  }
  *send = {base, static_cast<size_t>(at)};
  return OkStatus();
}

// Every gradient has been read: its memory, or a stand-in of a wider type, takes the mean.
void BucketPipeline::PointMeansAtGradients(Flight& flight, Group& group) {
  const auto direct = [&](const Item& item) {
    return item.route->codec->traits().lossless || item.grad.dtype == DType::kF32 ||
           item.grad.dtype == DType::kF64;
  };
  int64_t narrow = 0;
  for (const int i : group.items) {
    const Item& item = flight.items[static_cast<size_t>(i)];
    if (!direct(item)) narrow += item.grad.numel;
  }
  float* stand_in = flight.scratch.Get<float>(kScratchMean, static_cast<size_t>(narrow)).data();
  Together together;
  for (size_t s = 0; s < group.items.size(); ++s) {
    together.Next();
    Item& item = flight.items[static_cast<size_t>(group.items[s])];
    item.mean = item.grad;
    if (!direct(item)) {
      item.mean = {stand_in, DType::kF32, item.grad.numel};
      stand_in += item.grad.numel;
    }
    FillZero(item.mean);
    group.segments[s].mean = item.mean;
  }
}

Async BucketPipeline::RunGroup(Flight& flight, Group& group, OpTag tag) {
  group.segments.resize(group.items.size());
  for (size_t s = 0; s < group.items.size(); ++s) {
    Item& item = flight.items[static_cast<size_t>(group.items[s])];
    group.segments[s] = {item.route->codec, item.codec, item.route->wire_id, {}, {}};
    if (item.route->hop_feedback) {
      group.segments[s].hop = &hop_state_[static_cast<size_t>(item.parameter)];
    }
  }
  for (int round = 0; round < group.rounds; ++round) {
    const bool last = round + 1 == group.rounds;
    MutableByteSpan send;
    if (group.in_place) {
      send = BodiesInPlace(flight, group);
    } else {
      TW_CO_RETURN_IF_ERROR(EncodeRound(flight, group, round, &send));
      if (last) PointMeansAtGradients(flight, group);
    }
    ExchangeTimes times = {{0, SpansOf(SpanKind::kWire, flight.bucket)},
                           {0, SpansOf(SpanKind::kDecode, flight.bucket)}};
    TW_CO_RETURN_IF_ERROR(co_await group.exchange->Start(
        {group.segments, send, round, last, tag, comm_, &flight.scratch, &times}));
    times_.exchange_ms += times.exchange_ms;
    times_.decode_ms += times.decode_ms;
  }
  ScopedTimer timer(&times_.decode_ms, SpansOf(SpanKind::kDecode, flight.bucket));
  Together together;
  for (const int i : group.items) {
    together.Next();
    Item& item = flight.items[static_cast<size_t>(i)];
    if (item.through_policy) item.plan->route.policy->Resolve(item.mean, item.feedback);
    if (item.mean.data != item.grad.data) ConvertFromFp32(item.mean.f32(), item.grad);
    if (observer_) observer_->OnEstimate(item.parameter, item.grad);
  }
  co_return OkStatus();
}

}  // namespace tw
