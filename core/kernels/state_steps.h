#pragma once
// Fused optimizer steps on states that rest in few bits: one pass over parameter, gradient and
// codes. A block's moments are decoded into registers, updated, used for the parameter's step as
// they are, and encoded again from a stack of one block: no fp32 copy is larger than that.
//
//   bytes a parameter, read and written:  fp32 28;  8 bits 16.06;  4 bits 14.13
//
// The numbers are those of DecodeBlocks, AdamWStep or SgdmStep, EncodeBlocks in a row, bit for bit
// (state_codes.h, optimizer.h). Spans of one call fit together as those functions require. Thread
// safe.

#include "core/kernels/optimizer.h"
#include "core/kernels/state_codes.h"

namespace tw::kernels {

// One moment's codes and scales.
struct CodedMoment {
  std::span<uint8_t> codes;
  std::span<float> scales;
};

// m kDeSigned, v kLinear, 4 bits, blocks of 128.
void AdamWStep4(std::span<float> p, std::span<const float> g, CodedMoment m, CodedMoment v,
                const AdamWCoefficients<float>& c);
// m and v kDeSigned and kDeUnsigned, 8 bits, blocks of 256.
void AdamWStep8(std::span<float> p, std::span<const float> g, CodedMoment m, CodedMoment v,
                const AdamWCoefficients<float>& c);
// m kDeSigned, 4 bits, blocks of 128.
void SgdmStep4(std::span<float> p, std::span<const float> g, CodedMoment m,
               const SgdmCoefficients<float>& c);

}  // namespace tw::kernels
