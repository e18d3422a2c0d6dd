#include "core/engine/fleet/fleet.h"

#include <numeric>

#include "core/api/convert.h"
#include "core/engine/fleet/parameter_turn.h"
#include "core/engine/norms.h"

namespace tw {
namespace {

int FirstClient(int rank, int ranks, int clients) {
  return static_cast<int>(static_cast<int64_t>(clients) * rank / ranks);
}

}  // namespace

Fleet::Fleet(const FleetParts& parts, const FleetOptions& options)
    : parts_(parts),
      options_(options),
      num_clients_(parts.problem->num_clients()),
      wire_(parts.comm, parts.lane) {
  const auto specs = parts.problem->parameters();
  std::vector<TensorView> like, means;
  for (const TensorSpec& spec : specs) {
    like.push_back({nullptr, spec.dtype, spec.numel()});
    dimension_ += spec.numel();
    codec_.emplace_back(&state_, "codec/" + spec.name + "/");
    feedback_.emplace_back(&state_, "feedback/" + spec.name + "/");
    strategy_.emplace_back(&state_, "strategy/" + spec.name + "/");
    server_codec_.emplace_back(&state_, "server/codec/" + spec.name + "/");
    server_feedback_.emplace_back(&state_, "server/feedback/" + spec.name + "/");
  }
  storage_.resize(2);
  LayOut(like, storage_[0].Reserve(RoomFor(like)), &x_);
  LayOut(like, storage_[1].Reserve(RoomFor(like)), &means);
  for (size_t p = 0; p < specs.size(); ++p) views_.push_back({&specs[p], x_[p], means[p]});
  parts.problem->Start(x_);
  turns_.resize(specs.size());
  everybody_.resize(static_cast<size_t>(num_clients_));
  std::iota(everybody_.begin(), everybody_.end(), 0);
  first_done_.resize(everybody_.size() * specs.size());
  const int rank = parts.comm->rank(), ranks = parts.comm->size();
  const int first = FirstClient(rank, ranks, num_clients_);
  client_ = std::make_unique<FleetClient>(parts.problem, x_, &state_, options.seed, first,
                                          FirstClient(rank + 1, ranks, num_clients_) - first);
}

Fleet::~Fleet() = default;

StatusOr<std::unique_ptr<Fleet>> Fleet::Create(const FleetParts& parts,
                                               const FleetOptions& options) {
  TW_CHECK_EQ(parts.plan->parameters().size(), parts.problem->parameters().size());
  std::unique_ptr<Fleet> fleet(new Fleet(parts, options));
  TW_RETURN_IF_ERROR(fleet->Check());
  return fleet;
}

Status Fleet::Check() const {
  if (num_clients_ < 1) return ConfigError("the lab needs at least one client");
  if (parts_.strategy->place() == Place::kTrainOnly) {
    return ConfigError("this strategy runs in train only: clients of the lab share one model");
  }
  for (const TensorView& x : x_) {
    if (x.dtype != DType::kF32 && x.dtype != DType::kF64) {
      return ConfigError("parameters of a problem are fp32 or fp64");
    }
  }
  for (const ParameterPlan& p : parts_.plan->parameters()) {
    if (!p.route.exchange || !p.route.exchange->fold()) {
      return ConfigError("compressor " + p.route.compressor + " with feedback " + p.route.feedback +
                         ": its means cannot be formed in one place");
    }
  }
  if (parts_.server && parts_.server->codec->traits().rounds > 1) {
    return ConfigError("compressor " + parts_.server->compressor +
                       " sums over clients between its rounds: it cannot be the server's");
  }
  return OkStatus();
}

StatusOr<StepResult> Fleet::Step() {
  TW_CHECK(step_ < options_.steps);
  turns_this_step_ = 0;
  if (step_ == 0) TW_RETURN_IF_ERROR(parts_.strategy->Continue(*this));
  TW_ASSIGN_OR_RETURN(const StepResult result, parts_.strategy->Step(*this));
  ++step_;
  return result;
}

int64_t Fleet::memory_bytes() const {
  size_t total = scratch_.bytes();
  for (const AlignedBuffer& b : storage_) total += b.capacity();
  for (const ParameterTurn& t : turns_) total += t.sums[0].capacity() + t.sums[1].capacity();
  return static_cast<int64_t>(total) + state_.bytes() + client_->memory_bytes() +
         wire_.memory_bytes();
}

StatusOr<std::vector<double>> Fleet::ClientSlots(const std::string& slot, size_t parameter) {
  const TensorSpec& spec = *views_[parameter].spec;
  const auto d = static_cast<size_t>(spec.numel());
  const int ranks = parts_.comm->size();
  std::vector<int64_t> counts;  // of numbers, by rank
  for (int r = 0; r < ranks; ++r) {
    const int clients =
        FirstClient(r + 1, ranks, num_clients_) - FirstClient(r, ranks, num_clients_);
    counts.push_back(clients * spec.numel());
  }
  const int first = FirstClient(parts_.comm->rank(), ranks, num_clients_);
  std::vector<double> mine(static_cast<size_t>(counts[static_cast<size_t>(parts_.comm->rank())])),
      all(static_cast<size_t>(num_clients_) * d);
  for (size_t at = 0; at < mine.size(); at += d) {
    const std::string id = std::to_string(static_cast<size_t>(first) + at / d);
    const StateSlot* held = state_.Find("client/" + id + "/strategy/" + spec.name + "/" + slot);
    if (held) AddScaled({mine.data() + at, DType::kF64, spec.numel()}, held->view, 1.0f);
  }
  TW_RETURN_IF_ERROR(wire_.ShareNumbers(counts, mine, all,
                                        {static_cast<uint64_t>(step_), -1, "slots of clients"}));
  return all;
}

double Fleet::lr() const { return options_.lr * parts_.schedule->Factor(step_, options_.steps); }

RngStream Fleet::shared_stream() const {
  return RngStream::Of(options_.seed, RngPurpose::kStrategy, static_cast<uint64_t>(step_), 0,
                       kSharedRank);
}

TensorView Fleet::Slot(const char* name, size_t parameter, bool* created) {
  const TensorSpec& spec = *views_[parameter].spec;
  return strategy_[parameter].Slot(name, spec.shape,
                                   spec.dtype == DType::kF64 ? DType::kF64 : DType::kF32,
                                   Reshard::kReplicated, created);
}

// The same on every rank: nothing travels.
Status Fleet::Broadcast(std::span<const TensorView> vectors) {
  TW_CHECK_EQ(vectors.size(), views_.size());
  for (size_t p = 0; p < vectors.size(); ++p) {
    const TensorSpec& spec = *views_[p].spec;
    if (!parts_.server) {
      traffic_.downlink_bytes += 4 * spec.numel() * num_clients_;
      continue;
    }
    const Route& route = *parts_.server;
    CodecContext context = ContextOf(p, num_clients_, &server_codec_[p]);
    context.step = WireStep(static_cast<uint64_t>(step_), turns_this_step_);
    const FeedbackContext feedback{&spec, route.codec, &server_feedback_[p],
                                   static_cast<uint64_t>(step_), &scratch_};
    Message message = route.policy->Compose(vectors[p], feedback);
    const auto room = scratch_.Get<uint8_t>(
        kScratchSend0, static_cast<size_t>(route.codec->MaxEncodedBytes(spec, 0)));
    TW_ASSIGN_OR_RETURN(const int64_t size, route.codec->EncodeAny(0, {}, message, context, room));
    const ByteSpan body = room.first(static_cast<size_t>(size));
    TW_RETURN_IF_ERROR(route.policy->Absorb(
        [&](float scale, TensorView out) {
          return route.codec->DecodeAddAny(body, scale, context, out);
        },
        message.buffer, feedback));
    FillZero(vectors[p]);
    TW_RETURN_IF_ERROR(route.codec->DecodeAddAny(body, 1.0f, context, vectors[p]));
    route.policy->Resolve(vectors[p], feedback);
    traffic_.downlink_bytes += PaidBytes(*route.codec, p, body.size()) * num_clients_;
  }
  ++turns_this_step_;
  return OkStatus();
}

StatusOr<double> Fleet::ComputeGradients() {
  TurnsCall call;
  call.work = [](Client& client) -> StatusOr<bool> {
    TW_RETURN_IF_ERROR(client.ComputeGradients(0).status());
    return true;
  };
  TW_ASSIGN_OR_RETURN(gradients_, Turns(call));
  return gradients_.loss;
}

StatusOr<bool> Fleet::FinishExchange() { return gradients_.arrived > 0; }

Status Fleet::ApplyUpdate() {
  UpdateContext context{lr(), 1.0f, ++updates_, &state_, Reshard::kReplicated};
  if (options_.grad_clip > 0) {
    const double norm = GradientNorm(views_);
    if (norm > options_.grad_clip) {
      context.grad_scale = static_cast<float>(options_.grad_clip / norm);
    }
  }
  return parts_.optimizer->Step(views_, context);
}

namespace {
Status OneRanksOwn() {
  return BugError("a strategy that is not kTrainOnly asked for one rank's own steps");
}
}  // namespace

StatusOr<LocalGradients> Fleet::ComputeLocalGradients() { return OneRanksOwn(); }
Status Fleet::ApplyLocalUpdate() { return OneRanksOwn(); }
void Fleet::ForgetMoments() { TW_CHECK_OK(OneRanksOwn()); }
StatusOr<bool> Fleet::Exchange(std::span<const TensorView>) { return OneRanksOwn(); }
Status Fleet::StartExchange(std::span<const TensorView>) { return OneRanksOwn(); }
StatusOr<bool> Fleet::FinishStarted() { return OneRanksOwn(); }

}  // namespace tw
