#pragma once
// Replays the records of tests/golden/make_model_golden.py: same formula for the weights, same
// batches.

#include <torch/optim/adamw.h>
#include <torch/optim/sgd.h>

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/nn/model/model.h"
#include "core/nn/torch.h"

namespace tw {

inline nlohmann::json ReadGolden(const std::string& name) {
  std::ifstream file(std::string(TW_SOURCE_DIR) + "/tests/golden/" + name);
  return nlohmann::json::parse(file);
}

// Parameter number p in name order, element i: offset + scale * sin(0.7 i + p).
inline void FillByFormula(torch::nn::Module& model) {
  const torch::NoGradGuard no_grad;
  std::map<std::string, at::Tensor> sorted;
  for (const auto& item : model.named_parameters()) sorted[item.key()] = item.value();
  int p = 0;
  for (auto& [name, weight] : sorted) {
    const bool vector = weight.dim() == 1;
    const bool norm = vector && name.size() >= 6 && name.compare(name.size() - 6, 6, "weight") == 0;
    const double offset = norm ? 1.0 : 0.0, scale = norm ? 0.1 : vector ? 0.05 : 0.15;
    const at::Tensor i = torch::arange(weight.numel(), torch::kDouble);
    weight.copy_((offset + scale * torch::sin(0.7 * i + p)).to(torch::kFloat).view_as(weight));
    ++p;
  }
}

inline at::Tensor GoldenLoss(Model& model, const nlohmann::json& batch) {
  std::vector<int64_t> tokens;
  for (const auto& row : batch) tokens.insert(tokens.end(), row.begin(), row.end());
  const auto rows = static_cast<int64_t>(batch.size());
  const at::Tensor w = torch::tensor(tokens).view({rows, -1});
  const int64_t context = w.size(1) - 1;
  return at::cross_entropy_loss(model.Forward(w.narrow(1, 0, context)).flatten(0, 1),
                                w.narrow(1, 1, context).flatten());
}

inline void ExpectNames(const torch::nn::Module& model, const nlohmann::json& golden) {
  std::map<std::string, std::vector<int64_t>> found, expected = golden["shapes"];
  for (const auto& item : model.named_parameters()) found[item.key()] = item.value().sizes().vec();
  EXPECT_EQ(found, expected);
}

inline void ExpectLossAndGradient(Model& model, const nlohmann::json& golden) {
  FillByFormula(model);
  const at::Tensor loss = GoldenLoss(model, golden["batches"][0]);
  const double expected = golden["loss"], norm = golden["grad_norm"];
  EXPECT_NEAR(loss.item<double>(), expected, 1e-5 * expected);
  loss.backward();
  double squares = 0;
  for (const at::Tensor& p : model.parameters()) {
    squares += p.grad().to(torch::kDouble).square().sum().item<double>();
  }
  EXPECT_NEAR(std::sqrt(squares), norm, 1e-4 * norm);
}

inline void ExpectLosses(Model& model, torch::optim::Optimizer& optimizer,
                         const nlohmann::json& golden, const nlohmann::json& losses) {
  FillByFormula(model);
  ASSERT_EQ(losses.size(), 20u);
  for (size_t step = 0; step < losses.size(); ++step) {
    const at::Tensor loss = GoldenLoss(model, golden["batches"][step]);
    optimizer.zero_grad();
    loss.backward();
    optimizer.step();
    const double expected = losses[step];
    EXPECT_NEAR(loss.item<double>(), expected, 1e-3 * expected) << "step " << step;
  }
}

}  // namespace tw
