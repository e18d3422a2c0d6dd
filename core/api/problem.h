#pragma once
// Problem: what the lab optimises. A function f_m, or an operator F_m of a variational inequality,
// for each of a number of clients; one object a process, used from one thread.
//
// Everything is a pure function of its arguments and of how the problem was made: the same client,
// step and batch give the same numbers on any rank and for every method, noise included.

#include <span>
#include <string>
#include <vector>

#include "core/base/rng.h"
#include "core/base/status.h"
#include "core/base/tensor_view.h"

namespace tw {

// Which gradient is asked for.
struct GradientCall {
  int client = 0;
  uint64_t step = 0;
  int64_t batch = 0;  // of this step
  uint64_t seed = 1;  // of the run

  // Noise and choice of samples: element i draws number i.
  RngStream noise(uint32_t parameter = 0) const {
    return RngStream::Of(seed, RngPurpose::kNoise,
                         (step << 16) + static_cast<uint64_t>(batch & 0xFFFF), parameter,
                         static_cast<uint32_t>(client));
  }
};

class Problem {
 public:
  virtual ~Problem() = default;
  virtual int num_clients() const = 0;
  // fp64 or fp32, one dtype for all; ids count from 0.
  virtual std::span<const TensorSpec> parameters() const = 0;
  virtual void Start(std::span<const TensorView> x) = 0;  // writes x0
  // Writes f_m's gradient (or F_m) at x to `out`; returns the loss, NaN where there is none.
  virtual StatusOr<double> Gradient(const GradientCall& call, std::span<const TensorView> x,
                                    std::span<const TensorView> out) = 0;
  // Names of what Measure writes, the main one first: what curves show ("distance", "grad_norm").
  virtual std::vector<std::string> metrics() const = 0;
  // On every rank, at the shared parameters; deterministic.
  virtual Status Measure(std::span<const TensorView> x, std::span<double> out) = 0;
};

// The usual case: one fp64 vector.
class VectorProblem : public Problem {
 public:
  VectorProblem(int num_clients, int64_t dimension)
      : num_clients_(num_clients), spec_{0, "x", {dimension}, DType::kF64} {}

  int num_clients() const override { return num_clients_; }
  std::span<const TensorSpec> parameters() const override { return {&spec_, 1}; }
  void Start(std::span<const TensorView> x) final { Start(Numbers(x)); }
  StatusOr<double> Gradient(const GradientCall& call, std::span<const TensorView> x,
                            std::span<const TensorView> out) final {
    return Gradient(call, std::span<const double>(Numbers(x)), Numbers(out));
  }
  Status Measure(std::span<const TensorView> x, std::span<double> out) final {
    return Measure(std::span<const double>(Numbers(x)), out);
  }

 protected:
  virtual void Start(std::span<double> x) = 0;
  virtual StatusOr<double> Gradient(const GradientCall& call, std::span<const double> x,
                                    std::span<double> out) = 0;
  virtual Status Measure(std::span<const double> x, std::span<double> out) = 0;

 private:
  static std::span<double> Numbers(std::span<const TensorView> views) {
    return {static_cast<double*>(views[0].data), static_cast<size_t>(views[0].numel)};
  }

  int num_clients_;
  TensorSpec spec_;
};

}  // namespace tw
