#pragma once
// state_steps.h on a GPU: a warp a block, all parameters of a bucket in one launch, the same bits
// (codes of blocks with a scale that is not finite may differ; they stand for nothing finite).
//
//   bytes a parameter, read and written:  8 bits 16.06;  4 bits 14.13;  4 bits with v by rank 1 23

#include "core/kernels/device.h"
#include "core/kernels/narrow_parameter.h"
#include "core/kernels/state_steps.h"

namespace tw::kernels::device {

// Codes and scales as in state_codes.h. Fastest where parameters, gradients and codes lie at
// addresses of 16; codes at odd addresses cost more loads.
struct CodedStepSegment {
  float* p = nullptr;
  const float* g = nullptr;
  uint8_t* m_codes = nullptr;
  float* m_scales = nullptr;
  uint8_t* v_codes = nullptr;
  float* v_scales = nullptr;
  int64_t numel = 0;
  int64_t first_tile = 0;
};

// Coefficients lie in device memory.
void AdamWStep4(Table<CodedStepSegment> table, const AdamWCoefficients<float>* c, Stream stream);
void AdamWStep8(Table<CodedStepSegment> table, const AdamWCoefficients<float>* c, Stream stream);
// p, g, m
void SgdmStep4(Table<CodedStepSegment> table, const SgdmCoefficients<float>* c, Stream stream);

// The same on bf16 parameters and gradients, in one pass.
struct NarrowCodedStepSegment : NarrowParameter {
  uint8_t* m_codes = nullptr;
  float* m_scales = nullptr;
  uint8_t* v_codes = nullptr;
  float* v_scales = nullptr;
  int64_t first_tile = 0;
};
void AdamWStep4Narrow(Table<NarrowCodedStepSegment> table, const AdamWCoefficients<float>* c,
                      Stream stream);
void AdamWStep8Narrow(Table<NarrowCodedStepSegment> table, const AdamWCoefficients<float>* c,
                      Stream stream);
void SgdmStep4Narrow(Table<NarrowCodedStepSegment> table, const SgdmCoefficients<float>* c,
                     Stream stream);

// Matrices [numel / cols, cols] whose v has the scale min(row maximum, column maximum)
// (optim/state/int4_rank1.cc); m as in AdamWStep4.
struct Rank1StepSegment {
  float* p = nullptr;
  const float* g = nullptr;
  uint8_t* m_codes = nullptr;
  float* m_scales = nullptr;
  uint8_t* v_codes = nullptr;
  float* v_maxima = nullptr;    // [rows + cols], rows first
  float* new_maxima = nullptr;  // scratch of the same size
  int64_t cols = 0;
  int64_t numel = 0;
  int64_t first_tile = 0;
};
// Maxima from all new v, then v anew from old codes and the gradient, encoded with the new maxima.
// Four launches.
void AdamWStepRank1(Table<Rank1StepSegment> table, const AdamWCoefficients<float>* c,
                    Stream stream);

}  // namespace tw::kernels::device
