#include "core/engine/fleet/fleet.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "core/api/convert.h"
#include "core/base/normal.h"
#include "core/engine/bucket_pipeline.h"
#include "examples/convergence/problems/quadratics.h"
#include "tests/comm/thread_group.h"
#include "tests/core/engine/engine_parts.h"

namespace tw {
namespace {

using Bytes = std::vector<uint8_t>;

Bytes BytesOf(std::span<const TensorView> views) {
  Bytes out;
  for (const TensorView& v : views) out.insert(out.end(), v.raw().begin(), v.raw().end());
  return out;
}

// fp32 parameters of awkward shapes; client c pulls towards its own point, with noise.
class Shapes : public Problem {
 public:
  explicit Shapes(int clients) : clients_(clients) {
    specs_ = {{0, "matrix", {7, 9}, DType::kF32},
              {1, "vector", {33}, DType::kF32},
              {2, "single", {1}, DType::kF32}};
  }
  int num_clients() const override { return clients_; }
  std::span<const TensorSpec> parameters() const override { return specs_; }
  void Start(std::span<const TensorView> x) override {
    for (const TensorView& v : x) {
      for (float& value : v.f32()) value = 0.25f;
    }
  }
  StatusOr<double> Gradient(const GradientCall& call, std::span<const TensorView> x,
                            std::span<const TensorView> out) override {
    for (size_t p = 0; p < x.size(); ++p) {
      std::vector<double> noise(static_cast<size_t>(x[p].numel));
      AddNormal(call.noise(static_cast<uint32_t>(p)), 1.0, noise);
      for (size_t i = 0; i < noise.size(); ++i) {
        const float target = static_cast<float>(call.client + 1) * 0.1f;
        out[p].f32()[i] = x[p].f32()[i] - target + static_cast<float>(noise[i]);
      }
    }
    if (call.client == bad_client && call.step == bad_step) {
      out[0].f32()[3] = std::numeric_limits<float>::quiet_NaN();
    }
    return 1.0 + call.client;
  }
  std::vector<std::string> metrics() const override { return {}; }
  Status Measure(std::span<const TensorView>, std::span<double>) override { return OkStatus(); }

  int bad_client = -1;
  uint64_t bad_step = 0;

 private:
  int clients_;
  std::vector<TensorSpec> specs_;
};

using Fields = std::vector<std::pair<std::string, FieldValue>>;

struct Method {
  std::string compressor = "none";
  Fields compressor_fields;
  std::string feedback = "none";
  Fields feedback_fields;
};

// The objects of one fleet on one rank.
struct Rank {
  std::unique_ptr<Compressor> none, codec;
  std::unique_ptr<FeedbackPolicy> no_policy, policy;
  std::unique_ptr<Optimizer> optimizer = MakeVariant<Optimizer>("sgdm", {{"momentum", 0.0}});
  std::unique_ptr<Schedule> schedule = MakeVariant<Schedule>("constant");
  std::unique_ptr<Strategy> strategy;
  StatusOr<Plan> plan = Status(absl::StatusCode::kUnknown, "");
  std::unique_ptr<Fleet> fleet;

  Rank(const Method& method, Problem& problem, Communicator& comm, const FleetOptions& options = {},
       std::unique_ptr<Strategy> own_strategy = nullptr) {
    strategy = own_strategy ? std::move(own_strategy) : MakeVariant<Strategy>("sync");
    none = MakeVariant<Compressor>("none");
    codec = MakeVariant<Compressor>(method.compressor, method.compressor_fields);
    no_policy = MakeVariant<FeedbackPolicy>("none");
    policy = MakeVariant<FeedbackPolicy>(method.feedback, method.feedback_fields);
    PlanOptions plan_options;
    plan_options.world_size = problem.num_clients();
    plan_options.exchanges = {FindExchange(Merge::kSum), FindExchange(Merge::kGather)};
    plan_options.dense = {.compressor = "none",
                          .feedback = "none",
                          .codec = none.get(),
                          .policy = no_policy.get(),
                          .exchange = FindExchange(Merge::kSum)};
    PlanRule rule;
    rule.route = {.compressor = method.compressor,
                  .feedback = method.feedback,
                  .codec = codec.get(),
                  .wire_id = Registry<Compressor>::Get().Find(method.compressor)->wire_id,
                  .policy = policy.get()};
    rule.min_numel = 0;
    plan_options.rules = {rule};
    plan = Plan::Build({problem.parameters().begin(), problem.parameters().end()}, plan_options);
    if (!plan.ok()) return;
    auto made = Fleet::Create({&problem, &*plan, nullptr, optimizer.get(), schedule.get(),
                               strategy.get(), &comm, nullptr},
                              options);
    TW_CHECK_OK(made);
    fleet = std::move(*made);
  }
};

FleetOptions Options(int64_t steps = 5, double lr = 0.1) { return {steps, lr, 0, 7}; }

// Where n clients on r ranks end; the same on all ranks, or it fails.
template <class P>
Bytes EndOf(const Method& method, int ranks, const std::function<P()>& make,
            const FleetOptions& options) {
  std::vector<Bytes> ends(static_cast<size_t>(ranks));
  RunRanks(ranks, [&](Communicator& comm) {
    P problem = make();
    Rank rank(method, problem, comm, options);
    TW_CHECK_OK(rank.plan);
    while (rank.fleet->steps_done() < options.steps) TW_CHECK_OK(rank.fleet->Step());
    ends[static_cast<size_t>(comm.rank())] = BytesOf(rank.fleet->x());
  });
  for (const Bytes& end : ends) EXPECT_EQ(end, ends[0]);
  return ends[0];
}

// The same clients as ranks that train: their gradients go through BucketPipeline.
Bytes EndOfPipeline(const Method& method, int ranks, const FleetOptions& options) {
  Bytes end;
  RunRanks(ranks, [&](Communicator& comm) {
    Shapes problem(ranks);
    Rank rank(method, problem, comm, options);
    StateBag state;
    BucketPipeline pipeline(&*rank.plan, &comm, {options.seed, &state});
    std::vector<std::vector<float>> x, g;
    std::vector<ParameterView> views;
    std::vector<TensorView> values, grads;
    std::vector<int> ids;
    for (const TensorSpec& spec : problem.parameters()) {
      x.emplace_back(static_cast<size_t>(spec.numel()));
      g.emplace_back(static_cast<size_t>(spec.numel()));
    }
    for (size_t p = 0; p < x.size(); ++p) {
      values.push_back(ViewOf(x[p]));
      grads.push_back(ViewOf(g[p]));
      views.push_back({&problem.parameters()[p], values[p], grads[p]});
      ids.push_back(static_cast<int>(p));
    }
    problem.Start(values);
    for (int64_t step = 0; step < options.steps; ++step) {
      const GradientCall call{comm.rank(), static_cast<uint64_t>(step), 0, options.seed};
      TW_CHECK_OK(problem.Gradient(call, values, grads));
      TW_CHECK_OK(RunBlocking(pipeline.Start(0, static_cast<uint64_t>(step), ids, grads)));
      TW_CHECK_OK(rank.optimizer->Step(views, {options.lr, 1.0f, step + 1, &state}));
    }
    if (comm.rank() == 0) end = BytesOf(values);
  });
  return end;
}

bool CanRun(const Method& method) {
  bool ok = false;
  RunRanks(1, [&](Communicator& comm) {
    Shapes problem(1);
    ok = Rank(method, problem, comm).plan.ok();
  });
  return ok;
}

TEST(Fleet, GivesTheBitsOfRanksThatTrainForEveryCompressorAndFeedback) {
  int pairs = 0;
  for (const std::string& compressor : Registry<Compressor>::Get().names()) {
    for (const std::string& feedback : Registry<FeedbackPolicy>::Get().names()) {
      Method method{compressor, {}, feedback, {}};
      if (compressor == "topk" || compressor == "randk") {
        method.compressor_fields = {{"ratio", 0.2}};
      } else if (compressor == "powersgd") {
        method.compressor_fields = {{"rank", int64_t{2}}};
      }
      if (!CanRun(method)) continue;
      ++pairs;
      for (const int n : {2, 3}) {
        const Bytes trained = EndOfPipeline(method, n, Options());
        const auto make = std::function<Shapes()>([&] { return Shapes(n); });
        EXPECT_EQ(EndOf(method, 1, make, Options()), trained)
            << compressor << " " << feedback << ", " << n << " clients on 1 rank";
        EXPECT_EQ(EndOf(method, n, make, Options()), trained)
            << compressor << " " << feedback << ", " << n << " clients on " << n << " ranks";
      }
    }
  }
  EXPECT_GT(pairs, 60);
}

TEST(Fleet, CurvesAreTheSameBitsOnAnyNumberOfRanks) {
  const auto make = std::function<Quadratics()>(
      [] { return Quadratics({.num_clients = 10, .dimension = 50, .sigma = 1}); });
  for (const Method& method :
       {Method{"topk", {{"ratio", 0.1}}, "econtrol", {}}, Method{"qsgd", {}, "diana", {}},
        Method{"fp16", {}, "none", {}}, Method{}}) {
    const Bytes one = EndOf(method, 1, make, Options(20, 0.05));
    for (const int ranks : {2, 3, 4}) {
      EXPECT_EQ(EndOf(method, ranks, make, Options(20, 0.05)), one)
          << method.compressor << " on " << ranks;
    }
  }
}

TEST(Fleet, CodecsOfMoreRoundsHoldTheirMessages) {
  const Method method{"powersgd", {{"rank", int64_t{2}}}, "ef14", {}};
  const auto make = std::function<Shapes()>([] { return Shapes(5); });
  const Bytes one = EndOf(method, 1, make, Options());
  for (const int ranks : {2, 4}) EXPECT_EQ(EndOf(method, ranks, make, Options()), one);
}

double Distance(const Bytes& a, const Bytes& b) {
  const size_t n = a.size() / sizeof(double);
  double worst = 0;
  for (size_t i = 0; i < n; ++i) {
    double x, y;
    std::memcpy(&x, a.data() + i * 8, 8);
    std::memcpy(&y, b.data() + i * 8, 8);
    worst = std::max(worst, std::abs(x - y));
  }
  return worst;
}

TEST(Fleet, EControlHasItsNeighbours) {
  const auto make = std::function<Quadratics()>([] { return Quadratics({.sigma = 1}); });
  const auto end = [&](const Method& m) { return EndOf(m, 1, make, Options(50, 0.05)); };
  EXPECT_EQ(end({"topk", {{"ratio", 0.1}}, "econtrol", {{"eta", std::string("0")}}}),
            end({"topk", {{"ratio", 0.1}}, "ef21", {}}));
  // Lossless: e stays 0 and h is the gradient, up to rounding of h + (g - h).
  EXPECT_LT(Distance(end({"none", {}, "econtrol", {{"eta", std::string("0.1")}}}), end({})), 1e-12);
}

double MeanError(const Fleet& fleet, const Problem& problem) {
  double worst = 0;
  int compressed = 0;
  StateBag& state = const_cast<Fleet&>(fleet).state();
  for (const TensorSpec& spec : problem.parameters()) {
    const StateSlot* mean = state.Find("feedback/" + spec.name + "/H");
    if (!mean) continue;  // too small to be compressed: it travels dense, without a policy
    ++compressed;
    for (int64_t i = 0; i < spec.numel(); ++i) {
      double sum = 0;
      for (int c = 0; c < problem.num_clients(); ++c) {
        const StateSlot* h =
            state.Find("client/" + std::to_string(c) + "/feedback/" + spec.name + "/h");
        if (h) sum += h->view.f32()[static_cast<size_t>(i)];
      }
      const double error = sum / problem.num_clients() - mean->view.f32()[static_cast<size_t>(i)];
      worst = std::max(worst, std::abs(error));
    }
  }
  EXPECT_GT(compressed, 0);
  return worst;
}

// Client 2's gradient is not finite in one step, the first (dense) or a later one.
TEST(Fleet, AClientThatDropsOutKeepsHTheMeanOfAllH) {
  for (const uint64_t bad_step : {0, 3}) {
    RunRanks(1, [&](Communicator& comm) {
      Shapes problem(5);
      problem.bad_client = 2;
      problem.bad_step = bad_step;
      Rank rank({"topk", {{"ratio", 0.2}}, "ef21", {}}, problem, comm, Options(8));
      for (int step = 0; step < 8; ++step) {
        TW_CHECK_OK(rank.fleet->Step());
        EXPECT_LT(MeanError(*rank.fleet, problem), 2e-6) << "step " << step;
      }
      EXPECT_EQ(rank.fleet->traffic().messages, 8 * 5 - 1);
    });
  }
}

// What a scaffold-like strategy does: c_i follows what was sent, c the mean of it.
class Controls : public Strategy {
 public:
  StatusOr<StepResult> Step(StepMachine& machine) const override {
    const auto views = machine.parameters();
    std::vector<int> sample;
    for (int c = 0; c < machine.num_clients(); ++c) {
      if ((machine.step() + c) % 3 != 0) sample.push_back(c);
    }
    TurnsCall call;
    call.clients = sample;
    call.moves = true;
    call.work = [&](Client& client) -> StatusOr<bool> {
      for (int64_t k = 0; k < 2; ++k) {
        TW_RETURN_IF_ERROR(client.ComputeGradients(k).status());
        for (const ParameterView& p : client.parameters()) AddScaled(p.value, p.grad, -0.1f);
      }
      for (size_t p = 0; p < views.size(); ++p) {
        const ParameterView& own = client.parameters()[p];
        FillZero(own.grad);
        AddScaled(own.grad, views[p].value, 5.0f);
        AddScaled(own.grad, own.value, -5.0f);
        AddScaled(own.grad, client.Slot("c", p), -1.0f);
        AddScaled(client.Slot("seen", p), own.value, 1.0f);
      }
      return true;
    };
    call.sent = [&](Client& client, size_t p, OwnDecoder own) {
      return own(1.0f, client.Slot("c", p));
    };
    TW_ASSIGN_OR_RETURN(const TurnsResult turn, machine.Turns(call));
    for (size_t p = 0; p < views.size(); ++p) {
      const float share = static_cast<float>(turn.arrived) / machine.num_clients();
      AddScaled(machine.Slot("c", p), views[p].grad, share);
      AddScaled(views[p].value, views[p].grad, -0.1f);
    }
    return StepResult{.loss = turn.loss};
  }
};

TEST(Fleet, SampledClientsMayMoveAndDropOutAndOnlyThoseThatArriveChange) {
  std::vector<Bytes> ends;
  for (const int ranks : {1, 2, 4}) {
    std::vector<Bytes> end(static_cast<size_t>(ranks));
    RunRanks(ranks, [&](Communicator& comm) {
      Shapes problem(6);
      problem.bad_client = 4;
      problem.bad_step = 4;
      Rank rank({"topk", {{"ratio", 0.2}}, "none", {}}, problem, comm, Options(9),
                std::make_unique<Controls>());
      for (int step = 0; step < 9; ++step) TW_CHECK_OK(rank.fleet->Step());
      end[static_cast<size_t>(comm.rank())] = BytesOf(rank.fleet->x());
      if (comm.size() > 1) return;
      StateBag& state = rank.fleet->state();
      for (const TensorSpec& spec : problem.parameters()) {
        const StateSlot* c = state.Find("strategy/" + spec.name + "/c");
        for (size_t i = 0; i < static_cast<size_t>(spec.numel()); ++i) {
          double sum = 0;
          for (int id = 0; id < 6; ++id) {
            const std::string own = "client/" + std::to_string(id) + "/strategy/" + spec.name;
            sum += state.Find(own + "/c")->view.f32()[i];
            EXPECT_TRUE(std::isfinite(state.Find(own + "/seen")->view.f32()[i]));
          }
          EXPECT_NEAR(sum / 6, c->view.f32()[i], 2e-6);
        }
      }
    });
    for (const Bytes& e : end) EXPECT_EQ(e, end[0]);
    ends.push_back(end[0]);
  }
  EXPECT_EQ(ends[0], ends[1]);
  EXPECT_EQ(ends[0], ends[2]);
}

// x-hat_j += q_j, whoever looks: what a gossip needs.
class Gossip : public Strategy {
 public:
  StatusOr<StepResult> Step(StepMachine& machine) const override {
    TurnsCall call;
    call.work = [](Client& client) -> StatusOr<bool> {
      TW_RETURN_IF_ERROR(client.ComputeGradients(0).status());
      return client.id() != 1;
    };
    int last = -1;
    call.received = [&](int client, size_t p, OwnDecoder body) {
      EXPECT_NE(client, 1);
      EXPECT_GE(client, last);
      last = client;
      return body(static_cast<float>(client + 1), machine.Slot("heard", p));
    };
    TW_RETURN_IF_ERROR(machine.Turns(call).status());
    for (size_t p = 0; p < machine.parameters().size(); ++p) {
      AddScaled(machine.parameters()[p].value, machine.Slot("heard", p), -0.01f);
    }
    return StepResult{};
  }
};

TEST(Fleet, EachMessageCanBeReadAloneInClientOrder) {
  std::vector<Bytes> ends;
  for (const int ranks : {1, 2, 4}) {
    RunRanks(ranks, [&](Communicator& comm) {
      Shapes problem(5);
      Rank rank({"topk", {{"ratio", 0.2}}, "none", {}}, problem, comm, Options(4),
                std::make_unique<Gossip>());
      for (int step = 0; step < 4; ++step) TW_CHECK_OK(rank.fleet->Step());
      if (comm.rank() == 0) ends.push_back(BytesOf(rank.fleet->x()));
    });
  }
  EXPECT_EQ(ends[0], ends[1]);
  EXPECT_EQ(ends[0], ends[2]);
}

TEST(Fleet, CountsBodiesUpAndDenseVectorsDown) {
  RunRanks(1, [&](Communicator& comm) {
    Quadratics problem({.num_clients = 4, .dimension = 100});
    Rank dense({}, problem, comm, Options(3));
    for (int step = 0; step < 3; ++step) TW_CHECK_OK(dense.fleet->Step());
    EXPECT_EQ(dense.fleet->traffic().uplink_bytes, 3 * 4 * 400);  // fp64, counted as fp32
    EXPECT_EQ(dense.fleet->traffic().downlink_bytes, 3 * 4 * 400);
    // Top 10 of 100, and the first message dense.
    Rank sparse({"topk", {{"ratio", 0.1}}, "ef21", {}}, problem, comm, Options(3));
    TW_CHECK_OK(sparse.fleet->Step());
    EXPECT_EQ(sparse.fleet->traffic().uplink_bytes, 4 * 400);
    TW_CHECK_OK(sparse.fleet->Step());
    const int64_t body = (sparse.fleet->traffic().uplink_bytes - 4 * 400) / 4;
    EXPECT_GE(body, 10 * 4 + 10 * 7 / 8);
    EXPECT_LE(body, 10 * 8 + 16);
  });
}

TEST(Fleet, RefusesAStrategyOfOneModelARank) {
  RunRanks(1, [&](Communicator& comm) {
    Shapes problem(2);
    Rank rank({}, problem, comm, Options());
    const auto strategy = MakeVariant<Strategy>("diloco");
    const auto made = Fleet::Create({&problem, &*rank.plan, nullptr, rank.optimizer.get(),
                                     rank.schedule.get(), strategy.get(), &comm, nullptr},
                                    Options());
    EXPECT_EQ(FaultOf(made.status()), Fault::kConfig);
  });
}

}  // namespace
}  // namespace tw
