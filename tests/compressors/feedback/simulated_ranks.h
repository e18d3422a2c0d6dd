#pragma once
// Several ranks around one feedback policy and one codec, one parameter, no communicator: every
// rank composes, encodes and absorbs, the bodies are decoded in rank order as an all-gather would
// deliver them, every rank resolves. Gradients and results are passed as fp64 whatever the
// parameter's type.

#include <cmath>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "core/api/convert.h"
#include "core/api/feedback.h"
#include "gtest/gtest.h"

namespace tw::feedback_sim {

using Vector = std::vector<double>;
using Keys = std::vector<std::pair<std::string, FieldValue>>;

template <class Interface>
StatusOr<std::unique_ptr<Interface>> TryMake(const std::string& name, const Keys& keys = {}) {
  ConfigSection section;
  section.Set("name", name);
  for (const auto& [key, value] : keys) section.Set(key, value);
  return Registry<Interface>::Get().Make(section, name);
}

template <class Interface>
std::unique_ptr<Interface> Make(const std::string& name, const Keys& keys = {}) {
  auto made = TryMake<Interface>(name, keys);
  TW_CHECK_OK(made);
  return std::move(made).value();
}

inline Vector ToVector(TensorView view) {
  Vector out(static_cast<size_t>(view.numel), 0.0);
  AddScaled({out.data(), DType::kF64, view.numel}, view, 1.0f);
  return out;
}

inline void Assign(TensorView view, const Vector& values) {
  Vector copy = values;
  FillZero(view);
  AddScaled(view, {copy.data(), DType::kF64, view.numel}, 1.0f);
}

// Owns the storage of a tensor of any floating type.
struct Tensor {
  std::vector<uint8_t> bytes;
  TensorView view;
  Tensor(int64_t numel, DType dtype) : bytes(static_cast<size_t>(numel * DTypeBytes(dtype))) {
    view = {bytes.data(), dtype, numel};
  }
};

inline Vector MeanOf(const std::vector<Vector>& vectors) {
  Vector mean(vectors.at(0).size(), 0.0);
  for (const Vector& v : vectors) {
    for (size_t i = 0; i < v.size(); ++i) mean[i] += v[i] / static_cast<double>(vectors.size());
  }
  return mean;
}

inline double Norm(const Vector& v) {
  double sum = 0;
  for (double x : v) sum += x * x;
  return std::sqrt(sum);
}

inline double Distance(const Vector& a, const Vector& b) {
  Vector difference = a;
  for (size_t i = 0; i < b.size(); ++i) difference[i] -= b[i];
  return Norm(difference);
}

class SimulatedRanks {
 public:
  SimulatedRanks(const FeedbackPolicy* policy, const Compressor* codec, TensorSpec spec, int n)
      : policy_(policy), codec_(codec), dense_(Make<Compressor>("none")), spec_(std::move(spec)) {
    for (int r = 0; r < n; ++r) {
      bags_.push_back(std::make_unique<StateBag>());
      scratch_.push_back(std::make_unique<Workspace>());
    }
  }

  int size() const { return static_cast<int>(bags_.size()); }
  StateBag& bag(int rank) { return *bags_[static_cast<size_t>(rank)]; }
  bool has(const char* slot) { return bag(0).Find(SlotName(slot)) != nullptr; }
  TensorView slot(int rank, const char* slot) {
    const StateSlot* found = bag(rank).Find(SlotName(slot));
    TW_CHECK(found != nullptr);
    return found->view;
  }
  Vector state(int rank, const char* name) { return ToVector(slot(rank, name)); }
  Vector mean_state(const char* name) {
    std::vector<Vector> all;
    for (int r = 0; r < size(); ++r) all.push_back(state(r, name));
    return MeanOf(all);
  }
  const TensorSpec& spec() const { return spec_; }
  std::string SlotName(const char* slot) const { return "feedback/" + spec_.name + "/" + slot; }
  uint64_t step() const { return step_; }

  // The gradient estimate of one step; it is the same on every rank bit for bit, or the test fails.
  Vector Step(const std::vector<Vector>& grads) {
    const bool dense = policy_->traits().dense_first && !dense_done_;
    dense_done_ = true;
    const Compressor& codec = dense ? *dense_ : *codec_;
    std::vector<std::vector<uint8_t>> bodies;
    decoded_.clear();
    for (int r = 0; r < size(); ++r)
      bodies.push_back(Send(codec, r, grads.at(static_cast<size_t>(r))));
    Tensor first(spec_.numel(), MeanDType());
    for (int r = 0; r < size(); ++r) {
      Tensor mean(spec_.numel(), MeanDType());
      Scopes scopes(*this, r);
      for (const auto& body : bodies) {
        TW_CHECK_OK(codec.DecodeAddAny(body, 1.0f / static_cast<float>(size()),
                                       scopes.codec_context, mean.view));
      }
      scopes.feedback_context.compressor = &codec;
      policy_->Resolve(mean.view, scopes.feedback_context);
      if (r == 0) {
        first = std::move(mean);
      } else {
        EXPECT_EQ(first.bytes, mean.bytes) << "rank " << r << " sees another gradient";
      }
    }
    ++step_;
    return ToVector(first.view);
  }

  // What every rank's body of the last step decodes to.
  const std::vector<Vector>& decoded() const { return decoded_; }
  // The buffer that rank 0 encoded in the last step.
  const void* message_data() const { return message_data_; }

 private:
  struct Scopes {
    StateScope codec_state, feedback_state;
    CodecContext codec_context;
    FeedbackContext feedback_context;
    Scopes(SimulatedRanks& sim, int rank)
        : codec_state(&sim.bag(rank), "codec/" + sim.spec_.name + "/"),
          feedback_state(&sim.bag(rank), "feedback/" + sim.spec_.name + "/") {
      codec_context.spec = &sim.spec_;
      codec_context.seed = 7;
      codec_context.step = sim.step_;
      codec_context.rank = rank;
      codec_context.world_size = sim.size();
      codec_context.state = &codec_state;
      codec_context.scratch = sim.scratch_[static_cast<size_t>(rank)].get();
      feedback_context = {&sim.spec_, nullptr, &feedback_state, sim.step_, codec_context.scratch};
    }
  };

  DType MeanDType() const { return spec_.dtype == DType::kF64 ? DType::kF64 : DType::kF32; }

  std::vector<uint8_t> Send(const Compressor& codec, int rank, const Vector& gradient) {
    TW_CHECK_EQ(codec.traits().rounds, 1);
    Scopes scopes(*this, rank);
    scopes.feedback_context.compressor = &codec;
    Tensor grad(spec_.numel(), spec_.dtype);
    Assign(grad.view, gradient);
    Message message = policy_->Compose(grad.view, scopes.feedback_context);
    const TensorView buffer = message.buffer;
    if (rank == 0) message_data_ = buffer.data;
    std::vector<uint8_t> body(static_cast<size_t>(codec.MaxEncodedBytes(spec_, 0)));
    const auto size = codec.EncodeAny(0, {}, message, scopes.codec_context, body);
    TW_CHECK_OK(size);
    body.resize(static_cast<size_t>(*size));
    const auto own = [&](float scale, TensorView out) {
      return codec.DecodeAddAny(body, scale, scopes.codec_context, out);
    };
    TW_CHECK_OK(policy_->Absorb(own, buffer, scopes.feedback_context));
    Vector decoded(static_cast<size_t>(spec_.numel()), 0.0);
    TW_CHECK_OK(own(1.0f, {decoded.data(), DType::kF64, spec_.numel()}));
    decoded_.push_back(std::move(decoded));
    return body;
  }

  const FeedbackPolicy* policy_;
  const Compressor* codec_;
  std::unique_ptr<Compressor> dense_;
  TensorSpec spec_;
  std::vector<std::unique_ptr<StateBag>> bags_;
  std::vector<std::unique_ptr<Workspace>> scratch_;
  std::vector<Vector> decoded_;
  const void* message_data_ = nullptr;
  uint64_t step_ = 0;
  bool dense_done_ = false;
};

// Gradients without any structure: uniform in [-1, 1], exactly representable in bf16 so that every
// dtype sees the same ones.
inline std::vector<Vector> RandomGradients(int ranks, int64_t numel, uint64_t step) {
  std::vector<Vector> grads;
  for (int r = 0; r < ranks; ++r) {
    const RngStream rng = RngStream::Of(3, RngPurpose::kTest, step, 0, static_cast<uint32_t>(r));
    Vector g(static_cast<size_t>(numel));
    for (size_t i = 0; i < g.size(); ++i) {
      g[i] = static_cast<double>(static_cast<int>(rng.Below(i, 129)) - 64) / 64.0;
    }
    grads.push_back(std::move(g));
  }
  return grads;
}

inline TensorSpec SpecOf(int64_t numel, DType dtype = DType::kF32) {
  return {.id = 0, .name = "w", .shape = {numel}, .dtype = dtype};
}

}  // namespace tw::feedback_sim
