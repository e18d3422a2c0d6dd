#pragma once
// A small GPT trained against an adversary who moves its token embeddings by one step, with
// clients.
//   theta: core/nn's gpt; E its table of tokens, which is the head too
//   L(theta, D): mean cross entropy of the next byte, with E + D where tokens enter and E in the
//   head D*(theta) = epsilon * G / |G|,  G = grad_D L(theta, 0) on the same windows        fast
//   gradient F_m(theta) = grad_theta L(theta, D*) with D* held fixed (Miyato et al.,
//                                                                  arXiv 1605.07725, on the table)
// As min over theta of max over D, solved by one step for D: neither monotone nor the gradient of
// one function. theta0 has been trained without an adversary: from random weights an adversary
// keeps so small a model from looking at its input at all. Text is SyntheticText; client m draws
// windows from a part of its own, evaluation from the last part. fp32; LibTorch computes with one
// thread, so that bits do not depend on cores. Metrics, on windows that are always the same:
// robust_loss (L at D*), clean_loss (at D = 0).

#include <memory>
#include <vector>

#include "core/api/problem.h"

namespace tw {

struct AdversarialGptOptions {
  int num_clients = 4;
  int64_t layers = 2, width = 32, heads = 4, context = 32;
  int64_t batch = 4;               // windows a gradient
  int64_t text_bytes = 100000;     // a client
  int64_t evaluated_windows = 32;  // a multiple of batch
  int64_t pretrain_steps = 400;    // of Adam, 16 windows each, without an adversary
  double epsilon = 1;
  uint64_t seed = 1;  // of weights and text
};

class AdversarialGpt : public Problem {
 public:
  static StatusOr<std::unique_ptr<AdversarialGpt>> Create(const AdversarialGptOptions& options);
  ~AdversarialGpt() override;

  int num_clients() const override;
  std::span<const TensorSpec> parameters() const override;
  int64_t numel() const;
  void Start(std::span<const TensorView> x) override;
  StatusOr<double> Gradient(const GradientCall& call, std::span<const TensorView> x,
                            std::span<const TensorView> out) override;
  std::vector<std::string> metrics() const override { return {"robust_loss", "clean_loss"}; }
  Status Measure(std::span<const TensorView> x, std::span<double> out) override;

 private:
  struct Model;

  explicit AdversarialGpt(std::unique_ptr<Model> model);
  std::unique_ptr<Model> model_;
};

}  // namespace tw
