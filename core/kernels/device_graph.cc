#include "core/kernels/device_graph.h"

#include <algorithm>
#include <string>
#include <utility>

#include "core/kernels/device_queue_cuda.h"

namespace tw::kernels {
namespace {

class CudaGraph final : public DeviceGraph {
 public:
  CudaGraph(CudaQueue& queue, std::unique_ptr<GraphMemory> memory, cudaGraphExec_t graph)
      : queue_(queue), memory_(std::move(memory)), graph_(graph) {}
  ~CudaGraph() override {
    (void)queue_.Wait();
    cudaGraphExecDestroy(graph_);
  }
  CudaGraph(const CudaGraph&) = delete;
  CudaGraph& operator=(const CudaGraph&) = delete;
  void Launch() override { queue_.LaunchGraph(graph_); }

 private:
  CudaQueue& queue_;
  const std::unique_ptr<GraphMemory> memory_;
  const cudaGraphExec_t graph_;
};

}  // namespace

GraphMemory::~GraphMemory() {
  for (const Part& part : parts_) cudaFreeHost(part.host);
}

StagingRing::Piece GraphMemory::Take(size_t bytes) {
  bytes = (bytes + 255) / 256 * 256;
  if (parts_.empty() || parts_.back().used + bytes > parts_.back().device.size()) {
    const size_t size = std::max(bytes, size_t{64} << 10);
    parts_.push_back({AllocatePinnedBytes(size), DeviceBlock(&memory_, size), 0});
  }
  Part& part = parts_.back();
  const size_t at = std::exchange(part.used, part.used + bytes);
  return {part.host + at, part.device.data() + at};
}

uint8_t* GraphMemory::Scratch(size_t bytes) {
  const size_t size = scratch_.empty() ? 0 : scratch_.back().size();
  if (size < bytes) scratch_.emplace_back(&memory_, bytes);
  return scratch_.empty() ? nullptr : scratch_.back().data();
}

void GraphMemory::Send() {
  for (const Part& part : parts_) {
    errors_.Succeeds(
        cudaMemcpyAsync(part.device.data(), part.host, part.used, cudaMemcpyHostToDevice, stream_));
  }
  errors_.Succeeds(cudaStreamSynchronize(stream_));
}

Status CudaQueue::BeginCapture() {
  Flush();
  TW_CHECK(rows_.empty() && !capture_);
  if (!UseDevice()) return errors_.status();
  // Relaxed: memory for the graph's tables is allocated meanwhile.
  if (const cudaError_t error = cudaStreamBeginCapture(stream_, cudaStreamCaptureModeRelaxed)) {
    cudaGetLastError();
    return DataError("GPU " + std::to_string(device_) +
                     ": no capture begins: " + cudaGetErrorString(error));
  }
  capture_ = std::make_unique<GraphMemory>(memory_, stream_, errors_);
  return OkStatus();
}

StatusOr<std::unique_ptr<DeviceGraph>> CudaQueue::EndCapture() {
  Flush();
  TW_CHECK(rows_.empty() && capture_);
  std::unique_ptr<GraphMemory> memory = std::move(capture_);
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t executable = nullptr;
  cudaError_t error = cudaStreamEndCapture(stream_, &graph);
  if (error == cudaSuccess && !memory->refused) {
    error = cudaGraphInstantiateWithFlags(&executable, graph, 0);
  }
  if (graph) cudaGraphDestroy(graph);
  cudaGetLastError();  // told here: the queue goes on
  const std::string gpu = "GPU " + std::to_string(device_) + ": ";
  if (memory->refused) return DataError(gpu + "a graph cannot hold " + memory->refused);
  if (error != cudaSuccess) return DataError(gpu + "no graph: " + cudaGetErrorString(error));
  memory->Send();
  TW_RETURN_IF_ERROR(errors_.status());
  return std::unique_ptr<DeviceGraph>(
      std::make_unique<CudaGraph>(*this, std::move(memory), executable));
}

void CudaQueue::LaunchGraph(cudaGraphExec_t graph) {
  Flush();
  if (!UseDevice()) return;
  CountLaunch();
  errors_.Succeeds(cudaGraphLaunch(graph, stream_));
}

bool CudaQueue::Refuses(const char* what) {
  if (capture_ && !capture_->refused) capture_->refused = what;
  return capture_ != nullptr;
}

}  // namespace tw::kernels
