#include "core/engine/two_level.h"

#include <algorithm>
#include <map>

#include "core/api/convert.h"
#include "core/kernels/elementwise.h"

namespace tw {
namespace {

constexpr char kGroupingSlot[] = "engine/grouping";

// Every parameter by the dense route.
Plan AllDense(const Plan& plan, int ranks) {
  std::vector<TensorSpec> specs;
  for (const ParameterPlan& p : plan.parameters()) specs.push_back(p.spec);
  PlanOptions options;
  options.dense = plan.dense();
  options.dense.exchange = FindExchange(Merge::kSum);  // few hops: there is no link to keep full
  options.rules = {{.route = options.dense}};
  options.exchanges = {options.dense.exchange};
  options.world_size = ranks;
  auto dense = Plan::Build(specs, options);
  TW_CHECK_OK(dense);
  return std::move(dense).value();
}

}  // namespace

std::vector<int> NumberGroups(const std::vector<int64_t>& marks) {
  std::map<int64_t, int> number;
  std::vector<int> group_of;
  for (const int64_t mark : marks) {
    group_of.push_back(number.emplace(mark, static_cast<int>(number.size())).first->second);
  }
  return group_of;
}

int CountGroups(const std::vector<int>& group_of) {
  return group_of.empty() ? 0 : 1 + *std::max_element(group_of.begin(), group_of.end());
}

Status KeepGrouping(StateBag* state, const std::vector<int>& group_of, bool resumed) {
  const StateSlot* saved = state->Find(kGroupingSlot);
  std::vector<int> was;
  if (saved) {
    const auto* numbers = static_cast<const int32_t*>(saved->view.data);
    was.assign(numbers, numbers + saved->view.numel);
  }
  if (resumed && was != group_of) {
    const auto say = [](const std::vector<int>& groups) {
      return groups.empty() ? std::string("without groups (comm.hierarchical)")
                            : "by " + std::to_string(groups.size()) + " ranks in " +
                                  std::to_string(CountGroups(groups)) + " groups";
    };
    return DataError("the checkpoint was saved " + say(was) + ", this run is one " + say(group_of) +
                     ": what compression left out rests with the first rank of each group, so " +
                     "groups cannot change on the way");
  }
  if (group_of.empty() || saved) return OkStatus();
  const TensorView slot = state->Slot(kGroupingSlot, {static_cast<int64_t>(group_of.size())},
                                      DType::kI32, Reshard::kReplicated);
  std::copy(group_of.begin(), group_of.end(), static_cast<int32_t*>(slot.data));
  return OkStatus();
}

StatusOr<std::unique_ptr<TwoLevel>> TwoLevel::Create(const Plan* plan, Communicator* comm,
                                                     const std::vector<int>& group_of,
                                                     const PipelineOptions& options) {
  TW_CHECK_EQ(static_cast<int>(group_of.size()), comm->size());
  const int group = group_of[static_cast<size_t>(comm->rank())];
  TW_ASSIGN_OR_RETURN(auto inside, comm->Split(group));
  TW_ASSIGN_OR_RETURN(auto across, comm->Split(inside->rank() == 0 ? 0 : -1));
  const double weight = static_cast<double>(inside->size()) * CountGroups(group_of) / comm->size();
  return std::unique_ptr<TwoLevel>(
      new TwoLevel(plan, std::move(inside), std::move(across), weight, options));
}

TwoLevel::TwoLevel(const Plan* plan, std::unique_ptr<Communicator> inside,
                   std::unique_ptr<Communicator> across, double weight,
                   const PipelineOptions& options)
    : inside_(std::move(inside)),
      across_(std::move(across)),
      weight_(weight),
      wide_(options.memory),
      dense_(AllDense(*plan, inside_->size())),
      inside_pipeline_(&dense_, inside_.get(), options) {
  if (across_) across_pipeline_ = std::make_unique<BucketPipeline>(plan, across_.get(), options);
}

Async TwoLevel::Start(int bucket, uint64_t step, std::span<const int> parameters,
                      std::span<const TensorView> grads) {
  if (inside_->size() > 1) {
    TW_CO_RETURN_IF_ERROR(co_await inside_pipeline_.Start(bucket, step, parameters, grads));
  }
  if (across_) {
    if (weight_ != 1) Weigh(grads);
    TW_CO_RETURN_IF_ERROR(co_await across_pipeline_->Start(bucket, step, parameters, grads));
  }
  if (inside_->size() > 1) TW_CO_RETURN_IF_ERROR(co_await Share(bucket, step, grads));
  co_return OkStatus();
}

void TwoLevel::Weigh(std::span<const TensorView> grads) {
  const float more = static_cast<float>(weight_ - 1);
  for (const TensorView& grad : grads) {
    if (grad.dtype == DType::kF32) {
      kernels::Scale(grad.f32(), static_cast<float>(weight_));
    } else if (grad.dtype == DType::kF64) {
      AddScaled(grad, grad, more);
    } else {
      const TensorView wide =
          ViewOf(wide_.Get<float>(kScratchMessage, static_cast<size_t>(grad.numel)));
      ConvertToFp32(grad, wide.f32());
      AddScaled(wide, grad, more);
      ConvertFromFp32(wide.f32(), grad);
    }
  }
}

// One broadcast for each run of gradients that lie one behind the other, all at once.
Async TwoLevel::Share(int bucket, uint64_t step, std::span<const TensorView> grads) {
  std::vector<MutableByteSpan> runs;
  for (const TensorView& grad : grads) {
    const MutableByteSpan bytes = grad.mutable_raw();
    if (bytes.empty()) continue;
    if (!runs.empty() && runs.back().data() + runs.back().size() == bytes.data()) {
      runs.back() = {runs.back().data(), runs.back().size() + bytes.size()};
    } else {
      runs.push_back(bytes);
    }
  }
  std::vector<std::unique_ptr<Ticket>> tickets;
  for (const MutableByteSpan run : runs) {
    tickets.push_back(inside_->StartBroadcast(run, 0, {step, bucket, "broadcast"}));
  }
  for (const auto& ticket : tickets) TW_CO_RETURN_IF_ERROR(co_await *ticket);
  co_return OkStatus();
}

PipelineTimes TwoLevel::TakeTimes() {
  const PipelineTimes inside = inside_pipeline_.TakeTimes();
  PipelineTimes all = across_pipeline_ ? across_pipeline_->TakeTimes() : PipelineTimes{};
  all.encode_ms += inside.encode_ms;
  all.exchange_ms += inside.exchange_ms;
  all.decode_ms += inside.decode_ms;
  return all;
}

}  // namespace tw
