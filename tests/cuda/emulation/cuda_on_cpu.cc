#undef _FORTIFY_SOURCE  // its longjmp refuses to go to another stack

#include "tests/cuda/emulation/cuda_on_cpu.h"

#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <utility>
#include <vector>

dim3 threadIdx, blockIdx, blockDim, gridDim;

// Where the linker has put what is __shared__; absent when nothing is.
extern "C" {
extern char __start_tw_shared[] __attribute__((weak));
extern char __stop_tw_shared[] __attribute__((weak));
}

namespace tw::emulation {
namespace {

constexpr size_t kStackBytes = size_t{96} << 10;
constexpr unsigned kLanes = 32;

enum class State { kReady, kAtBlock, kAtWarp, kReturned };

// A fiber is made once, runs body after body, and is left and entered by jumps: contexts would ask
// the kernel for signal masks every time.
struct Fiber {
  jmp_buf place;
  bool started = false;
  std::unique_ptr<char[]> stack{new char[kStackBytes]};
  State state = State::kReady;
  unsigned index = 0;
  Site at;  // of the meeting that it waits for
  unsigned mask = 0;
  uint64_t brought = 0;
  uint64_t got[kLanes];
};

struct Machine {
  std::vector<std::unique_ptr<Fiber>> fibers;
  unsigned num_threads = 0;
  jmp_buf scheduler;
  Fiber* running = nullptr;
  const std::function<void()>* body = nullptr;
  std::mt19937_64 random{1};
};

std::atomic<int64_t> launches = 0, fails_at = -1;
std::atomic<Submit> submit = nullptr;
std::atomic<cudaError_t> last_error = cudaSuccess;
std::atomic<TakeError> take_runtimes_error = nullptr;
constexpr cudaError_t kLaunchFailed = 719;

void Do(cudaStream_t stream, std::function<void()> work) {
  if (const Submit to = submit) return to(stream, std::move(work));
  work();
}

Machine& TheMachine() {
  static auto* machine = new Machine;
  return *machine;
}

bool SameSite(const Site& a, const Site& b) {
  return a.line() == b.line() && a.column() == b.column() &&
         std::strcmp(a.file_name(), b.file_name()) == 0;
}

void BackToScheduler(Fiber& self) {
  if (_setjmp(self.place) == 0) _longjmp(TheMachine().scheduler, 1);
}

void FiberMain() {
  Machine& machine = TheMachine();
  for (;;) {
    (*machine.body)();
    machine.running->state = State::kReturned;
    BackToScheduler(*machine.running);
  }
}

void Wait(State state, Site at) {
  Fiber& self = *TheMachine().running;
  self.state = state;
  self.at = at;
  BackToScheduler(self);
}

void Start(Fiber& fiber) {
  ucontext_t context;
  getcontext(&context);
  context.uc_stack.ss_sp = fiber.stack.get();
  context.uc_stack.ss_size = kStackBytes;
  context.uc_link = nullptr;
  makecontext(&context, FiberMain, 0);
  fiber.started = true;
  setcontext(&context);
}

void Resume(Fiber& fiber) {
  Machine& machine = TheMachine();
  machine.running = &fiber;
  threadIdx = dim3(fiber.index % blockDim.x, fiber.index / blockDim.x % blockDim.y,
                   fiber.index / (blockDim.x * blockDim.y));
  if (_setjmp(machine.scheduler) != 0) return;
  if (!fiber.started) Start(fiber);
  _longjmp(fiber.place, 1);
}

void FillShared(std::mt19937_64& random) {
  if (__start_tw_shared == nullptr) return;
  const uint64_t noise = random() | 0x0101010101010101ull;
  const size_t bytes = static_cast<size_t>(__stop_tw_shared - __start_tw_shared);
  for (size_t i = 0; i < bytes; i += 8) {
    std::memcpy(__start_tw_shared + i, &noise, std::min<size_t>(8, bytes - i));
  }
}

// Lets the lanes of a warp go whose mask has come as a whole.
bool ReleaseLanes(Machine& machine, unsigned warp) {
  bool released = false;
  const auto lane_at = [&](unsigned lane) -> Fiber* {
    const unsigned thread = warp * kLanes + lane;
    return thread < machine.num_threads ? machine.fibers[thread].get() : nullptr;
  };
  for (unsigned first = 0; first < kLanes; ++first) {
    const Fiber* one = lane_at(first);
    if (one == nullptr || one->state != State::kAtWarp) continue;
    const unsigned mask = one->mask;
    uint64_t values[kLanes];
    bool complete = true;
    for (unsigned lane = 0; lane < kLanes; ++lane) {
      values[lane] = machine.random();
      if (!(mask >> lane & 1)) continue;
      const Fiber* fiber = lane_at(lane);
      if (fiber == nullptr) continue;  // the last warp of a block may be short
      complete = complete && fiber->state == State::kAtWarp && fiber->mask == mask &&
                 SameSite(fiber->at, one->at);
      values[lane] = fiber->brought;
    }
    if (!complete) continue;
    for (unsigned lane = 0; lane < kLanes; ++lane) {
      Fiber* fiber = mask >> lane & 1 ? lane_at(lane) : nullptr;
      if (fiber == nullptr) continue;
      std::copy_n(values, kLanes, fiber->got);
      fiber->state = State::kReady;
    }
    released = true;
  }
  return released;
}

// All threads of the block at the same barrier.
bool ReleaseBlock(Machine& machine) {
  const Fiber& first = *machine.fibers[0];
  for (unsigned i = 0; i < machine.num_threads; ++i) {
    const Fiber& fiber = *machine.fibers[i];
    if (fiber.state != State::kAtBlock || !SameSite(fiber.at, first.at)) return false;
  }
  for (unsigned i = 0; i < machine.num_threads; ++i) machine.fibers[i]->state = State::kReady;
  return true;
}

[[noreturn]] void ReportDivergence(Machine& machine) {
  std::string message =
      "threads wait for others that do not come, block " + std::to_string(blockIdx.x) + ":";
  for (unsigned i = 0; i < machine.num_threads; ++i) {
    const Fiber& fiber = *machine.fibers[i];
    const Fiber* before = i ? machine.fibers[i - 1].get() : nullptr;
    const bool same = before && before->state == fiber.state &&
                      (fiber.state == State::kReturned || SameSite(before->at, fiber.at));
    if (same) continue;
    message += "\n  from thread " + std::to_string(i) + " on: ";
    if (fiber.state == State::kReturned) {
      message += "returned";
      continue;
    }
    message += fiber.state == State::kAtBlock ? "at a barrier of the block, " : "at a warp's, ";
    message += fiber.at.file_name() + std::string(":") + std::to_string(fiber.at.line());
  }
  machine.fibers.clear();  // they are in the middle of something
  throw DivergenceError(message);
}

void RunBlock(Machine& machine) {
  FillShared(machine.random);
  for (unsigned i = 0; i < machine.num_threads; ++i) {
    Fiber& fiber = *machine.fibers[i];
    fiber.state = State::kReady;
    fiber.index = i;
  }
  std::vector<unsigned> order(machine.num_threads);
  std::iota(order.begin(), order.end(), 0u);
  for (;;) {
    std::shuffle(order.begin(), order.end(), machine.random);
    for (const unsigned i : order) {
      if (machine.fibers[i]->state == State::kReady) Resume(*machine.fibers[i]);
    }
    bool goes_on = false, all_returned = true;
    for (unsigned warp = 0; warp * kLanes < machine.num_threads; ++warp) {
      goes_on |= ReleaseLanes(machine, warp);
    }
    for (const unsigned i : order) all_returned &= machine.fibers[i]->state == State::kReturned;
    if (all_returned) return;
    if (!goes_on && !ReleaseBlock(machine)) ReportDivergence(machine);
  }
}

}  // namespace

void Launch(dim3 grid, dim3 block, const std::function<void()>& body) {
  Machine& machine = TheMachine();
  gridDim = grid;
  blockDim = block;
  machine.num_threads = block.x * block.y * block.z;
  machine.body = &body;
  while (machine.fibers.size() < machine.num_threads) {
    machine.fibers.push_back(std::make_unique<Fiber>());
  }
  std::vector<unsigned> order(size_t{grid.x} * grid.y * grid.z);
  std::iota(order.begin(), order.end(), 0u);
  std::shuffle(order.begin(), order.end(), machine.random);
  for (const unsigned i : order) {
    blockIdx = dim3(i % grid.x, i / grid.x % grid.y, i / (grid.x * grid.y));
    RunBlock(machine);
  }
}

void Launch(dim3 grid, dim3 block, cudaStream_t stream, std::function<void()> body) {
  if (launches++ == fails_at) {
    last_error = kLaunchFailed;
    return;
  }
  Do(stream, [grid, block, body = std::move(body)] { Launch(grid, block, body); });
}

void SetSubmit(Submit to) { submit = to; }
void SetTakeError(TakeError take) { take_runtimes_error = take; }
void FailLaunch(int64_t others) { fails_at = launches + others; }
void SetSeed(uint64_t seed) { TheMachine().random.seed(seed); }
int64_t LaunchCount() { return launches; }

void MeetBlock(Site at) { Wait(State::kAtBlock, at); }

const uint64_t* MeetWarp(unsigned mask, uint64_t brought, Site at) {
  Fiber* self = TheMachine().running;
  self->mask = mask;
  self->brought = brought;
  Wait(State::kAtWarp, at);
  return self->got;
}

int Lane() { return static_cast<int>(TheMachine().running->index % kLanes); }

}  // namespace tw::emulation

cudaError_t cudaGetLastError() {
  const cudaError_t own = tw::emulation::last_error.exchange(cudaSuccess);
  if (own != cudaSuccess) return own;
  const tw::emulation::TakeError take = tw::emulation::take_runtimes_error;
  return take ? take() : cudaSuccess;
}
const char* cudaGetErrorString(cudaError_t error) {
  if (error == tw::emulation::kLaunchFailed) return "unspecified launch failure";
  return error == cudaSuccess ? "no error" : "an error of the emulated runtime";
}
cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t stream) {
  tw::emulation::Do(stream, [=] { std::memset(to, value, bytes); });
  return cudaSuccess;
}
