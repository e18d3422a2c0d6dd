#include "launch/bench_step.h"

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <algorithm>
#include <nlohmann/json.hpp>

#include "absl/strings/str_format.h"
#include "core/base/clock.h"
#include "core/base/rng.h"
#include "core/engine/update.h"
#include "launch/compose.h"

namespace tw {
namespace {

double Median(std::vector<double> v) {
  std::sort(v.begin(), v.end());
  return v.size() % 2 ? v[v.size() / 2] : (v[v.size() / 2 - 1] + v[v.size() / 2]) / 2;
}

// 90 % percentile bootstrap interval of the median; seeded.
std::pair<double, double> BootstrapInterval(const std::vector<double>& values) {
  constexpr int kResamples = 2000;
  const auto stream = RngStream::Of(1, RngPurpose::kTest, 0, 0, 0);
  std::vector<double> medians, sample(values.size());
  uint64_t draw = 0;
  for (int i = 0; i < kResamples; ++i) {
    for (double& x : sample) x = values[stream.Below(draw++, values.size())];
    medians.push_back(Median(sample));
  }
  std::sort(medians.begin(), medians.end());
  return {medians[kResamples * 5 / 100], medians[kResamples * 95 / 100]};
}

// One model with its optimizer state, stepped in one of the two ways.
class Stepper {
 public:
  static StatusOr<std::unique_ptr<Stepper>> Create(const LoadedConfig& loaded, bool reduced) {
    auto s = std::make_unique<Stepper>();
    TW_ASSIGN_OR_RETURN(s->world_, World::Open("thread", 60));
    TW_ASSIGN_OR_RETURN(s->assembly_, Assemble(loaded, 0, 1));
    const Settings& settings = loaded.settings;
    s->lr_ = settings.optimizer.lr;
    if (reduced) {
      s->reducer_ = std::make_unique<GradientReducer>(
          s->assembly_->parameters, s->assembly_->plan.get(), &s->world_->comm(),
          &s->world_->lane(), &s->state_,
          ReducerOptions{static_cast<int64_t>(settings.comm.bucket_cap_mb * (1 << 20)),
                         settings.comm.overlap, static_cast<uint64_t>(settings.train.seed), nullptr,
                         nullptr, s->assembly_->sketches});
    }
    return s;
  }

  Status Step() {
    ++update_;
    const uint64_t step = static_cast<uint64_t>(update_);
    if (reducer_) {
      reducer_->ZeroGradients();
      const at::Tensor loss = assembly_->task->Loss(step, 0);
      reducer_->Arm(step);
      loss.backward();
      double sums[] = {0.0};
      TW_RETURN_IF_ERROR(reducer_->Finish(sums).status());
      return Update(reducer_->views());
    }
    const Sketches& sketches = assembly_->sketches;
    for (const auto& [name, parameter] : assembly_->parameters) {
      at::Tensor leaf = GradientLeaf(sketches, name, parameter);
      leaf.mutable_grad() = at::Tensor();
    }
    assembly_->task->Loss(step, 0).backward();
    views_.clear();
    for (size_t i = 0; i < assembly_->parameters.size(); ++i) {
      const auto& [name, parameter] = assembly_->parameters[i];
      const auto sketch = sketches.find(name);
      views_.push_back({&assembly_->plan->parameters()[i].spec, ViewOf(parameter),
                        ViewOf(GradientLeaf(sketches, name, parameter).grad()),
                        sketch == sketches.end() ? nullptr : sketch->second.expansion});
    }
    return Update(views_);
  }

 private:
  Status Update(std::span<const ParameterView> views) {
    return tw::Update(*assembly_->optimizer, views, {lr_, 1.0f, update_, &state_});
  }

  std::unique_ptr<World> world_;
  std::unique_ptr<Assembly> assembly_;
  StateBag state_;
  std::unique_ptr<GradientReducer> reducer_;
  std::vector<ParameterView> views_;
  double lr_ = 0;
  int64_t update_ = 0;
};

StatusOr<int64_t> TakeInt(std::vector<std::string>* overrides, const std::string& key,
                          int64_t value) {
  for (auto it = overrides->begin(); it != overrides->end(); ++it) {
    if (it->rfind(key + "=", 0) != 0) continue;
    const std::string text = it->substr(key.size() + 1);
    const int64_t parsed = std::atoll(text.c_str());
    if (parsed < 1) return ConfigError("bench step: " + *it + " is not allowed; it must be >= 1");
    overrides->erase(it);
    return parsed;
  }
  return value;
}

}  // namespace

Status RunBenchStep(const std::vector<std::string>& arguments, bool json, std::ostream& out) {
  std::vector<std::string> overrides = arguments;
  TW_ASSIGN_OR_RETURN(const int64_t blocks, TakeInt(&overrides, "blocks", 9));
  TW_ASSIGN_OR_RETURN(const int64_t block_steps, TakeInt(&overrides, "block_steps", 8));
  overrides.insert(overrides.begin(), "data.path=synthetic");
  TW_ASSIGN_OR_RETURN(const LoadedConfig loaded,
                      LoadedConfig::Load("", overrides, {"blocks", "block_steps"}));
  at::set_num_threads(static_cast<int>(std::max<int64_t>(1, loaded.settings.train.threads)));
  TW_ASSIGN_OR_RETURN(auto reduced, Stepper::Create(loaded, true));
  TW_ASSIGN_OR_RETURN(auto plain, Stepper::Create(loaded, false));
  const auto block = [&](Stepper& stepper) -> StatusOr<double> {
    const double start = NowMs();
    for (int64_t i = 0; i < block_steps; ++i) TW_RETURN_IF_ERROR(stepper.Step());
    return (NowMs() - start) / static_cast<double>(block_steps);
  };
  TW_RETURN_IF_ERROR(block(*reduced).status());  // warm: first steps allocate
  TW_RETURN_IF_ERROR(block(*plain).status());
  std::vector<double> with, without, ratios;
  for (int64_t b = 0; b < blocks; ++b) {
    // Which of the two goes first changes with every pair: drift of the machine favours neither.
    double a = 0, c = 0;
    if (b % 2 == 0) {
      TW_ASSIGN_OR_RETURN(a, block(*reduced));
      TW_ASSIGN_OR_RETURN(c, block(*plain));
    } else {
      TW_ASSIGN_OR_RETURN(c, block(*plain));
      TW_ASSIGN_OR_RETURN(a, block(*reduced));
    }
    with.push_back(a);
    without.push_back(c);
    ratios.push_back(a / c);
  }
  const auto [low, high] = BootstrapInterval(ratios);
  const std::string& name = loaded.settings.compressor.name;
  if (json) {
    nlohmann::ordered_json j = {{"bench", "step"},
                                {"name", name},
                                {"ranks", 1},
                                {"threads", at::get_num_threads()},
                                {"blocks", blocks},
                                {"block_steps", block_steps},
                                {"ms", Median(with)},
                                {"plain_ms", Median(without)},
                                {"ratio", Median(ratios)},
                                {"ratio_low", low},
                                {"ratio_high", high}};
    out << j.dump() << "\n";
  } else {
    out << absl::StrFormat(
        "step with the reducer (%s) %.2f ms, without %.2f ms: ratio %.4f, 90 %% interval %.4f .. "
        "%.4f "
        "(%d alternating pairs of blocks of %d steps, %d thread%s)\n",
        name, Median(with), Median(without), Median(ratios), low, high, blocks, block_steps,
        at::get_num_threads(), at::get_num_threads() == 1 ? "" : "s");
  }
  return OkStatus();
}

}  // namespace tw
