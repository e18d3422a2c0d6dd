#pragma once
// Initial weights as a pure function of (seed, parameter name, index). LibTorch's global generator
// is never used: its numbers depend on who drew before. Only +, -, *, / and sqrt are used on the
// way, which IEEE 754 rounds exactly, so the weights are the same bits on every machine and with
// every libm.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>

namespace tw {

// Fills `weight` (any floating type, any device) with std * N(0, 1).
void InitNormal(uint64_t seed, const std::string& name, double std, const at::Tensor& weight);

// Number `index` of the standard normal stream `name`; what InitNormal draws from.
double StandardNormal(uint64_t seed, const std::string& name, uint64_t index);

}  // namespace tw
