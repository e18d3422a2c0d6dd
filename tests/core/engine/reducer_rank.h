#pragma once
// One rank of a gradient reducer under test: a small model with a tied embedding, plan, lane, state
// and reducer. Ranks are threads of a thread group; backward runs on the rank's own thread.

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/tanh.h>
#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "core/base/hash.h"
#include "core/base/rng.h"
#include "core/engine/gradient_reducer.h"
#include "tests/comm/thread_group.h"
#include "tests/core/engine/engine_parts.h"

namespace tw {

// Uniform in [-scale, scale), a pure function of `stream`.
inline at::Tensor Numbers(std::vector<int64_t> shape, uint64_t stream, double scale) {
  at::Tensor out = at::empty(shape);
  const RngStream rng = RngStream::Of(11, RngPurpose::kTest, stream, 0, 0);
  float* p = out.data_ptr<float>();
  for (int64_t i = 0; i < out.numel(); ++i) {
    p[i] = static_cast<float>((rng.Uniform(static_cast<uint64_t>(i)) * 2 - 1) * scale);
  }
  return out;
}

struct TiedModel {
  at::Tensor tok = Parameter({24, 16}, 1), w1 = Parameter({48, 16}, 2), b1 = Parameter({48}, 3),
             w2 = Parameter({16, 48}, 4), spare = Parameter({12, 12}, 5);

  static at::Tensor Parameter(std::vector<int64_t> shape, uint64_t stream) {
    return Numbers(std::move(shape), stream, 0.3).requires_grad_();
  }
  // Registration order: tok's gradient is complete last, and tok is in the last bucket.
  GradientReducer::NamedTensors parameters() const {
    return {{"tok", tok}, {"w1", w1}, {"b1", b1}, {"spare", spare}, {"w2", w2}};
  }
  // `spare` stays out of the graph.
  at::Tensor Loss(int rank, uint64_t step) const {
    const uint64_t batch = 100 + step * 16 + static_cast<uint64_t>(rank);
    const at::Tensor ids = ((Numbers({20}, batch, 1.0) + 1) * 12).to(at::kLong).clamp(0, 23);
    const at::Tensor x = at::embedding(tok, ids);
    const at::Tensor h = at::linear(at::tanh(at::linear(x, w1, b1)), w2);
    return at::cross_entropy_loss(at::linear(h, tok), ids.roll(1));
  }
};

struct ReducerSetup {
  std::string compressor = "none";
  std::string feedback = "none";
  Keys keys;
  int64_t bucket_cap_bytes = 1;  // every parameter a bucket of its own
  bool overlap = true;
  int64_t min_numel = 100;
};

// A device that takes the reducer's work; `comm` of the rank carries its memory then. `catch_up`
// waits for it, so that this side may touch tensors and states.
struct RankDevice {
  RunDevice device;
  std::function<void()> catch_up;
};

class ReducerRank {
 public:
  // `parameters` instead of the model's, when given; Reduce is not for them.
  ReducerRank(Communicator& comm, const ReducerSetup& setup,
              GradientReducer::NamedTensors parameters = {}, const RankDevice& on = {})
      : parameters(parameters.empty() ? model.parameters() : std::move(parameters)),
        bag(on.device.memory),
        comm_(comm),
        on_(on) {
    at::set_num_threads(1);
    lane_.UseDevice(on.device.lane);
    PlanOptions options = routes_.Options(comm.size());
    PlanRule rule;
    rule.route = routes_.Make(setup.compressor, setup.feedback, setup.keys);
    rule.min_numel = setup.min_numel;
    options.rules = {rule};
    auto plan = Plan::Build(SpecsOf(this->parameters), options);
    TW_CHECK_OK(plan);
    plan_ = std::make_unique<Plan>(std::move(plan).value());
    reducer =
        std::make_unique<GradientReducer>(this->parameters, plan_.get(), &comm, &lane_, &bag,
                                          ReducerOptions{.bucket_cap_bytes = setup.bucket_cap_bytes,
                                                         .overlap = setup.overlap,
                                                         .seed = 5,
                                                         .device = on.device});
  }

  // One step up to the gradients; `poison` (may be undefined) gets an infinite gradient.
  ReduceOutcome Reduce(uint64_t step, const at::Tensor& poison = {}) {
    reducer->ZeroGradients();
    CatchUp();
    at::Tensor loss = model.Loss(comm_.rank(), step);
    if (poison.defined()) {
      loss = loss + poison.flatten()[3] * std::numeric_limits<float>::infinity();
    }
    reducer->Arm(step);
    loss.backward();
    return Finish();
  }
  ReduceOutcome Finish() {
    double sums[] = {1.0};
    auto outcome = reducer->Finish(sums);
    TW_CHECK_OK(outcome);
    CatchUp();
    EXPECT_EQ(sums[0], comm_.size());
    return *outcome;
  }
  void Descend() {
    at::NoGradGuard no_grad;
    for (const auto& [name, parameter] : parameters) {
      parameter.sub_(parameter.grad(), 0.5);
    }
  }
  uint64_t ParametersBits() const { return Bits(false); }
  uint64_t GradientBits() const { return Bits(true); }
  // Everything the step leaves behind besides parameters.
  std::map<std::string, std::vector<uint8_t>> State() const {
    std::map<std::string, std::vector<uint8_t>> out;
    bag.ForEach([&](const std::string& name, const StateSlot& slot) {
      std::vector<uint8_t>& bytes = out[name];
      bytes.resize(static_cast<size_t>(slot.view.bytes()));
      const DeviceScope scope(slot.on_device ? on_.device.training : nullptr);
      GetBytes(bytes.data(), slot.view.data, bytes.size());
    });
    return out;
  }

  TiedModel model;
  GradientReducer::NamedTensors parameters;
  StateBag bag;
  std::unique_ptr<GradientReducer> reducer;

 private:
  uint64_t Bits(bool gradients) const {
    Hasher hasher;
    for (const ParameterView& view : reducer->views()) {
      hasher.Add((gradients ? view.grad : view.value).raw());
    }
    return hasher.digest();
  }

  void CatchUp() const {
    if (on_.catch_up) on_.catch_up();
  }

  Communicator& comm_;
  const RankDevice on_;
  RouteMaker routes_;
  std::unique_ptr<Plan> plan_;
  Lane lane_;
};

}  // namespace tw
