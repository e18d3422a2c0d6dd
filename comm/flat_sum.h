#pragma once
// What all exchanges that add bodies share: the element type of a bucket's flat buffer of bodies,
// the addition of the ranks' terms, and the decoding of the sums.
//
// Sums of fp32 are formed in fp32, of fp64 in fp64, of fp16 and bf16 in fp32 with one rounding at
// the end; integers wrap around. A codec with trait max_first gets the largest instead of the sum
// in round 0, of fp32. A lossless codec's bodies are the parameter's own values and hold the mean
// afterwards: each rank scales the chunk it has added, and what lies in the mean's own memory needs
// no decoding. Other codecs' bodies hold the sum (a cast scales by 1/n before it rounds).

#include "core/api/exchange.h"

namespace tw {

// REQUIRES: not empty, one element type (checked).
DType SumType(std::span<const Segment> segments, int round);

// Writes to `own` the sums (lossless: means) of its elements, added in rank order; `own` starts at
// byte `begin` of the flat buffer of bodies, and `parts` holds every rank's term of it, rank after
// rank. Takes slot kScratchExchange1 for wide sums of a device.
void AddInRankOrder(std::span<const Segment> segments, int round, size_t begin, ByteSpan parts,
                    MutableByteSpan own, Workspace& scratch);

// Whether partial sums may travel in the bodies' own type: fp32 and fp64, and no largest values.
bool PartialSumsTravel(std::span<const Segment> segments, int round);

// to <- to + from, of fp32 or fp64 elements.
void AddTerm(DType type, MutableByteSpan to, ByteSpan from);

// Turns sums over `ranks` of fp32 or fp64 into means.
void Average(DType type, MutableByteSpan sums, int ranks);

// `status`, with the parameter's name in front of an error. No text is formed where there is none.
inline Status NameParameter(const Status& status, const Segment& segment) {
  return status.ok() ? status : Annotate(status, "parameter " + segment.context.spec->name);
}

// Adds the decoded mean to each segment.mean; the bodies hold the sums over `ranks`.
Status DecodeSums(std::span<const Segment> segments, int ranks);

// The same for bodies that one process holds, in the host's memory: sums in client order, with the
// same bits.
const Fold* SumFold();

}  // namespace tw
