#pragma once
// One rank of a gradient reducer (tests/core/engine/reducer_rank.h) that works on a test's device.

#include <memory>
#include <vector>

#include "comm/staged_communicator.h"
#include "core/engine/buckets.h"
#include "tests/core/engine/reducer_rank.h"
#include "tests/cuda/test_device.h"

namespace tw {

// `device` null: on the host.
struct PlacedRank {
  PlacedRank(Communicator& wire, const ReducerSetup& setup, TestDevice* device) {
    RankDevice on;
    if (device) {
      training = device->NewQueue(kernels::QueueStream::kDefault);
      lane = device->NewQueue();
      staged = MakeStagedCommunicator(wire, *lane);
      on = {{&device->memory(), training.get(), lane.get()}, [] { const HostMayLook look; }};
    }
    rank = std::make_unique<ReducerRank>(device ? *staged : wire, setup,
                                         GradientReducer::NamedTensors{}, on);
    for (const ParameterView& view : rank->reducer->views()) {
      for (const TensorView& t : {view.value, view.grad}) {
        tensors.push_back(
            std::make_unique<SeenByBoth>(t.data, static_cast<size_t>(PaddedBytes(t.bytes()))));
      }
    }
  }

  std::unique_ptr<kernels::DeviceKernels> training, lane;
  std::unique_ptr<Communicator> staged;
  std::unique_ptr<ReducerRank> rank;
  std::vector<std::unique_ptr<SeenByBoth>> tensors;
};

}  // namespace tw
