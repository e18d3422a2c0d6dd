#include "core/engine/plan.h"

#include <algorithm>
#include <map>

#include "absl/strings/str_cat.h"
#include "core/base/hash.h"

namespace tw {
namespace {

// Whether a message can be lost again and again, and grow, in what the policy keeps of it.
bool NeverContracts(const Route& route, const TensorSpec& spec) {
  return route.policy->traits().needs_contraction && route.codec->traits().exact_omega &&
         route.codec->Omega(spec) >= 1;
}

std::string Listed(const std::vector<std::string>& words) {
  std::string out;
  for (const std::string& word : words) out += (out.empty() ? "" : ", ") + word;
  return out;
}

Status NoExchange(const Route& route, const TensorSpec& spec,
                  const std::vector<const Exchange*>& exchanges) {
  const auto works = [&](const Route& other) {
    return ChooseExchange(other, spec, exchanges, 2) != nullptr;
  };
  std::vector<std::string> merges, accepted, feedbacks, codecs;
  for (Merge m : route.codec->traits().merges) {
    merges.push_back(MergeName(m));
    Route other = route;
    other.merge = MergeName(m);
    if (works(other)) accepted.push_back(MergeName(m));
  }
  Route any = route;
  any.merge = "auto";
  if (works(any)) {
    return ConfigError("compressor.merge = \"" + route.merge + "\" does not go with compressor " +
                       route.compressor + " and feedback " + route.feedback + "; these do: auto, " +
                       Listed(accepted) +
                       (route.codec->traits().hop_needs_feedback
                            ? "; reencode with compressor.hop_feedback = true"
                            : ""));
  }
  std::string needs;
  if (route.policy->traits().needs_unbiased && !route.codec->traits().unbiased) {
    needs = " needs an unbiased compressor";
  } else if (NeverContracts(route, spec)) {
    needs = absl::StrCat(" needs a compressor whose error is smaller than the message, and on ",
                         spec.name, " the error of this one has ", route.codec->Omega(spec),
                         " times the squared norm of the message");
  } else if (route.policy->traits().exact_mean) {
    needs =
        " needs an exact mean of the bodies (gather, sparse, or sum of a codec whose sum is "
        "exact)";
  }
  for (const auto& name : Registry<FeedbackPolicy>::Get().names()) {
    auto policy = Registry<FeedbackPolicy>::Get().Find(name)->make(ConfigSection{});
    if (!policy.ok()) continue;
    Route other = any;
    other.policy = policy->get();
    if (works(other)) feedbacks.push_back(name);
  }
  for (const auto& name : Registry<Compressor>::Get().names()) {
    auto codec = Registry<Compressor>::Get().Find(name)->make(ConfigSection{});
    if (!codec.ok()) continue;
    Route other = any;
    other.codec = codec->get();
    if (works(other)) codecs.push_back(name);
  }
  return ConfigError("compressor.name = \"" + route.compressor + "\" (merges: " + Listed(merges) +
                     ") and feedback.name = \"" + route.feedback +
                     "\" do not go together: " + route.feedback + needs + "; with " +
                     route.compressor + " these feedbacks work: " + Listed(feedbacks) + "; with " +
                     route.feedback + " these compressors: " + Listed(codecs));
}

}  // namespace

int64_t PayloadBytes(const Compressor& codec, const TensorSpec& spec) {
  int64_t total = 0;
  for (int round = 0; round < codec.traits().rounds; ++round) {
    total += codec.MaxEncodedBytes(spec, round);
  }
  return total;
}

const Exchange* ChooseExchange(const Route& route, const TensorSpec& spec,
                               const std::vector<const Exchange*>& exchanges, int ranks) {
  if (NeverContracts(route, spec)) return nullptr;
  const Exchange* best = nullptr;
  double least = 0;
  const int64_t payload = PayloadBytes(*route.codec, spec);
  for (Merge merge : route.codec->traits().merges) {
    if (route.merge != "auto" && route.merge != MergeName(merge)) continue;
    if (!Accepts(*route.policy, *route.codec, merge)) continue;
    if (merge == Merge::kReencode && route.codec->traits().hop_needs_feedback &&
        !route.hop_feedback) {
      continue;
    }
    for (const Exchange* exchange : exchanges) {
      if (exchange->merge() != merge) continue;
      const double bytes = exchange->WireBytes(spec, payload, ranks);
      if (best && bytes >= least) continue;
      best = exchange;
      least = bytes;
    }
  }
  return best;
}

bool GlobMatch(const std::string& pattern, const std::string& text) {
  size_t p = 0, t = 0, star = std::string::npos, mark = 0;
  while (t < text.size()) {
    if (p < pattern.size() && (pattern[p] == '?' || pattern[p] == text[t])) {
      ++p, ++t;
    } else if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      mark = t;
    } else if (star != std::string::npos) {
      p = star + 1;
      t = ++mark;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

bool Accepts(const FeedbackPolicy& policy, const Compressor& codec, Merge merge) {
  const FeedbackTraits& traits = policy.traits();
  if (traits.needs_unbiased && !codec.traits().unbiased) return false;
  if (!traits.exact_mean) return true;
  return merge == Merge::kGather || merge == Merge::kSparse ||
         (merge == Merge::kSum && codec.traits().exact_sum);
}

StatusOr<Plan> Plan::Build(const std::vector<TensorSpec>& specs, const PlanOptions& options) {
  Plan plan;
  plan.dense_ = options.dense;
  std::map<std::string, std::pair<int, int64_t>> dense_reasons;  // reason -> tensors, elements
  std::vector<int> matched(options.rules.size(), 0);
  int64_t asked = 0, compressed = 0;
  for (const TensorSpec& spec : specs) {
    size_t r = 0;
    while (r < options.rules.size() && !GlobMatch(options.rules[r].match, spec.name)) ++r;
    TW_CHECK(r < options.rules.size());
    ++matched[r];
    const PlanRule& rule = options.rules[r];
    ParameterPlan p;
    p.spec = spec;
    p.route = rule.route;
    p.rule = static_cast<int>(r);
    p.start_step = rule.start_step;
    p.route.exchange = ChooseExchange(p.route, spec, options.exchanges, options.world_size);
    if (!p.route.exchange) return NoExchange(p.route, spec, options.exchanges);

    const CompressorTraits& traits = p.route.codec->traits();
    if (traits.most_ranks > 0 && options.world_size > traits.most_ranks) {
      return ConfigError("compressor.name = \"" + p.route.compressor + "\" works among at most " +
                         std::to_string(traits.most_ranks) + " ranks, these are " +
                         std::to_string(options.world_size));
    }
    const int64_t raw = spec.numel() * DTypeBytes(spec.dtype);
    p.payload_bytes = PayloadBytes(*p.route.codec, spec);
    if (traits.lossless && !p.route.policy->traits().exact_mean) {
      p.why_dense = "compressor none";
    } else if (!traits.lossless && spec.numel() < rule.min_numel) {
      p.why_dense = "fewer than min_numel = " + std::to_string(rule.min_numel) + " elements";
    } else if (!traits.lossless && traits.matrix_only && !spec.is_matrix()) {
      p.why_dense = "not a matrix";
    } else if (!traits.lossless && traits.fixed_size && p.payload_bytes >= raw) {
      p.why_dense = "encoding would not be smaller";
    } else {
      p.compressed = true;
    }
    if (!traits.lossless) ++asked;
    if (!p.compressed) {
      if (!traits.lossless) {
        auto& [tensors, elements] = dense_reasons[p.why_dense];
        ++tensors;
        elements += spec.numel();
      }
      p.route = options.dense;
      if (!traits.lossless && options.leftover_sums) p.route.exchange = options.leftover_sums;
      p.payload_bytes = raw;
    } else if (!traits.lossless) {
      ++compressed;
    }
    plan.parameters_.push_back(std::move(p));
  }
  for (const auto& [reason, count] : dense_reasons) {
    plan.notes_.push_back(std::to_string(count.first) + " parameters (" +
                          std::to_string(count.second) + " elements) travel dense: " + reason);
  }
  for (size_t r = 0; r + 1 < options.rules.size(); ++r) {
    if (matched[r] == 0) {
      plan.notes_.push_back("[[compressor.rule]] match = \"" + options.rules[r].match +
                            "\" matches no parameter");
    }
  }
  const auto forgets = [](const ParameterPlan& p) {
    return p.route.hop_feedback && p.route.exchange->merge() != Merge::kReencode;
  };
  if (std::any_of(plan.parameters_.begin(), plan.parameters_.end(), forgets)) {
    plan.notes_.push_back(
        "compressor.hop_feedback does nothing where bodies are not encoded a second time "
        "(exchange reencode)");
  }
  if (asked > 0 && compressed == 0) {
    plan.notes_.push_back("compression inactive: every parameter travels dense");
  }
  return plan;
}

void Plan::Choose(size_t parameter, const Route& route, bool compressed,
                  const std::string& option) {
  ParameterPlan& p = parameters_[parameter];
  TW_CHECK(route.exchange != nullptr);
  p.route = route;
  p.compressed = compressed;
  p.option = option;
  p.payload_bytes = PayloadBytes(*route.codec, p.spec);
}

uint64_t Plan::fingerprint() const {
  std::string text;
  for (const ParameterPlan& p : parameters_) {
    text += p.spec.name + ":";
    for (int64_t d : p.spec.shape) text += std::to_string(d) + ",";
    text += std::string(DTypeName(p.spec.dtype)) + ":" + p.route.compressor + ":" +
            p.route.feedback + ":" + MergeName(p.route.exchange->merge()) + ":" +
            std::to_string(p.start_step) + ":" + std::to_string(p.payload_bytes) + "\n";
  }
  return Hash64(text);
}

}  // namespace tw
