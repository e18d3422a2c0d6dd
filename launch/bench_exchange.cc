#include "launch/bench_exchange.h"

#include <sys/resource.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>

#include "absl/strings/str_format.h"
#include "core/api/exchange.h"
#include "core/base/clock.h"
#include "launch/link_rate.h"
#include "launch/world.h"

namespace tw {
namespace {

struct BenchExchangeConfig {
  std::string name;
  int64_t numel = 0;
  int64_t repetitions = 5;
  std::string rate;
  double timeout_s = 300;
  static FieldList<BenchExchangeConfig> Fields() {
    return FieldList<BenchExchangeConfig>()
        .Text("name", &BenchExchangeConfig::name, {},
              "exchange or compressor; empty: every exchange of sums")
        .Int("numel", &BenchExchangeConfig::numel, {0, int64_t{1} << 32},
             "fp32 elements; 0: 2.5 and 10 million")
        .Int("repetitions", &BenchExchangeConfig::repetitions, {1, 1000}, "medians are over these")
        .Text("rate", &BenchExchangeConfig::rate, {}, "of the links, as 100mbit or 1gbit")
        .Real("timeout_s", &BenchExchangeConfig::timeout_s, {0, 1e9, kOpenLow},
              "deadline of every exchange");
  }
};

// What travels, and how.
struct Subject {
  std::string name;
  std::unique_ptr<Compressor> codec;
  const Exchange* exchange = nullptr;
  int wire_id = 0;
};

struct Row {
  double ms = 0, cpu_ms = 0;
  int64_t wire_bytes = 0;
};

double CpuMs() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  const auto ms = [](const timeval& t) {
    return 1e3 * static_cast<double>(t.tv_sec) + 1e-3 * static_cast<double>(t.tv_usec);
  };
  return ms(usage.ru_utime) + ms(usage.ru_stime);
}

StatusOr<std::vector<Subject>> Subjects(const std::string& name, const ConfigSection& section) {
  std::vector<Subject> out;
  for (const std::string& exchange : Registry<Exchange>::Get().names()) {
    const Exchange* found = FindExchange(exchange);
    if (name.empty() ? found->merge() != Merge::kSum : name != exchange) continue;
    if (found->merge() != Merge::kSum) {
      return ConfigError("bench exchange: " + exchange +
                         " moves no dense sums; name a compressor that uses it");
    }
    TW_ASSIGN_OR_RETURN(auto codec, Registry<Compressor>::Get().Make(ConfigSection{}, "none"));
    out.push_back({exchange, std::move(codec), found, 0});
  }
  if (!out.empty()) return out;
  const auto* entry = Registry<Compressor>::Get().Find(name);
  if (!entry) {
    std::vector<std::string> known = Registry<Exchange>::Get().names();
    const auto codecs = Registry<Compressor>::Get().names();
    known.insert(known.end(), codecs.begin(), codecs.end());
    return ConfigError("bench exchange: name = \"" + name + "\" is neither an exchange nor a " +
                       "compressor" + KnownWords(name, known));
  }
  Subject subject{name, nullptr, nullptr, entry->wire_id};
  TW_ASSIGN_OR_RETURN(subject.codec, entry->make(section));
  subject.exchange = FindExchange(subject.codec->traits().merges[0]);
  out.push_back(std::move(subject));
  return out;
}

// One bucket with one matrix, encoded and exchanged again and again.
class Bench {
 public:
  Bench(const Subject& subject, int64_t numel, Communicator* comm)
      : subject_(subject),
        comm_(comm),
        spec_{0, "bench", Shape(numel), DType::kF32},
        scope_(&bag_, "codec/bench/"),
        message_(static_cast<size_t>(spec_.numel())),
        mean_(message_.size()) {
    const RngStream stream =
        RngStream::Of(1, RngPurpose::kTest, 0, 0, static_cast<uint32_t>(comm->rank()));
    for (size_t i = 0; i < message_.size(); ++i) message_[i] = stream.Uniform(i) - 0.5f;
  }

  // Encoding and decoding are not timed; all ranks start together.
  StatusOr<double> Once(uint64_t step) {
    double ms = 0;
    segment_.body = {};
    for (int round = 0; round < subject_.codec->traits().rounds; ++round) {
      TW_ASSIGN_OR_RETURN(const MutableByteSpan send, Encode(step, round));
      TW_RETURN_IF_ERROR(comm_->Barrier({step, -1, "start"}));
      const double start = NowMs();
      ExchangeTimes times;
      TW_RETURN_IF_ERROR(subject_.exchange->Run({&segment_, 1}, send, round,
                                                round + 1 == subject_.codec->traits().rounds,
                                                {step, 0, "bench"}, *comm_, scratch_, &times));
      ms += NowMs() - start;
    }
    return ms;
  }

 private:
  static std::vector<int64_t> Shape(int64_t numel) {  // a matrix, for codecs that want one
    int64_t rows = 1;
    while (rows * rows < numel && numel % (rows * 2) == 0) rows *= 2;
    return {rows, numel / rows};
  }

  StatusOr<MutableByteSpan> Encode(uint64_t step, int round) {
    const size_t header = static_cast<size_t>(subject_.exchange->header_bytes(*comm_));
    const size_t most = static_cast<size_t>(subject_.codec->MaxEncodedBytes(spec_, round));
    const auto buffer = scratch_.Get<uint8_t>(kScratchSend0 + round % 2, header + most);
    const ByteSpan reduced = segment_.body;
    segment_.codec = subject_.codec.get();
    segment_.wire_id = subject_.wire_id;
    segment_.mean = {mean_.data(), DType::kF32, spec_.numel()};
    CodecContext& context = segment_.context;
    context.spec = &spec_;
    context.step = step;
    context.rank = comm_->rank();
    context.world_size = comm_->size();
    context.state = &scope_;
    context.scratch = &scratch_;
    Message message{{message_.data(), DType::kF32, spec_.numel()}, {}, 1.0f};
    TW_ASSIGN_OR_RETURN(
        const int64_t size,
        subject_.codec->EncodeAny(round, reduced, message, context, buffer.subspan(header)));
    segment_.body = buffer.subspan(header, static_cast<size_t>(size));
    return buffer.first(header + static_cast<size_t>(size));
  }

  const Subject& subject_;
  Communicator* comm_;
  TensorSpec spec_;
  StateBag bag_;
  StateScope scope_;
  std::vector<float> message_, mean_;
  Workspace scratch_;
  Segment segment_;
};

StatusOr<Row> Measure(const Subject& subject, int64_t numel, int64_t repetitions,
                      Communicator& comm) {
  Bench bench(subject, numel, &comm);
  TW_RETURN_IF_ERROR(bench.Once(0).status());  // allocates, and opens connections
  std::vector<double> slowest;
  const double cpu = CpuMs();
  int64_t bytes = 0;
  for (int64_t i = 0; i < repetitions; ++i) {
    const int64_t before = comm.bytes_sent();
    TW_ASSIGN_OR_RETURN(const double ms, bench.Once(static_cast<uint64_t>(i + 1)));
    bytes = comm.bytes_sent() - before;
    TW_ASSIGN_OR_RETURN(const std::vector<int64_t> all,
                        comm.AllGatherInt(static_cast<int64_t>(ms * 1e3), {0, -1, "times"}));
    slowest.push_back(1e-3 * static_cast<double>(*std::max_element(all.begin(), all.end())));
  }
  double cpu_sum[] = {(CpuMs() - cpu) / static_cast<double>(repetitions)};
  TW_RETURN_IF_ERROR(comm.AllReduceSum(cpu_sum, {0, -1, "times"}));
  std::sort(slowest.begin(), slowest.end());
  return Row{slowest[slowest.size() / 2], cpu_sum[0] / comm.size(), bytes};
}

void Print(const Subject& subject, int64_t numel, const Row& row, std::optional<double> rate,
           const std::string& rate_text, int ranks, bool json, std::ostream& out) {
  std::optional<double> fraction;
  if (rate) fraction = static_cast<double>(row.wire_bytes) / *rate * 1e3 / row.ms;
  if (json) {
    nlohmann::ordered_json j = {{"bench", "exchange"},
                                {"name", subject.name},
                                {"ranks", ranks},
                                {"numel", numel},
                                {"ms", row.ms},
                                {"cpu_ms", row.cpu_ms},
                                {"wire_bytes", row.wire_bytes}};
    j["rate"] = rate ? nlohmann::ordered_json(rate_text) : nlohmann::ordered_json();
    j["link_fraction"] = fraction ? nlohmann::ordered_json(*fraction) : nlohmann::ordered_json();
    out << j.dump() << std::endl;
    return;
  }
  out << absl::StrFormat("%-12s %2d ranks %9d elements  %9.2f ms  cpu %8.2f ms  sends %11d B",
                         subject.name, ranks, numel, row.ms, row.cpu_ms, row.wire_bytes)
      << (fraction ? absl::StrFormat("  %.3f of the link", *fraction) : "") << std::endl;
}

}  // namespace

Status RunBenchExchange(const std::vector<std::string>& overrides, bool json, std::ostream& out) {
  Config given;
  for (const std::string& assignment : overrides) TW_RETURN_IF_ERROR(given.Override(assignment));
  TW_RETURN_IF_ERROR(given.CheckSections({""}));
  ConfigSection section = given.section("");
  section.name = "bench";
  TW_ASSIGN_OR_RETURN(const auto config, ParseFields<BenchExchangeConfig>(section));
  std::vector<std::string> known = Registry<Compressor>::Get().all_keys();
  for (const auto& [key, value] : DumpFields(config)) known.push_back(key);
  std::vector<std::string> idle;
  TW_RETURN_IF_ERROR(CheckKeys(section, known, {}, &idle));
  std::optional<double> rate;
  if (!config.rate.empty()) {
    TW_ASSIGN_OR_RETURN(rate, ParseLinkRate(config.rate));
  }
  TW_ASSIGN_OR_RETURN(const std::vector<Subject> subjects, Subjects(config.name, section));
  const std::vector<int64_t> sizes =
      config.numel ? std::vector<int64_t>{config.numel} : std::vector<int64_t>{2500000, 10000000};
  TW_ASSIGN_OR_RETURN(auto world, World::Open("auto", config.timeout_s));
  for (const Subject& subject : subjects) {
    for (const int64_t numel : sizes) {
      Row row;
      const Status status = world->lane().Run([&]() -> Status {
        TW_ASSIGN_OR_RETURN(row, Measure(subject, numel, config.repetitions, world->comm()));
        return OkStatus();
      });
      if (!status.ok()) EndJob(*world, status);
      if (world->rank() == 0)
        Print(subject, numel, row, rate, config.rate, world->size(), json, out);
    }
  }
  world->Close();
  return OkStatus();
}

}  // namespace tw
