#include "launch/explain_cluster.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>
#include <map>

#include "absl/strings/str_format.h"
#include "core/base/clock.h"
#include "core/base/file_io.h"
#include "core/base/thread_time.h"
#include "core/engine/buckets.h"
#include "core/engine/catch_torch.h"
#include "core/engine/norms.h"
#include "core/engine/update.h"

namespace tw {
namespace {

double Median(std::vector<double> x) {
  if (x.empty()) return 0;
  std::sort(x.begin(), x.end());
  return (x[x.size() / 2] + x[(x.size() - 1) / 2]) / 2;
}

// ---- what is measured

// Forward, backward and update of a few batches. On one thread time on a core: neighbours do not
// count.
StatusOr<Arithmetic> MeasureArithmetic(const LoadedConfig& loaded, const Assembly& a) {
  constexpr int kSteps = 5;
  StateBag state;
  Workspace scratch;
  const bool one_thread = at::get_num_threads() == 1;
  const auto now = [&] { return one_thread ? ThisThreadTime().cpu_ms : NowMs(); };
  std::vector<double> forward, backward, update;
  for (int step = 0; step <= kSteps; ++step) {
    const double start = now();
    at::Tensor loss = a.task->Loss(static_cast<uint64_t>(step), 0);
    const double forward_end = now();
    loss.backward();
    const double backward_end = now();
    std::vector<ParameterView> views;
    for (size_t i = 0; i < a.parameters.size(); ++i) {
      const auto& [name, parameter] = a.parameters[i];
      const at::Tensor grad = GradientLeaf(a.sketches, name, parameter).grad();
      if (!grad.defined()) continue;
      const auto sketch = a.sketches.find(name);
      views.push_back({&a.plan->parameters()[i].spec, ViewOf(parameter), ViewOf(grad),
                       sketch == a.sketches.end() ? nullptr : sketch->second.expansion});
    }
    const double norm = GradientNorm(views);
    TW_CHECK_GE(norm, 0.0);
    UpdateContext context{1e-6 * loaded.settings.optimizer.lr, 1.0f, step + 1, &state};
    context.treatments = a.treatments;
    context.scratch = &scratch;
    context.masters = a.masters;
    TW_RETURN_IF_ERROR(Update(*a.optimizer, views, context));
    const double end = now();
    for (const auto& [name, parameter] : a.parameters) {
      at::Tensor leaf = GradientLeaf(a.sketches, name, parameter);
      leaf.mutable_grad() = at::Tensor();
    }
    if (step == 0) continue;  // allocates
    forward.push_back(forward_end - start);
    backward.push_back(backward_end - forward_end);
    update.push_back(end - backward_end);
  }
  const double times = static_cast<double>(loaded.settings.train.accumulate);
  return Arithmetic{times * Median(forward), times * Median(backward), Median(update)};
}

// Medians over a run's steps. The main thread's time on a core, divided as the wall times are, or
// these themselves.
StatusOr<Arithmetic> ReadArithmetic(const std::string& run, bool as_wall) {
  const std::string path = (std::filesystem::path(run) / "metrics.jsonl").string();
  TW_ASSIGN_OR_RETURN(const std::string text, ReadTextFile(path));
  std::vector<double> cpu, forward, backward, update;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    const auto record = nlohmann::json::parse(line, nullptr, false);
    if (!record.is_object()) continue;  // torn by a kill
    const auto number = [&](const char* key) {
      const auto it = record.find(key);
      return it != record.end() && it->is_number() ? it->get<double>() : NAN;
    };
    if (!(number("step") > 2) || std::isnan(number("cpu_ms"))) continue;
    cpu.push_back(number("cpu_ms"));
    forward.push_back(number("forward_ms"));
    backward.push_back(number("backward_ms"));
    update.push_back(number("optimizer_ms"));
  }
  if (cpu.empty()) return DataError(path + ": no steps behind the second with cpu_ms");
  const Arithmetic wall{Median(forward), Median(backward), Median(update)};
  const double scale = as_wall ? 1.0 : std::min(1.0, Median(cpu) / wall.sum_ms());
  return Arithmetic{scale * wall.forward_ms, scale * wall.backward_ms, scale * wall.optimizer_ms};
}

struct CodecTimes {
  std::vector<double> encode_ms;  // one a round
  std::vector<int64_t> bytes;
  double decode_ms = 0;
};

// With the addition of an error memory pending, as under ef14. Of a tensor too large to be worth
// the time its first rows.
StatusOr<CodecTimes> MeasureCodec(const Compressor& codec, const TensorSpec& whole) {
  constexpr int64_t kMostElements = 4 << 20;
  constexpr int kRepetitions = 3;
  TensorSpec spec = whole;
  if (whole.numel() > kMostElements && !spec.shape.empty()) {
    spec.shape[0] = std::max<int64_t>(1, spec.shape[0] * kMostElements / whole.numel());
  }
  const double scale =
      spec.numel() ? static_cast<double>(whole.numel()) / static_cast<double>(spec.numel()) : 1.0;
  spec.dtype = DType::kF32;
  const size_t numel = static_cast<size_t>(spec.numel());
  std::vector<float> gradient(numel), error(numel), mean(numel);
  const RngStream stream = RngStream::Of(1, RngPurpose::kTest, 0, spec.id, 0);
  for (size_t i = 0; i < numel; ++i) gradient[i] = 1e-3f * (stream.Uniform(i) - 0.5f);
  StateBag bag;
  const StateScope state(&bag, "codec/" + spec.name + "/");
  Workspace scratch;
  CodecContext context;
  context.spec = &spec;
  context.state = &state;
  context.scratch = &scratch;
  const size_t rounds = static_cast<size_t>(codec.traits().rounds);
  std::vector<std::vector<double>> encodes(rounds);
  std::vector<double> decodes;
  for (int repetition = -1; repetition < kRepetitions; ++repetition) {
    context.step = static_cast<uint64_t>(repetition + 1);
    Message message{ViewOf(error), ViewOf(gradient), 1.0f};
    ByteSpan body;
    for (size_t round = 0; round < rounds; ++round) {
      const int r = static_cast<int>(round);
      const auto room = scratch.Get<uint8_t>(kScratchSend0 + r % 2,
                                             static_cast<size_t>(codec.MaxEncodedBytes(spec, r)));
      const double start = NowMs();
      TW_ASSIGN_OR_RETURN(const int64_t size, codec.EncodeAny(r, body, message, context, room));
      if (repetition >= 0) encodes[round].push_back(NowMs() - start);
      body = room.first(static_cast<size_t>(size));
    }
    const double start = NowMs();
    TW_RETURN_IF_ERROR(codec.DecodeAddAny(body, 1.0f, context, ViewOf(mean)));
    if (repetition >= 0) decodes.push_back(NowMs() - start);
  }
  CodecTimes times;
  times.decode_ms = scale * Median(decodes);
  for (size_t round = 0; round < rounds; ++round) {
    times.encode_ms.push_back(scale * Median(encodes[round]));
    times.bytes.push_back(codec.MaxEncodedBytes(whole, static_cast<int>(round)));
  }
  return times;
}

// ---- what is foretold

// How each parameter travels.
struct Way {
  const Compressor* codec = nullptr;
  const Exchange* exchange = nullptr;
  const CodecTimes* times = nullptr;
};

class Forecaster {
 public:
  Forecaster(const LoadedConfig& loaded, const Assembly& a) : loaded_(loaded), a_(a) {
    std::vector<int64_t> sizes;
    for (const ParameterPlan& p : a.plan->parameters()) {
      sizes.push_back(p.spec.numel() * DTypeBytes(p.spec.dtype));
    }
    buckets_ =
        AssignBuckets(sizes, static_cast<int64_t>(loaded.settings.comm.bucket_cap_mb * (1 << 20)));
  }

  StatusOr<const CodecTimes*> TimesOf(const Compressor& codec, const TensorSpec& spec) {
    const auto key = std::pair(&codec, spec.shape);
    auto it = times_.find(key);
    if (it == times_.end()) {
      TW_ASSIGN_OR_RETURN(CodecTimes times, MeasureCodec(codec, spec));
      it = times_.emplace(key, std::move(times)).first;
    }
    return &it->second;
  }

  // As Plan::Build would have it: what is small, or would not become smaller, goes dense.
  StatusOr<std::vector<Way>> WaysOf(const Compressor* codec, const Exchange* exchange) {
    std::vector<Way> ways;
    for (const ParameterPlan& p : a_.plan->parameters()) {
      const Compressor* mine = codec ? codec : p.route.codec;
      const int64_t numel = p.spec.numel();
      const bool dense = codec ? numel < loaded_.settings.compressor.min_numel ||
                                     (codec->traits().matrix_only && p.spec.shape.size() < 2) ||
                                     PayloadBytes(*codec, p.spec) >= 4 * numel
                               : !p.compressed;
      Way way{dense ? a_.plan->dense().codec : mine,
              dense ? a_.plan->dense().exchange : (exchange ? exchange : p.route.exchange)};
      TW_ASSIGN_OR_RETURN(way.times, TimesOf(*way.codec, p.spec));
      ways.push_back(way);
    }
    return ways;
  }

  // Nothing where a compressor does not serve so many ranks.
  std::optional<StepPrediction> Predict(const std::vector<Way>& ways, const Arithmetic& arithmetic,
                                        const ClusterWords& words, int ranks) const {
    std::vector<BucketWork> work;
    for (const Way& way : ways) {
      const int most = way.codec->traits().most_ranks;
      if (most > 0 && ranks > most) return std::nullopt;
    }
    for (const std::vector<int>& members : buckets_) work.push_back(Work(members, ways, ranks));
    return PredictStep(work, arithmetic, {*words.bytes_per_ms, words.latency_ms}, ranks,
                       static_cast<int>(loaded_.settings.comm.concurrent_buckets),
                       loaded_.settings.comm.overlap);
  }

 private:
  BucketWork Work(const std::vector<int>& members, const std::vector<Way>& ways, int ranks) const {
    BucketWork out;
    // Groups as the pipeline makes them: one exchange, one number of rounds.
    std::map<std::pair<const Exchange*, int>, std::vector<int>> groups;
    for (const int i : members) {
      const Way& way = ways[static_cast<size_t>(i)];
      out.numel += a_.plan->parameters()[static_cast<size_t>(i)].spec.numel();
      groups[{way.exchange, way.codec->traits().rounds}].push_back(i);
    }
    double carry_ms = 0;  // decoding that runs before the next group's encoding
    for (const auto& [kind, parameters] : groups) {
      const auto [exchange, rounds] = kind;
      ExchangeWork last;
      double decode_ms = 0, encode_ms = 0;
      for (int round = 0; round < rounds; ++round) {
        LaneStage stage{std::exchange(carry_ms, 0.0)};
        int64_t payload = 0;
        for (const int i : parameters) {
          const Way& way = ways[static_cast<size_t>(i)];
          const size_t r = static_cast<size_t>(round);
          const bool in_place = way.codec->traits().lossless;
          stage.lane_ms += in_place ? 0 : way.times->encode_ms[r];
          encode_ms += way.times->encode_ms[r];
          payload += way.times->bytes[r];
          stage.sent_bytes += exchange->WireBytes(
              a_.plan->parameters()[static_cast<size_t>(i)].spec, way.times->bytes[r], ranks);
          if (round + 1 == rounds) decode_ms += way.times->decode_ms;
        }
        last = exchange->Work(ways[static_cast<size_t>(parameters[0])].codec->traits(), payload,
                              ranks);
        stage.waits = last.waits;
        stage.messages = last.messages;
        out.stages.push_back(stage);
      }
      carry_ms = last.decodes * decode_ms + last.encodes * encode_ms;
    }
    out.stages.push_back({carry_ms});
    return out;
  }

  const LoadedConfig& loaded_;
  const Assembly& a_;
  std::vector<std::vector<int>> buckets_;
  std::map<std::pair<const Compressor*, std::vector<int64_t>>, CodecTimes> times_;
};

struct Contender {
  std::string setting, exchange;
  std::vector<Way> ways;
};

StatusOr<std::vector<Contender>> Contenders(const Assembly& a, Forecaster& forecaster,
                                            std::vector<std::unique_ptr<Compressor>>* made) {
  std::vector<Contender> out;
  TW_ASSIGN_OR_RETURN(auto dense, forecaster.WaysOf(a.plan->dense().codec, nullptr));
  const Exchange* const planned = a.plan->dense().exchange;
  out.push_back({"dense", NameOf(*planned), dense});
  for (const std::string& other : Registry<Exchange>::Get().names()) {
    const Exchange* exchange = FindExchange(other);
    if (exchange->merge() != Merge::kSum || exchange == planned) continue;
    if (std::isinf(exchange->Work(a.plan->dense().codec->traits(), 1, 2).waits)) continue;
    auto ways = dense;
    for (Way& way : ways) way.exchange = exchange;
    out.push_back({"dense", other, std::move(ways)});
  }
  std::vector<Merge> all = {Merge::kSum, Merge::kGather, Merge::kReencode, Merge::kSparse};
  const auto accepted = [&](const FeedbackPolicy& policy, const Compressor& codec, Merge merge) {
    const auto& merges = codec.traits().merges;
    return std::find(merges.begin(), merges.end(), merge) != merges.end() &&
           Accepts(policy, codec, merge) && FindExchange(merge);
  };
  bool any = false;
  std::vector<Merge> common = all;
  std::string name;
  for (const ParameterPlan& p : a.plan->parameters()) {
    if (!p.compressed) continue;
    any = true;
    if (name.empty()) name = p.route.compressor;
    if (name != p.route.compressor) name = "as configured";
    std::erase_if(common, [&](Merge m) { return !accepted(*p.route.policy, *p.route.codec, m); });
  }
  if (any) {
    TW_ASSIGN_OR_RETURN(auto ways, forecaster.WaysOf(nullptr, nullptr));
    std::string used;
    const Exchange* first = nullptr;
    for (size_t i = 0; i < ways.size(); ++i) {
      if (!a.plan->parameters()[i].compressed) continue;
      if (!first) used = MergeName((first = ways[i].exchange)->merge());
      if (ways[i].exchange != first) used = "mixed";
    }
    out.push_back({name, used, std::move(ways)});
    for (const Merge merge : common) {
      if (MergeName(merge) == used) continue;
      TW_ASSIGN_OR_RETURN(auto other, forecaster.WaysOf(nullptr, FindExchange(merge)));
      out.push_back({name, MergeName(merge), std::move(other)});
    }
    return out;
  }
  for (const std::string& compressor : Registry<Compressor>::Get().names()) {
    TW_ASSIGN_OR_RETURN(auto codec, Registry<Compressor>::Get().Make(ConfigSection{}, compressor));
    const Exchange* exchange = FindExchange(codec->traits().merges[0]);
    if (!exchange || codec->traits().lossless) continue;
    TW_ASSIGN_OR_RETURN(auto ways, forecaster.WaysOf(codec.get(), exchange));
    const bool any_compressed = std::any_of(
        ways.begin(), ways.end(), [&](const Way& way) { return way.codec == codec.get(); });
    if (!any_compressed) continue;  // at its default keys nothing becomes smaller
    out.push_back({compressor, MergeName(exchange->merge()), std::move(ways)});
    made->push_back(std::move(codec));
  }
  return out;
}

}  // namespace

StatusOr<ClusterForecast> ForetellCluster(const LoadedConfig& loaded, const Assembly& a,
                                          const ClusterWords& words) {
  ClusterForecast out;
  if (words.run.empty()) {
    TW_ASSIGN_OR_RETURN(out.arithmetic, MeasureArithmetic(loaded, a));
    out.measured = absl::StrFormat("measured here, %d thread%s", at::get_num_threads(),
                                   at::get_num_threads() == 1 ? "" : "s");
  } else {
    TW_ASSIGN_OR_RETURN(out.arithmetic, ReadArithmetic(words.run, words.wall));
    out.measured = "from " + words.run;
  }
  Forecaster forecaster(loaded, a);
  std::vector<std::unique_ptr<Compressor>> made;
  TW_ASSIGN_OR_RETURN(const auto contenders, Contenders(a, forecaster, &made));
  for (int n = 2; n < words.ranks; n *= n < 8 ? 2 : 8) out.ranks.push_back(n);
  out.ranks.push_back(words.ranks);
  const auto predict = [&](const Contender& contender, int ranks) {
    return forecaster.Predict(contender.ways, out.arithmetic, words, ranks);
  };
  const auto dense_ms = [&](int ranks) {
    double least = std::numeric_limits<double>::infinity();
    for (const Contender& contender : contenders) {
      if (contender.setting == "dense") {
        least = std::min(least, predict(contender, ranks)->step_ms);
      }
    }
    return least;
  };
  for (const Contender& contender : contenders) {
    ClusterRow row{contender.setting, contender.exchange, {}};
    for (const int n : out.ranks) row.predictions.push_back(predict(contender, n));
    for (int n = 4096; n >= 2; n /= 2) {
      const auto prediction = predict(contender, n);
      if (prediction && prediction->step_ms <= dense_ms(n)) break;
      row.loses_from = n;
    }
    out.rows.push_back(std::move(row));
  }
  return out;
}

nlohmann::ordered_json ToJson(const ClusterForecast& forecast, const ClusterWords& words) {
  nlohmann::ordered_json rows = nlohmann::ordered_json::array();
  for (const ClusterRow& row : forecast.rows) {
    for (size_t i = 0; i < forecast.ranks.size(); ++i) {
      if (!row.predictions[i] || !std::isfinite(row.predictions[i]->step_ms)) continue;
      const StepPrediction& p = *row.predictions[i];
      rows.push_back({{"setting", row.setting},
                      {"exchange", row.exchange},
                      {"ranks", forecast.ranks[i]},
                      {"step_ms", p.step_ms},
                      {"exposed_ms", p.exposed_ms},
                      {"lane_ms", p.lane_ms},
                      {"wire_ms", p.wire_ms},
                      {"sent_bytes", p.sent_bytes},
                      {"loses_from", row.loses_from}});
    }
  }
  return {{"bytes_per_s", *words.bytes_per_ms * 1e3},
          {"latency_ms", words.latency_ms},
          {"arithmetic",
           {{"forward_ms", forecast.arithmetic.forward_ms},
            {"backward_ms", forecast.arithmetic.backward_ms},
            {"optimizer_ms", forecast.arithmetic.optimizer_ms},
            {"measured", forecast.measured}}},
          {"predictions", std::move(rows)}};
}

void PrintForecast(const ClusterForecast& forecast, const ClusterWords& words, std::ostream& out) {
  const Arithmetic& a = forecast.arithmetic;
  out << absl::StrFormat(
      "\n# a step on links of %.4g Mbit/s, %.4g us\n"
      "  arithmetic %.1f ms: forward %.1f, backward %.1f, optimizer %.1f (%s)\n"
      "  ms a step, in brackets what of it waits for communication, by number of ranks\n",
      *words.bytes_per_ms * 8e-3, words.latency_ms * 1e3, a.sum_ms(), a.forward_ms, a.backward_ms,
      a.optimizer_ms, forecast.measured);
  out << absl::StrFormat("  %-18s%-10s", "", "exchange");
  for (const int n : forecast.ranks) out << absl::StrFormat("%20d", n);
  out << "  slower than dense\n";
  for (const ClusterRow& row : forecast.rows) {
    out << absl::StrFormat("  %-18s%-10s", row.setting, row.exchange);
    for (const auto& p : row.predictions) {
      out << absl::StrFormat("%20s", p && std::isfinite(p->step_ms)
                                         ? absl::StrFormat("%.1f (%.1f)", p->step_ms, p->exposed_ms)
                                         : "-");
    }
    if (row.setting != "dense") {
      out << (row.loses_from == 0   ? "  never"
              : row.loses_from == 2 ? "  always"
                                    : absl::StrFormat("  from %d ranks", row.loses_from));
    }
    out << "\n";
  }
}

}  // namespace tw
