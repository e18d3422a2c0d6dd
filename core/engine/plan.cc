#include "core/engine/plan.h"

#include <map>

#include "core/base/hash.h"

namespace tw {
namespace {

Status NoExchange(const Route& route, const std::vector<const Exchange*>& exchanges) {
  std::string merges;
  for (Merge m : route.codec->traits().merges)
    merges += std::string(merges.empty() ? "" : ", ") + MergeName(m);
  std::string needs;
  if (route.policy->traits().needs_unbiased && !route.codec->traits().unbiased) {
    needs = " needs an unbiased compressor";
  } else if (route.policy->traits().exact_mean) {
    needs = " needs an exact mean of the bodies (gather, or sum of a codec whose sum is exact)";
  }
  std::string works;
  for (const auto& name : Registry<FeedbackPolicy>::Get().names()) {
    auto policy = Registry<FeedbackPolicy>::Get().Find(name)->make(ConfigSection{});
    if (!policy.ok()) continue;
    Route other = route;
    other.policy = policy->get();
    if (ChooseExchange(other, exchanges)) works += (works.empty() ? "" : ", ") + name;
  }
  std::string codecs;
  for (const auto& name : Registry<Compressor>::Get().names()) {
    auto codec = Registry<Compressor>::Get().Find(name)->make(ConfigSection{});
    if (!codec.ok()) continue;
    Route other = route;
    other.codec = codec->get();
    if (ChooseExchange(other, exchanges)) codecs += (codecs.empty() ? "" : ", ") + name;
  }
  return ConfigError("compressor.name = \"" + route.compressor + "\" (merges: " + merges +
                     ") and feedback.name = \"" + route.feedback +
                     "\" do not go together: " + route.feedback + needs + "; with " +
                     route.compressor + " these feedbacks work: " + works + "; with " +
                     route.feedback + " these compressors: " + codecs);
}

}  // namespace

int64_t PayloadBytes(const Compressor& codec, const TensorSpec& spec) {
  int64_t total = 0;
  for (int round = 0; round < codec.traits().rounds; ++round) {
    total += codec.MaxEncodedBytes(spec, round);
  }
  return total;
}

const Exchange* ChooseExchange(const Route& route, const std::vector<const Exchange*>& exchanges) {
  for (Merge merge : route.codec->traits().merges) {
    if (!Accepts(*route.policy, *route.codec, merge)) continue;
    for (const Exchange* exchange : exchanges) {
      if (exchange->merge() == merge) return exchange;
    }
  }
  return nullptr;
}

double WireBytes(const Exchange& exchange, int64_t payload_bytes, int ranks) {
  const double body = static_cast<double>(payload_bytes), n = ranks;
  if (exchange.merge() == Merge::kGather) {
    return (body + static_cast<double>(exchange.header_bytes())) * (n - 1);
  }
  return 2.0 * body * (n - 1) / n;
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
  return merge == Merge::kGather || (merge == Merge::kSum && codec.traits().exact_sum);
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
    p.route.exchange = ChooseExchange(p.route, options.exchanges);
    if (!p.route.exchange) return NoExchange(p.route, options.exchanges);

    const CompressorTraits& traits = p.route.codec->traits();
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
