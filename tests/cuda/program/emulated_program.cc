// The program on a machine whose GPUs are emulated: `train` finds as many as there are ranks, and a
// module that opens them. Models run on LibTorch's tensors of the emulated device; everything from
// the gradients on is the program's own code with the kernels for GPUs.
//
//   emulated_program train key=value ...     as tightwire train; no config file

#include <cstdio>
#include <string>
#include <vector>

#include "launch/commands.h"
#include "launch/device_module.h"
#include "launch/program.h"
#include "tests/core/nn/device/emulated_tensors.h"
#include "tests/cuda/emulation/emulated_device.h"

namespace {

// As launch/cuda/cuda_module.cc does.
tw::StatusOr<tw::OpenedDevice> Open(int) {
  using tw::kernels::QueueStream;
  tw::OpenedDevice opened;
  TW_ASSIGN_OR_RETURN(opened.memory, tw::kernels::MakeDeviceMemory(0));
  TW_ASSIGN_OR_RETURN(opened.training, tw::kernels::MakeDeviceQueue(
                                           {0, QueueStream::kDefault, opened.memory.get()}));
  TW_ASSIGN_OR_RETURN(opened.lane,
                      tw::kernels::MakeDeviceQueue({0, QueueStream::kOwn, opened.memory.get()}));
  return opened;
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> words(argv + 1, argv + argc);
  if (words.empty() || words[0] != "train") return tw::ProgramMain(argc, argv);
  const tw::EmulatedTensors tensors;
  // Each rank is a process with a device of its own, number 0 of LibTorch's.
  const tw::CudaModule module = {
      .nccl = "built without NCCL", .tensors = "mtia:0", .open_device = Open};
  const tw::DeviceModule found{std::vector<std::string>(16, "emulated GPU"), &module, "", ""};
  const tw::Status status = tw::RunTrain("", {words.begin() + 1, words.end()}, false, &found);
  if (!status.ok() && !status.message().empty()) {
    std::fprintf(stderr, "tightwire: %s\n", std::string(status.message()).c_str());
  }
  return tw::ExitCode(status);
}
