// Rounds by step number, so that all ranks and a resumed run agree on them:
//   phase every - window .. every   observe        phase 0 .. slices - 1   measure, a slice a step
//   end of the last slice           sum over ranks, Decide, compare        phase slices   in effect
#include "core/engine/plan_updater.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <utility>

#include "absl/strings/str_format.h"
#include "core/api/convert.h"
#include "core/base/clock.h"
#include "core/base/device.h"
#include "core/base/hash.h"
#include "core/base/log.h"
#include "core/kernels/reduce.h"

namespace tw {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

template <class T>
std::span<T> Numbers(TensorView view) {
  return {static_cast<T*>(view.data), static_cast<size_t>(view.numel)};
}

double Median(std::vector<double> values) {
  if (values.empty()) return 0;
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

// The fields of PlanTimes in order.
std::array<double, 9> TimesOf(const StepRecord& r) {
  return {r.step_ms,      r.forward_ms, r.backward_ms,
          r.optimizer_ms, r.encode_ms,  r.exchange_ms,
          r.decode_ms,    r.exposed_ms, static_cast<double>(r.wire_bytes)};
}
PlanTimes TimesFrom(std::span<const double> t) {
  return {t[0], t[1], t[2], t[3], t[4], t[5], t[6], t[7], t[8]};
}

uint64_t HashOf(const std::vector<PlanMenu>& menus) {
  std::string text;
  for (const PlanMenu& menu : menus) {
    text += menu.spec.name + ":";
    for (const PlanOption& option : menu.options) text += option.label + ",";
  }
  return Hash64(text);
}

}  // namespace

StatusOr<std::unique_ptr<PlanUpdater>> PlanUpdater::Create(const PlanUpdaterParts& parts,
                                                           int64_t steps_done) {
  std::unique_ptr<PlanUpdater> updater(new PlanUpdater(parts));
  updater->done_ = steps_done;
  bool created = false;
  const TensorView menus =
      parts.state->Slot("planner/menus", {1}, DType::kI64, Reshard::kReplicated, &created);
  auto* hash = static_cast<int64_t*>(menus.data);
  const int64_t now = static_cast<int64_t>(HashOf(parts.choices->menus));
  if (!created && *hash != now) {
    return DataError(
        "the planner's options are not those of the checkpoint: give the [planner] and "
        "[compressor] settings it was saved with, or another run.dir to start over");
  }
  *hash = now;
  updater->TakeSlots();
  if (created) {
    for (size_t m = 0; m < updater->menus_.size(); ++m) {
      updater->chosen_[m] = parts.planner->Initial(updater->menus_[m]);
      updater->flushed_[m] = 1;  // nothing has been kept back yet
    }
  }
  for (size_t m = 0; m < updater->menus_.size(); ++m) updater->PutIntoPlan(m);
  if (updater->schedule_.costs) {
    TW_RETURN_IF_ERROR(updater->MeasureCosts());
    TW_RETURN_IF_ERROR(parts.lane->Run([&] { return updater->MeasureLink(); }));
  }
  updater->observing_ = updater->InWindow();
  return updater;
}

PlanUpdater::PlanUpdater(const PlanUpdaterParts& parts)
    : parts_(parts), schedule_(parts.planner->schedule()), menus_(parts.choices->menus) {
  slices_ = schedule_.errors ? kPlanDelay : 1;
  TW_CHECK(schedule_.every > schedule_.window + slices_ - 1 && schedule_.window >= 1);
  menu_of_.assign(parts.plan->parameters().size(), -1);
  size_t row = 0;
  for (size_t m = 0; m < menus_.size(); ++m) {
    const size_t parameter = static_cast<size_t>(parts.choices->parameters[m]);
    menu_of_[parameter] = static_cast<int>(m);
    origin_ = std::max(origin_, parts.plan->parameters()[parameter].start_step);
    row_.push_back(row);
    row += menus_[m].options.size() + 1;
  }
  row_.push_back(row);
}

PlanUpdater::~PlanUpdater() { (void)parts_.lane->Wait(); }

// All at once: the lane must not ask the bag for slots while the main thread does.
void PlanUpdater::TakeSlots() {
  StateBag& bag = *parts_.state;
  const int64_t n = static_cast<int64_t>(menus_.size());
  const auto sum = [&](const PlanMenu& menu, const char* what, Reshard reshard) {
    const std::string name = "planner/" + menu.spec.name + "/" + what;
    return Sum{name, bag.Slot(name, {menu.spec.numel()}, DType::kF32, reshard)};
  };
  for (const PlanMenu& menu : menus_) {
    if (schedule_.errors) messages_.push_back(sum(menu, "message", Reshard::kKeepMean));
    if (schedule_.gradients) gradients_.push_back(sum(menu, "gradient", Reshard::kReplicated));
  }
  if (schedule_.errors) {
    table_ = Numbers<double>(bag.Slot("planner/table", {static_cast<int64_t>(row_.back())},
                                      DType::kF64, Reshard::kKeepMean));
  }
  if (const int64_t size = parts_.planner->MemorySize(menus_); size > 0) {
    memory_ =
        Numbers<double>(bag.Slot("planner/memory", {size}, DType::kF64, Reshard::kReplicated));
  }
  const auto chosen =
      Numbers<int32_t>(bag.Slot("planner/chosen", {2, n}, DType::kI32, Reshard::kReplicated));
  chosen_ = chosen.first(menus_.size());
  flushed_ = chosen.subspan(menus_.size());
  next_ = Numbers<int32_t>(bag.Slot("planner/next", {n + 1}, DType::kI32, Reshard::kReplicated));
}

int64_t PlanUpdater::Phase() const {
  return done_ < origin_ ? -1 : (done_ - origin_) % schedule_.every;
}

bool PlanUpdater::InWindow() const { return Phase() >= schedule_.every - schedule_.window; }

void PlanUpdater::OnMessage(int parameter, const Message& message) {
  if (!observing_ || !schedule_.errors) return;
  const int m = menu_of_[static_cast<size_t>(parameter)];
  if (m < 0) return;
  const Sum& sum = messages_[static_cast<size_t>(m)];
  parts_.state->Touch(sum.name);
  const float share = 1.0f / static_cast<float>(schedule_.window);
  AddScaled(sum.view, message.buffer, share);
  if (message.addend.data) AddScaled(sum.view, message.addend, share * message.scale);
}

void PlanUpdater::OnEstimate(int parameter, TensorView gradient) {
  if (!observing_ || !schedule_.gradients) return;
  const int m = menu_of_[static_cast<size_t>(parameter)];
  if (m < 0) return;
  const Sum& sum = gradients_[static_cast<size_t>(m)];
  parts_.state->Touch(sum.name);
  AddScaled(sum.view, gradient, 1.0f);
}

Status PlanUpdater::EndStep(const StepRecord& record) {
  if (working_) {  // long done where the step had an exchange: that came after it
    TW_RETURN_IF_ERROR(parts_.lane->Wait());
    working_ = false;
  }
  done_ = record.step;
  if (observing_ && !record.skipped) records_.push_back(record);
  if (!record.skipped) SettleDense();
  const int64_t phase = Phase();
  const bool measured = phase >= 0 && done_ - origin_ >= schedule_.every;
  if (measured && phase < slices_) {
    working_ = true;
    parts_.lane->Post([this, phase]() -> Status {
      if (schedule_.errors) TW_RETURN_IF_ERROR(MeasureSlice(phase));
      return phase + 1 == slices_ ? Conclude() : OkStatus();
    });
  }
  if (measured && phase == slices_) Apply();
  if (phase == schedule_.every - schedule_.window) StartWindow();
  observing_ = InWindow();
  return OkStatus();
}

void PlanUpdater::StartWindow() {
  records_.clear();
  for (const Sum& sum : messages_) FillZero(sum.view);
  for (const Sum& sum : gradients_) FillZero(sum.view);
}

// Slots of the run's state are not for trials.
CodecContext PlanUpdater::ScratchContext(size_t menu, const StateScope& state) {
  CodecContext context;
  context.spec = &menus_[menu].spec;
  context.seed = parts_.seed;
  context.step = static_cast<uint64_t>(done_);
  context.rank = parts_.comm->rank();
  context.world_size = parts_.comm->size();
  context.state = &state;
  context.scratch = &scratch_;
  return context;
}

// Menus whose first element lies in this slice of all elements.
Status PlanUpdater::MeasureSlice(int64_t slice) {
  ScopedTimer timer(&measure_ms_);
  int64_t total = 0, at = 0;
  for (const PlanMenu& menu : menus_) total += menu.spec.numel();
  for (size_t m = 0; m < menus_.size(); ++m) {
    const int64_t mine = std::min(at * slices_ / std::max<int64_t>(total, 1), slices_ - 1);
    at += menus_[m].spec.numel();
    if (mine == slice) TW_RETURN_IF_ERROR(MeasureMenu(m));
  }
  return OkStatus();
}

Status PlanUpdater::MeasureMenu(size_t m) {
  const std::vector<PlanOption>& options = menus_[m].options;
  const std::span<const float> message = messages_[m].view.f32();
  const std::span<double> errors = table_.subspan(row_[m], options.size());
  table_[row_[m + 1] - 1] = kernels::SumOfSquares(message);
  std::vector<const Compressor*> family;
  for (size_t first = 0; first < options.size(); first += family.size()) {
    family.clear();
    for (size_t c = first; c < options.size() && options[c].family == options[first].family; ++c) {
      family.push_back(options[c].codec);
    }
    const std::span<double> of_family = errors.subspan(first, family.size());
    std::fill(of_family.begin(), of_family.end(), 0.0);
    if (options[first].dense) continue;
    scratch_state_.Clear();
    const StateScope state(&scratch_state_, "trial/");
    const Status status =
        family[0]->OptionErrors(family, message, ScratchContext(m, state), of_family);
    // Sums that overflow and the like make options unusable, not the run.
    if (!status.ok()) std::fill(of_family.begin(), of_family.end(), kNan);
  }
  return OkStatus();
}

// Bell-shaped numbers: what selection and quantization take depends on their distribution.
Status PlanUpdater::MeasureCosts() {
  constexpr int kRepetitions = 3;
  for (size_t m = 0; m < menus_.size(); ++m) {
    const size_t numel = static_cast<size_t>(menus_[m].spec.numel());
    std::vector<float> numbers(numel), buffer(numel), out(numel);
    const RngStream stream = RngStream::Of(1, RngPurpose::kTest, 0, menus_[m].spec.id, 0);
    for (size_t i = 0; i < numel; ++i) {
      const auto r = stream.At(i);
      numbers[i] = 1e-3f * 0x1p-31f *
                   (static_cast<float>(r[0]) + static_cast<float>(r[1]) - static_cast<float>(r[2]) -
                    static_cast<float>(r[3]));
    }
    std::vector<double>& costs = cost_ms_.emplace_back();
    for (size_t c = 0; c < menus_[m].options.size(); ++c) {
      const Compressor& codec = *menus_[m].options[c].codec;
      const int decodes = parts_.choices->routes[m][c].exchange->merge() == Merge::kGather
                              ? parts_.comm->size()
                              : 1;
      std::vector<double> times;
      scratch_state_.Clear();
      const StateScope state(&scratch_state_, "trial/");
      for (int i = 0; i < kRepetitions && !menus_[m].options[c].dense; ++i) {
        std::copy(numbers.begin(), numbers.end(), buffer.begin());
        CodecContext context = ScratchContext(m, state);
        double ms = 0;
        ByteSpan body;
        {
          ScopedTimer timer(&ms);
          for (int round = 0; round < codec.traits().rounds; ++round) {
            const auto room = scratch_.Get<uint8_t>(
                kScratchSend0 + round % 2,
                static_cast<size_t>(codec.MaxEncodedBytes(menus_[m].spec, round)));
            TW_ASSIGN_OR_RETURN(
                const int64_t size,
                codec.EncodeRound(round, body, {buffer, nullptr, 1.0f}, context, room));
            body = room.first(static_cast<size_t>(size));
          }
          for (int d = 0; d < decodes; ++d) {
            TW_RETURN_IF_ERROR(codec.DecodeAdd(body, 1.0f, context, out));
          }
        }
        times.push_back(ms);
      }
      costs.push_back(Median(times));
    }
  }
  return OkStatus();
}

// All-gathers of growing size until one takes long enough to tell; the smallest one's time is
// latency. Exchanges of a step measure the link too, but wait for peers that still compute. Bytes
// lie where the gradients do: it is their wire that is measured.
Status PlanUpdater::MeasureLink() {
  constexpr int64_t kSmallest = 4 << 10, kLargest = 4 << 20;
  constexpr double kLongEnoughMs = 20;
  Communicator& comm = *parts_.comm;
  if (comm.size() == 1) return OkStatus();
  DeviceQueue* const queue = comm.on_device() ? CurrentQueue() : nullptr;
  const OpTag tag{0, -1, "rate of the link"};
  double latency_ms = 0;
  for (int64_t bytes = kSmallest; bytes <= kLargest; bytes *= 4) {
    const size_t n = static_cast<size_t>(comm.size());
    const std::vector<int64_t> sizes(n, bytes);
    const size_t room = n * static_cast<size_t>(bytes);
    const auto free = [queue](uint8_t* memory) {
      if (queue) queue->memory().Free(memory);
    };
    const std::unique_ptr<uint8_t, decltype(free)> memory(
        queue ? queue->memory().Allocate(room) : scratch_.GetHost<uint8_t>(0, room).data(), free);
    const MutableByteSpan all(memory.get(), room);
    const ByteSpan mine(
        all.subspan(static_cast<size_t>(comm.rank() * bytes), static_cast<size_t>(bytes)));
    std::vector<double> times;
    for (int i = 0; i < 3; ++i) {
      double ms = 0;
      {
        ScopedTimer timer(&ms);
        TW_RETURN_IF_ERROR(comm.AllGatherV(mine, sizes, all, tag));
      }
      times.push_back(ms);
    }
    double mean[] = {Median(times)};
    TW_RETURN_IF_ERROR(comm.AllReduceSum(mean, tag));
    mean[0] /= comm.size();
    if (bytes == kSmallest) latency_ms = mean[0] / 2;
    link_bytes_per_ms_ =
        static_cast<double>(bytes * (comm.size() - 1)) / std::max(mean[0] - latency_ms, 1e-3);
    if (mean[0] > kLongEnoughMs) break;
  }
  return OkStatus();
}

// One sum over ranks: the table, times and costs.
StatusOr<PlanEvidence> PlanUpdater::Gather() {
  std::vector<double> sums(table_.begin(), table_.end());
  const size_t times_at = sums.size();
  for (size_t field = 0; field < TimesOf({}).size(); ++field) {
    std::vector<double> values;
    for (const StepRecord& record : records_) values.push_back(TimesOf(record)[field]);
    sums.push_back(Median(values));
  }
  for (const auto& costs : cost_ms_) sums.insert(sums.end(), costs.begin(), costs.end());
  const double ranks = parts_.comm->size();
  if (ranks > 1) {
    TW_RETURN_IF_ERROR(parts_.comm->AllReduceSum(
        sums, {static_cast<uint64_t>(done_), -1, "what the planner measured"}));
    for (double& s : sums) s /= ranks;
  }
  PlanEvidence evidence;
  evidence.steps_done = done_;
  evidence.ranks = parts_.comm->size();
  evidence.menus = menus_;
  evidence.memory = memory_;
  evidence.link_bytes_per_ms = link_bytes_per_ms_;
  const double* at = sums.data();
  for (size_t m = 0; schedule_.errors && m < menus_.size(); ++m) {
    evidence.errors.emplace_back(at + row_[m], at + row_[m + 1] - 1);
    evidence.message_norms.push_back(at[row_[m + 1] - 1]);
  }
  for (const Sum& sum : gradients_) {
    evidence.gradient_norms.push_back(std::sqrt(kernels::SumOfSquares(sum.view.f32())));
  }
  at += times_at;
  evidence.times = TimesFrom({at, TimesOf({}).size()});
  at += TimesOf({}).size();
  for (const auto& costs : cost_ms_) {
    evidence.cost_ms.emplace_back(at, at + costs.size());
    at += costs.size();
  }
  return evidence;
}

Status PlanUpdater::Conclude() {
  const std::vector<int> chosen(chosen_.begin(), chosen_.end());
  TW_ASSIGN_OR_RETURN(PlanEvidence evidence, Gather());
  evidence.chosen = chosen;
  PlanDecision decision;
  double decide_ms = 0;
  {
    ScopedTimer timer(&decide_ms);
    TW_ASSIGN_OR_RETURN(decision, parts_.planner->Decide(evidence));
  }
  TW_CHECK_EQ(decision.choice.size(), menus_.size());
  for (size_t m = 0; m < menus_.size(); ++m) {
    TW_CHECK(decision.choice[m] >= 0 &&
             decision.choice[m] < static_cast<int>(menus_[m].options.size()));
    next_[m] = decision.choice[m];
  }
  next_[menus_.size()] = 1;
  round_ = Compare(evidence, decision);
  round_.decide_ms = decide_ms;
  round_.measure_ms = std::exchange(measure_ms_, 0);
  Hasher hasher;
  hasher.Add(ByteSpan(reinterpret_cast<const uint8_t*>(next_.data()), next_.size_bytes()));
  return parts_.comm->Agree(hasher.digest(),
                            "plan of the planner after step " + std::to_string(done_));
}

PlanRound PlanUpdater::Compare(const PlanEvidence& evidence, const PlanDecision& decision) const {
  PlanRound round;
  round.step = done_ - (slices_ - 1);
  std::vector<int> configured;
  for (size_t m = 0; m < menus_.size(); ++m) {
    const std::vector<PlanOption>& options = menus_[m].options;
    const int choice = decision.choice[m];
    configured.push_back(menus_[m].configured);
    round.changed += choice != evidence.chosen[m];
    const auto smaller = [](const PlanOption& a, const PlanOption& b) { return a.bytes < b.bytes; };
    round.at_floor += options[static_cast<size_t>(choice)].bytes ==
                      std::min_element(options.begin(), options.end(), smaller)->bytes;
  }
  round.bytes_before = BytesOf(menus_, evidence.chosen);
  round.bytes_after = BytesOf(menus_, decision.choice);
  round.bytes_configured = BytesOf(menus_, configured);
  round.error_before = ErrorOf(evidence, evidence.chosen);
  round.error_after = ErrorOf(evidence, decision.choice);
  round.error_configured = ErrorOf(evidence, configured);
  round.why = decision.why;
  return round;
}

std::string PlanUpdater::Line() const {
  const PlanRound& r = last_round_;
  std::string line =
      absl::StrFormat("planner %s after step %d: %.0f -> %.0f B a step (configured %.0f)",
                      parts_.name, r.step, r.bytes_before, r.bytes_after, r.bytes_configured);
  if (schedule_.errors) {
    line += absl::StrFormat(", error %.5g -> %.5g (configured %.5g)", r.error_before, r.error_after,
                            r.error_configured);
  }
  line += absl::StrFormat("; %d of %d parameters change", r.changed, menus_.size());
  return r.why.empty() ? line : line + "; " + r.why;
}

void PlanUpdater::Apply() {
  if (next_[menus_.size()] == 0) return;
  next_[menus_.size()] = 0;
  for (size_t m = 0; m < menus_.size(); ++m) {
    if (next_[m] == chosen_[m]) continue;
    chosen_[m] = next_[m];
    flushed_[m] = 0;
    const PlanOption& option = menus_[m].options[static_cast<size_t>(chosen_[m])];
    const StateScope state(parts_.state, "codec/" + menus_[m].spec.name + "/");
    CodecContext context = ScratchContext(m, state);
    option.codec->TakeOver(context);
    PutIntoPlan(m);
  }
  ++num_rounds_;
  last_round_ = std::exchange(round_, {});
  if (last_round_.changed > 0 || !last_round_.why.empty()) LogInfo(Line());
}

// A dense option goes through its feedback until the error memory is empty; for good where the
// feedback keeps estimates that every message must reach.
void PlanUpdater::PutIntoPlan(size_t m) {
  const size_t c = static_cast<size_t>(chosen_[m]);
  const PlanOption& option = menus_[m].options[c];
  const Route& route = parts_.choices->routes[m][c];
  const size_t parameter = static_cast<size_t>(parts_.choices->parameters[m]);
  const bool plain = option.dense && flushed_[m] && !route.policy->traits().exact_mean;
  parts_.plan->Choose(parameter, plain ? parts_.plan->dense() : route, !plain, option.label);
}

void PlanUpdater::SettleDense() {
  for (size_t m = 0; m < menus_.size(); ++m) {
    if (flushed_[m]) continue;
    flushed_[m] = 1;
    if (menus_[m].options[static_cast<size_t>(chosen_[m])].dense) PutIntoPlan(m);
  }
}

}  // namespace tw
