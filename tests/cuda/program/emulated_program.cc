// The program on a machine whose GPUs are emulated: it finds as many as there are ranks, and a
// module that opens them. Models run on LibTorch's tensors of the emulated device; everything from
// the gradients on, and what benches measure, is the program's own code with the kernels for GPUs.
//
//   emulated_program train device.toml train.device=cuda ...     as tightwire, with all its words
//
// EMULATED_GPUS="a b" in the environment: GPUs of these ids instead; "own": one that is the rank's.
// EMULATED_FAULT=1: GPU 1 does not start. optimizer.state = "two_passes": one for hosts only.

#include <cstdlib>
#include <sstream>
#include <string>
#include <vector>

#include "launch/device_module.h"
#include "launch/program.h"
#include "launch/world.h"
#include "optim/state/fp32.h"
#include "tests/core/nn/device/emulated_tensors.h"
#include "tests/cuda/emulation/emulated_device.h"

namespace {

// As launch/cuda/cuda_module.cc does.
tw::StatusOr<tw::OpenedDevice> Open(int number, std::function<void()> when_full) {
  if (number == 1 && std::getenv("EMULATED_FAULT")) return tw::DataError("GPU 1 does not start");
  using tw::kernels::QueueStream;
  tw::OpenedDevice opened;
  TW_ASSIGN_OR_RETURN(opened.memory, tw::kernels::MakeDeviceMemory(0, std::move(when_full)));
  TW_ASSIGN_OR_RETURN(opened.training, tw::kernels::MakeDeviceQueue(
                                           {0, QueueStream::kDefault, opened.memory.get()}));
  TW_ASSIGN_OR_RETURN(opened.lane,
                      tw::kernels::MakeDeviceQueue({0, QueueStream::kOwn, opened.memory.get()}));
  return opened;
}

// The numbers of fp32, which want to be seen twice; no optimizer has a step for that on a device.
class TwoPasses : public tw::StateCodec {
 public:
  const char* name() const override { return "two_passes"; }
  std::vector<tw::StateSlotSpec> Slots(tw::MomentKind kind,
                                       const tw::TensorSpec& spec) const override {
    return tw::Fp32States().Slots(kind, spec);
  }
  void Decode(const tw::MomentState& state, int64_t first, std::span<float> out) const override {
    tw::Fp32States().Decode(state, first, out);
  }
  void Encode(const tw::MomentState& state, int64_t first,
              std::span<const float> x) const override {
    tw::Fp32States().Encode(state, first, x);
  }
  tw::StatePasses passes(tw::MomentKind kind, const tw::TensorSpec&) const override {
    return kind == tw::MomentKind::kSquare ? tw::StatePasses::kScalesFirst : tw::StatePasses::kOne;
  }
};

std::vector<std::string> Ids() {
  const char* const text = std::getenv("EMULATED_GPUS");
  if (!text) return {};
  if (std::string(text) == "own") {
    return {"of rank " + std::to_string(tw::ReadLauncher().rank)};
  }
  std::istringstream in(text);
  std::vector<std::string> ids;
  for (std::string id; in >> id;) ids.push_back(id);
  return ids;
}

}  // namespace

namespace tw {
StatusOr<std::unique_ptr<StateCodec>> CreateTwoPasses(const NoConfig&) {
  return std::make_unique<TwoPasses>();
}
TW_REGISTER(StateCodec, two_passes, 0, NoConfig, CreateTwoPasses, "for tests");
}  // namespace tw

int main(int argc, char** argv) {
  const tw::EmulatedTensors tensors;
  // Each rank is a process with a device of its own, number 0 of LibTorch's.
  const std::string word = tw::kEmulatedDevice.str();
  const tw::CudaModule module = {
      .nccl = "built without NCCL", .tensors = word.c_str(), .open_device = Open};
  tw::DeviceModule found{.module = &module, .ids = Ids()};
  found.devices.assign(found.ids.empty() ? 16 : found.ids.size(), "emulated GPU");
  return tw::ProgramMain(argc, argv, &found);
}
