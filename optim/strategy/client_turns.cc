#include "optim/strategy/client_turns.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "optim/numbers.h"

namespace tw {

// The first S places of a shuffle.
std::span<const int> DrawClients(const StepMachine& machine, double participation,
                                 std::vector<int>* memory) {
  const int n = machine.num_clients();
  const auto count =
      std::clamp<size_t>(static_cast<size_t>(std::llround(participation * static_cast<double>(n))),
                         1, static_cast<size_t>(n));
  if (count == static_cast<size_t>(n)) return {};
  std::vector<int>& drawn = *memory;
  drawn.resize(static_cast<size_t>(n));
  std::iota(drawn.begin(), drawn.end(), 0);
  const RngStream rng = machine.shared_stream();
  for (size_t i = 0; i < count; ++i) {
    std::swap(drawn[i], drawn[i + rng.Below(i, drawn.size() - i)]);
  }
  std::sort(drawn.begin(), drawn.begin() + static_cast<ptrdiff_t>(count));
  return {drawn.data(), count};
}

void AddGradient(TensorView grad, bool first, TensorView sum) {
  WithNumbers(grad.dtype, [&](auto numbers) {
    using N = decltype(numbers);
    auto* const to = Elements<typename N::State>(sum);
    if (first) {
      for (int64_t i = 0; i < grad.numel; ++i) to[i] = N::Get(grad, i);
    } else {
      for (int64_t i = 0; i < grad.numel; ++i) to[i] += N::Get(grad, i);
    }
  });
}

void FinishMean(TensorView sum, int64_t count, TensorView grad) {
  WithNumbers(grad.dtype, [&](auto numbers) {
    using N = decltype(numbers);
    using T = typename N::State;
    const T* const from = Elements<T>(sum);
    const T share = static_cast<T>(1.0 / static_cast<double>(count));
    for (int64_t i = 0; i < grad.numel; ++i) {
      N::Put(grad, i, (from[i] + N::Get(grad, i)) * share);
    }
  });
}

}  // namespace tw
