#include "launch/choose_device.h"

#include <map>
#include <vector>

#include "core/base/hash.h"
#include "core/engine/tensor_memory.h"
#include "launch/torch_cuda.h"

namespace tw {
namespace {

// Why this rank has no GPU that it could use; empty when it has one.
std::string WhyNot(const DeviceModule& devices) {
  if (!devices.module) return devices.reason;
  const bool cuda = std::string(devices.module->tensors) == "cuda";
  const Status torch = cuda ? LoadTorchCuda() : OkStatus();
  return torch.ok() ? "" : std::string(torch.message());
}

// What is wrong on this rank (empty: nothing), or else the complaint of the lowest rank that has
// one, with its name. Collective.
StatusOr<std::string> AnyComplaint(World& world, const std::string& mine) {
  const Status all = world.AgreeOn(mine.empty() ? OkStatus() : DataError(mine));
  if (FaultOf(all) == Fault::kPeer) return all;
  return mine.empty() && !all.ok() ? std::string(all.message()) : mine;
}

// By rank: which GPU it takes (a hash), that GPU's number there, its host's first rank.
struct Places {
  std::vector<int64_t> gpus, numbers, hosts;
};

// "on node1 ranks 0, 2 share GPU 0, ranks 1, 3 share GPU 1": those of the lowest sharing rank's
// host, whose name the caller thinks is `host`; *lowest is that rank. Empty: nobody shares.
std::string Sharing(const Places& places, const std::string& host, int* lowest) {
  std::map<int64_t, std::vector<size_t>> ranks_of;
  for (size_t r = 0; r < places.gpus.size(); ++r) ranks_of[places.gpus[r]].push_back(r);
  std::map<size_t, std::vector<size_t>> shared;  // by its first rank
  for (const auto& [gpu, ranks] : ranks_of) {
    if (ranks.size() > 1) shared[ranks[0]] = ranks;
  }
  if (shared.empty()) return "";
  constexpr int kMost = 4;
  const size_t first = shared.begin()->first;
  int said = 0;
  std::string text;
  for (const auto& [rank, ranks] : shared) {
    if (places.hosts[rank] != places.hosts[first]) continue;
    if (said++ == kMost) {
      text += " and so on";
      break;
    }
    text += said > 1 ? ", ranks " : "on " + host + " ranks ";
    for (size_t i = 0; i < ranks.size(); ++i) text += (i ? ", " : "") + std::to_string(ranks[i]);
    text += " share GPU " + std::to_string(places.numbers[rank]);
  }
  *lowest = static_cast<int>(first);
  return text;
}

// The GPU of this rank: of those that it sees, as many as there are ranks before it on its host. A
// launcher may show each rank another one, and hosts may be emulated on one machine, so ranks
// compare. Collective; *complaint, on all ranks or on none, when some would share one.
StatusOr<int> ChooseNumber(const DeviceModule& devices, World& world, std::string* complaint) {
  const std::vector<int> usable = devices.usable();
  const int number = usable[static_cast<size_t>(world.local_rank()) % usable.size()];
  const std::string id = devices.ids.empty() ? world.host() + " " + std::to_string(number)
                                             : devices.ids[static_cast<size_t>(number)];
  Places places;
  TW_RETURN_IF_ERROR(world.lane().Run([&]() -> Status {
    const OpTag tag{0, -1, "devices"};
    const auto gpu = static_cast<int64_t>(Hash64(id));
    TW_ASSIGN_OR_RETURN(places.gpus, world.comm().AllGatherInt(gpu, tag));
    TW_ASSIGN_OR_RETURN(places.numbers, world.comm().AllGatherInt(number, tag));
    TW_ASSIGN_OR_RETURN(places.hosts, world.comm().AllGatherInt(world.first_here(), tag));
    return OkStatus();
  }));
  int lowest = -1;
  const std::string text = Sharing(places, world.host(), &lowest);
  if (text.empty()) return number;
  const bool speak = world.rank() == lowest;
  TW_ASSIGN_OR_RETURN(*complaint,
                      AnyComplaint(world, speak ? text + ": start fewer ranks a host, or let each "
                                                         "see a GPU of its own"
                                                : ""));
  return number;
}

}  // namespace

at::Device TensorDevice(const std::string& word, int number) {
  return at::Device(word.find(':') == std::string::npos ? word + ":" + std::to_string(number)
                                                        : word);
}
StatusOr<OpenedDevice> OpenBesideTensors(const CudaModule& module, int number) {
  const at::Device tensors = TensorDevice(module.tensors, number);
  return module.open_device(number, [tensors] { GiveBackUnusedTensorMemory(tensors); });
}

namespace {

std::string HostCompressor(const std::string& name, const char* why) {
  return "compressor.name = \"" + name + "\": " + why;
}
constexpr char kHostMerge[] = "compressor.merge = \"sparse\" adds lists on the host";

// What a config asks for and only the host has; empty: nothing.
std::string OnlyOnHosts(const Settings& s) {
  if (s.strategy != "sync") {
    return "strategy.name = \"" + s.strategy + "\" moves tensors on the host";
  }
  if (s.planner != "none") return "planner.name = \"" + s.planner + "\" measures on the host";
  return "";
}

// The same of its compressors: of each that is there, whether it comes to a parameter or not.
std::string CompressesOnHosts(const Config& config) {
  std::vector<ConfigSection> sections = config.array("compressor.rule");
  sections.push_back(config.section("compressor"));
  for (const ConfigSection& section : sections) {
    const auto codec = Registry<Compressor>::Get().Make(section, "none");
    if (!codec.ok()) continue;  // to be told with the rest of the config
    if (const char* why = (*codec)->traits().host_only) {
      return HostCompressor(section.GetString("name", "none"), why);
    }
    if (section.GetString("merge", "auto") == MergeName(Merge::kSparse)) return kHostMerge;
  }
  return "";
}

}  // namespace

bool InsistsOnDevice(const Settings& settings) {
  return settings.train.device == "cuda" || settings.comm.backend == "nccl";
}

std::string HostNote(const std::string& why) {
  return "train.device = auto: tensors lie in the host's memory; " + why;
}

Status OpenChosenDevice(const LoadedConfig& loaded, const DeviceModule& devices, World& world,
                        std::string* note) {
  const TrainConfig& train = loaded.settings.train;
  const CommConfig& comm = loaded.settings.comm;
  if (train.device == "cpu" && comm.backend == "nccl") {
    return ConfigError(
        "comm.backend = nccl carries gradients between GPUs, and train.device = cpu keeps them in "
        "the host's memory: use mpi");
  }
  if (train.device == "cpu") return OkStatus();
  const bool must = InsistsOnDevice(loaded.settings);
  std::string why;
  if (!must) why = OnlyOnHosts(loaded.settings);
  if (!must && why.empty()) why = CompressesOnHosts(loaded.config);
  bool none = false;
  if (why.empty()) {
    TW_ASSIGN_OR_RETURN(why, AnyComplaint(world, WhyNot(devices)));
    none = !why.empty();
  }
  int number = 0;
  if (why.empty()) {
    TW_ASSIGN_OR_RETURN(number, ChooseNumber(devices, world, &why));
  }
  if (why.empty()) {
    const Status opened = world.OpenDevice(devices, number, comm.backend, comm.timeout_s);
    const Fault fault = FaultOf(opened);
    if (opened.ok() || fault == Fault::kPeer || fault == Fault::kBug) return opened;
    why = std::string(opened.message());
  }
  if (must) {
    const bool cuda = train.device == "cuda";
    return DataError(std::string(cuda ? "train.device = cuda" : "comm.backend = nccl") +
                     (none ? ": no GPU to use: " : ": ") + why +
                     (cuda ? "; cpu works" : "; mpi works"));
  }
  if (!devices.devices.empty()) *note = HostNote(why);
  return OkStatus();
}

ChosenDevice DeviceOf(const DeviceModule& devices, const World& world) {
  const int number = world.device_number();
  if (number < 0) return {};
  return {devices.devices[static_cast<size_t>(number)],
          TensorDevice(devices.module->tensors, number)};
}

Status CheckOnDevice(const Settings& s, const Assembly& a, bool grouped) {
  if (s.comm.sums == "library" && grouped) {
    return ConfigError(
        "comm.sums = \"library\" is a sum of all ranks, and comm.hierarchical has groups of them");
  }
  if (const std::string only = OnlyOnHosts(s); !only.empty()) return ConfigError(only);
  for (const ParameterPlan& p : a.plan->parameters()) {
    if (p.spec.dtype == DType::kF64) {
      return ConfigError("parameter " + p.spec.name + " is fp64, which no kernel on a GPU takes");
    }
    if (const char* why = p.route.codec->traits().host_only) {
      return ConfigError(HostCompressor(p.route.compressor, why));
    }
    if (p.route.exchange->merge() == Merge::kSparse) return ConfigError(kHostMerge);
  }
  for (const ParameterPlan& p : a.plan->parameters()) {
    TensorSpec spec = p.spec;
    if (a.masters != Masters::kNone && spec.dtype == DType::kBF16) spec.dtype = DType::kF32;
    TW_RETURN_IF_ERROR(a.optimizer->CheckOnDevice(spec, a.treatments[spec.id]));
  }
  return OkStatus();
}

Status RefusedOnDevice(const Settings& settings, const Status& why) {
  std::string works = "train.device = cpu";
  if (settings.comm.backend == "nccl") {
    works =
        settings.train.device == "cuda" ? works + " with comm.backend = mpi" : "comm.backend = mpi";
  }
  return ConfigError(std::string(why.message()) + "; " + works + " works");
}

}  // namespace tw
