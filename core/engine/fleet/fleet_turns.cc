// One Turns(), top to bottom: open (routes, who is here) -> for each round and client: work,
// compose, encode, absorb -> fold the bodies in client order -> resolve. After the first turns of a
// kind nothing here allocates or looks a name up.

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/api/convert.h"
#include "core/engine/fleet/fleet.h"
#include "core/engine/fleet/parameter_turn.h"

namespace tw {

int64_t Fleet::PaidBytes(const Compressor& codec, size_t parameter, size_t body) const {
  const bool wide = codec.traits().lossless && views_[parameter].spec->dtype == DType::kF64;
  return static_cast<int64_t>(wide ? body / 2 : body);
}

CodecContext Fleet::ContextOf(size_t parameter, int client, const StateScope* state) {
  CodecContext context;
  context.spec = views_[parameter].spec;
  context.seed = options_.seed;
  context.step = wire_step_;
  context.rank = client;
  context.world_size = num_clients_;
  context.state = state;
  context.scratch = &scratch_;
  return context;
}

// Dense until start_step, and dense the first time for policies that start from the first gradient.
// Whether that has happened is state of the client, as in BucketPipeline::ChooseRoute.
const Route& Fleet::RouteOf(const ParameterTurn& turn, int client) const {
  if (turn.route) return *turn.route;
  const size_t p = static_cast<size_t>(&turn - turns_.data());
  const bool done = first_done_[static_cast<size_t>(client) * views_.size() + p] != 0;
  return done ? turn.plan->route : parts_.plan->dense();
}

Status Fleet::OpenTurn(const TurnsCall& call) {
  taking_part_ = call.clients.empty() ? std::span<const int>(everybody_) : call.clients;
  for (size_t i = 0; i < taking_part_.size(); ++i) {
    TW_CHECK(taking_part_[i] >= 0 && taking_part_[i] < num_clients_);
    TW_CHECK(i == 0 || taking_part_[i - 1] < taking_part_[i]);
  }
  const auto before = [&](int rank) {  // how many of taking_part_ live on lower ranks
    const int64_t first = static_cast<int64_t>(num_clients_) * rank / parts_.comm->size();
    return static_cast<size_t>(
        std::lower_bound(taking_part_.begin(), taking_part_.end(), static_cast<int>(first)) -
        taking_part_.begin());
  };
  counts_.clear();
  for (int r = 0; r < parts_.comm->size(); ++r) {
    counts_.push_back(static_cast<int64_t>(before(r + 1) - before(r)));
  }
  local_begin_ = before(parts_.comm->rank());
  local_end_ = before(parts_.comm->rank() + 1);
  wire_step_ = WireStep(static_cast<uint64_t>(step_), turns_this_step_++);
  arrived_.assign(taking_part_.size(), 0);
  losses_.assign(taking_part_.size(), 0);
  rounds_ = 1;
  for (size_t p = 0; p < turns_.size(); ++p) {
    ParameterTurn& t = turns_[p];
    t.plan = &parts_.plan->parameters()[p];
    t.through_policy = !call.dense && t.plan->compressed && step_ >= t.plan->start_step;
    t.route = t.through_policy ? &t.plan->route : &parts_.plan->dense();
    const FeedbackTraits* traits = t.through_policy ? &t.plan->route.policy->traits() : nullptr;
    if (traits && traits->dense_first) {
      size_t done = 0;
      for (const int c : taking_part_) {
        done += first_done_[static_cast<size_t>(c) * turns_.size() + p];
      }
      if (done < taking_part_.size()) t.route = done == 0 ? &parts_.plan->dense() : nullptr;
      if (!t.route && t.plan->route.codec->traits().rounds > 1) t.route = &parts_.plan->dense();
    }
    t.all_of_them = traits && traits->exact_mean;
    const tw::Exchange* exchange = t.route ? t.route->exchange : FindExchange(Merge::kGather);
    t.arithmetic = exchange->fold();
    TW_CHECK(t.arithmetic);
    if (t.route) rounds_ = std::max(rounds_, t.route->codec->traits().rounds);
    if (call.received && rounds_ > 1) {
      return ConfigError("compressor " + t.plan->route.compressor +
                         " needs the sum over clients: its messages cannot be decoded one by one, "
                         "which this strategy does");
    }
    t.fold = {};
    t.fold.mean = call.out.empty() ? views_[p].grad : call.out[p];
    FillZero(t.fold.mean);
  }
  streaming_ = parts_.comm->size() == 1 && !call.received;
  messages_.resize((rounds_ > 1 ? local_end_ - local_begin_ : 1) * turns_.size());
  return OkStatus();
}

Status Fleet::Work(const TurnsCall& call, size_t local, bool* sends) {
  const int id = taking_part_[local_begin_ + local];
  client_->Begin(id, static_cast<uint64_t>(step_), call.moves,
                 rounds_ > 1 ? static_cast<int>(local) : -1);
  const StatusOr<bool> left = call.work(*client_);
  TW_RETURN_IF_ERROR(left);
  bool fine = *left;
  for (const ParameterView& p : client_->parameters()) fine = fine && AllFinite(p.grad);
  client_->End(/*keep_slots=*/fine);
  losses_[local_begin_ + local] = client_->loss();
  *sends = fine;
  return OkStatus();
}

void Fleet::Compose(size_t local) {
  Message* const messages = &messages_[rounds_ > 1 ? local * turns_.size() : 0];
  const int id = client_->id();
  for (size_t p = 0; p < turns_.size(); ++p) {
    const ParameterTurn& t = turns_[p];
    const TensorView grad = client_->parameters()[p].grad;
    const FeedbackContext context{views_[p].spec, RouteOf(t, id).codec, &client_->feedback(id, p),
                                  static_cast<uint64_t>(step_), &scratch_};
    messages[p] =
        t.through_policy ? t.plan->route.policy->Compose(grad, context) : Message{grad, {}, 1.0f};
  }
}

Status Fleet::Encode(const TurnsCall& call, size_t local, int round) {
  Message* const messages = &messages_[rounds_ > 1 ? local * turns_.size() : 0];
  const int id = taking_part_[local_begin_ + local];
  for (size_t p = 0; p < turns_.size(); ++p) {
    ParameterTurn& t = turns_[p];
    const Route& route = RouteOf(t, id);
    const Compressor& codec = *route.codec;
    const int rounds = codec.traits().rounds;
    if (round >= rounds) continue;
    const CodecContext context = ContextOf(p, id, &client_->codec(id, p));
    const MutableByteSpan room = wire_.Room(codec.MaxEncodedBytes(*views_[p].spec, round));
    TW_ASSIGN_OR_RETURN(const int64_t size, codec.EncodeAny(round, round ? t.previous : ByteSpan(),
                                                            messages[p], context, room));
    const ByteSpan body = room.first(static_cast<size_t>(size));
    if (round + 1 == rounds) {
      const auto own = [&](float scale, TensorView out) {
        return codec.DecodeAddAny(body, scale, context, out);
      };
      if (t.through_policy) {
        const FeedbackContext feedback{views_[p].spec, &codec, &client_->feedback(id, p),
                                       static_cast<uint64_t>(step_), &scratch_};
        TW_RETURN_IF_ERROR(t.plan->route.policy->Absorb(own, messages[p].buffer, feedback));
      }
      if (call.sent) {
        client_->Visit(id);
        TW_RETURN_IF_ERROR(call.sent(*client_, p, own));
      }
    }
    if (!streaming_) {
      wire_.Close(FrameHeaderOf(context, route.wire_id), size);
      own_notes_[local].bytes += kFrameHeaderBytes + size;
      continue;
    }
    if (round == 0 && p == 0) ++traffic_.messages;
    TW_RETURN_IF_ERROR(AddBody(p, id, body));
  }
  return OkStatus();
}

Status Fleet::AddBody(size_t parameter, int client, ByteSpan body) {
  ParameterTurn& t = turns_[parameter];
  const Compressor& codec = *RouteOf(t, client).codec;
  t.fold.codec = &codec;
  traffic_.uplink_bytes += PaidBytes(codec, parameter, body.size());
  return t.arithmetic->Add(t.fold, body, client);
}

// Of all ranks, in client order.
Status Fleet::AddAllBodies(const TurnsCall& call, int round) {
  const OpTag tag{static_cast<uint64_t>(step_), -1, "messages of clients"};
  notes_.resize(taking_part_.size());
  TW_RETURN_IF_ERROR(wire_.ShareNotes(counts_, own_notes_, notes_, tag));
  rank_bytes_.clear();
  size_t i = 0;
  for (const int64_t count : counts_) {
    rank_bytes_.push_back(0);
    for (int64_t k = 0; k < count; ++k, ++i) {
      arrived_[i] = notes_[i].bytes >= 0 ? 1 : 0;
      losses_[i] = notes_[i].loss;
      rank_bytes_.back() += std::max<int64_t>(notes_[i].bytes, 0);
    }
  }
  TW_ASSIGN_OR_RETURN(ByteSpan all, wire_.ShareBodies(rank_bytes_, tag));
  bodies_.assign(taking_part_.size() * turns_.size(), {});
  for (i = 0; i < taking_part_.size(); ++i) {
    if (!arrived_[i]) continue;
    const int id = taking_part_[i];
    if (round == 0) ++traffic_.messages;
    for (size_t p = 0; p < turns_.size(); ++p) {
      const Route& route = RouteOf(turns_[p], id);
      if (round >= route.codec->traits().rounds) continue;
      const FrameHeader expected = FrameHeaderOf(ContextOf(p, id, nullptr), route.wire_id);
      auto body = TakeBody(&all, expected);
      Status status = body.status();
      if (status.ok()) status = AddBody(p, id, bodies_[i * turns_.size() + p] = *body);
      if (!status.ok()) {
        return Annotate(
            status, "from client " + std::to_string(id) + ", parameter " + views_[p].spec->name);
      }
    }
  }
  if (!all.empty()) return DataLoss("bytes after the last client's message");
  if (!call.received) return OkStatus();
  for (i = 0; i < taking_part_.size(); ++i) {
    for (size_t p = 0; p < turns_.size() && arrived_[i]; ++p) {
      const int id = taking_part_[i];
      const ByteSpan body = bodies_[i * turns_.size() + p];
      const CodecContext context = ContextOf(p, id, &codec_[p]);
      TW_RETURN_IF_ERROR(call.received(id, p, [&](float scale, TensorView out) {
        return RouteOf(turns_[p], id).codec->DecodeAddAny(body, scale, context, out);
      }));
    }
  }
  return OkStatus();
}

Status Fleet::RunRound(const TurnsCall& call, int round) {
  const int expected = static_cast<int>(taking_part_.size());
  for (size_t p = 0; p < turns_.size(); ++p) {
    ParameterTurn& t = turns_[p];
    const Compressor& codec = t.route ? *t.route->codec : *t.plan->route.codec;
    if (round >= codec.traits().rounds) continue;
    t.fold.codec = &codec;
    t.fold.context = ContextOf(p, 0, &codec_[p]);
    t.fold.expected = t.all_of_them ? num_clients_ : expected;
    t.fold.denominator = t.fold.expected;
    t.fold.last_round = round + 1 == codec.traits().rounds;
    t.fold.sum = &t.sums[round % 2];
    t.fold.added = 0;
    t.previous = t.fold.reduced;
  }
  wire_.Clear();
  const size_t count = local_end_ - local_begin_;
  own_notes_.assign(count, {});
  for (size_t local = 0; local < count; ++local) {
    uint8_t& here = arrived_[local_begin_ + local];
    if (round == 0) {
      bool sends = false;
      TW_RETURN_IF_ERROR(Work(call, local, &sends));
      here = sends ? 1 : 0;
      if (!sends) continue;
      Compose(local);
    }
    if (!here) continue;
    own_notes_[local] = {0, losses_[local_begin_ + local]};
    TW_RETURN_IF_ERROR(Encode(call, local, round));
  }
  if (!streaming_) TW_RETURN_IF_ERROR(AddAllBodies(call, round));
  const int arrived = static_cast<int>(std::count(arrived_.begin(), arrived_.end(), 1));
  for (ParameterTurn& t : turns_) {
    const bool in_round = round < (t.route ? t.route->codec : t.plan->route.codec)->traits().rounds;
    if (!in_round || arrived == 0) continue;
    if (!t.all_of_them) t.fold.denominator = arrived;
    TW_RETURN_IF_ERROR(t.arithmetic->Finish(t.fold));
  }
  return OkStatus();
}

StatusOr<TurnsResult> Fleet::Turns(const TurnsCall& call) {
  TW_RETURN_IF_ERROR(OpenTurn(call));
  for (int round = 0; round < rounds_; ++round) TW_RETURN_IF_ERROR(RunRound(call, round));
  TurnsResult result;
  TW_RETURN_IF_ERROR(CloseTurn(call, &result));
  return result;
}

Status Fleet::CloseTurn(const TurnsCall& call, TurnsResult* result) {
  for (size_t i = 0; i < taking_part_.size(); ++i) {
    if (!arrived_[i]) continue;
    ++result->arrived;
    result->loss += losses_[i];
  }
  result->loss =
      result->arrived ? result->loss / result->arrived : std::numeric_limits<double>::quiet_NaN();
  for (size_t p = 0; p < turns_.size(); ++p) {
    ParameterTurn& t = turns_[p];
    if (!t.through_policy) continue;
    for (size_t i = 0; i < taking_part_.size(); ++i) {
      if (!arrived_[i]) continue;
      first_done_[static_cast<size_t>(taking_part_[i]) * turns_.size() + p] = 1;
    }
    const Compressor* codec = t.route ? t.route->codec : t.plan->route.codec;
    t.plan->route.policy->Resolve(
        t.fold.mean, {views_[p].spec, codec, &feedback_[p], static_cast<uint64_t>(step_)});
  }
  traffic_.downlink_bytes +=
      int64_t{4} * dimension_ * call.downlink_vectors * static_cast<int64_t>(taking_part_.size());
  return OkStatus();
}

}  // namespace tw
