#pragma once
// optimizer.h on a GPU: one launch over all parameters of a bucket, the same bits.
//
// Coefficients lie in device memory: they change from step to step.

#include "core/kernels/device.h"
#include "core/kernels/narrow_parameter.h"
#include "core/kernels/optimizer.h"

namespace tw::kernels::device {

struct StepSegment {
  float* p = nullptr;
  const float* g = nullptr;
  float* m = nullptr;
  float* v = nullptr;
  int64_t numel = 0;
  int64_t first_tile = 0;
};

// p, g, m, v
void AdamWStep(Table<StepSegment> table, const AdamWCoefficients<float>* c, Stream stream);
// g, v
void SecondMomentStep(Table<StepSegment> table, const AdamWCoefficients<float>* c, Stream stream);
// p, g
void SgdStep(Table<StepSegment> table, const SgdmCoefficients<float>* c, Stream stream);
// p, g, m
void SgdmStep(Table<StepSegment> table, const SgdmCoefficients<float>* c, Stream stream);

// The same on bf16 parameters and gradients, in one pass: 28 bytes a parameter of AdamW with a
// master copy instead of 40, 22 without one.
struct NarrowStepSegment : NarrowParameter {
  float* m = nullptr;
  float* v = nullptr;
  int64_t first_tile = 0;
};
void AdamWStepNarrow(Table<NarrowStepSegment> table, const AdamWCoefficients<float>* c,
                     Stream stream);
void SgdStepNarrow(Table<NarrowStepSegment> table, const SgdmCoefficients<float>* c, Stream stream);
void SgdmStepNarrow(Table<NarrowStepSegment> table, const SgdmCoefficients<float>* c,
                    Stream stream);

// Adam-mini: blocks of equal size with one second moment each; a parameter whose blocks differ in
// size is a segment a size.
struct AdamMiniSegment {
  float* p = nullptr;
  const float* g = nullptr;
  float* m = nullptr;
  float* v = nullptr;  // [numel / block]
  int64_t block = 0;   // divides numel
  int64_t numel = 0;
  int64_t first_tile = 0;
};
// In place of PlaceTiles: a tile a block.
int64_t PlaceAdamMini(std::span<AdamMiniSegment> segments);
// For every block
//   v = beta2 v + rest2 mean (grad_scale g)^2;   AdamMiniElement with its denominator
// The mean is a sum in fp64 of pieces of 1024 elements, each in the shape of reduce.h, in rising
// order: the bits of the optimizer adam_mini on the CPU.
void AdamMiniStep(Table<AdamMiniSegment> table, const AdamWCoefficients<float>* c, Stream stream);

}  // namespace tw::kernels::device
