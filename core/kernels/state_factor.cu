#include "core/kernels/state_factor_device.h"

#include "core/kernels/state_codes.cuh"
#include "core/kernels/sums.cuh"

namespace tw::kernels::device {
namespace {

using MomentCoder = Coder4<Code4::kDeSigned>;

int64_t RowsOf(const FactorStepSegment& s) { return s.numel == 0 ? 0 : s.numel / s.cols; }
int64_t Pieces(int64_t count, int64_t piece) { return (count + piece - 1) / piece; }
int64_t RowSums(const FactorStepSegment& s) { return Pieces(s.cols, kFactorPanel) * RowsOf(s); }
int64_t ColSums(const FactorStepSegment& s) { return Pieces(RowsOf(s), kFactorSlab) * s.cols; }
int64_t SumTiles(const FactorStepSegment& s) {
  return Pieces(RowsOf(s), kFactorSlab) * Pieces(s.cols, kFactorPanel);
}
// Sums, then factors, so that the next one's are aligned.
int64_t ScratchBytes(const FactorStepSegment& s) {
  return 8 * (RowSums(s) + ColSums(s) + Pieces(RowsOf(s), 2));
}

// A slab of rows by a panel of columns.
struct SumTile {
  int64_t rows, slabs, panels, slab, panel;
};
__device__ SumTile SumTileOf(const FactorStepSegment& s, int64_t tile) {
  SumTile t;
  t.rows = s.numel / s.cols;
  t.slabs = (t.rows + kFactorSlab - 1) / kFactorSlab;
  t.panels = (s.cols + kFactorPanel - 1) / kFactorPanel;
  t.slab = (tile - s.first_sum_tile) / t.panels;
  t.panel = (tile - s.first_sum_tile) % t.panels;
  return t;
}

// A thread block a segment.
__global__ void __launch_bounds__(kThreads) FitRows(const FactorStepSegment* segments) {
  __shared__ double lanes[kThreads];
  const FactorStepSegment s = segments[blockIdx.x];
  if (s.numel == 0) return;
  const int64_t rows = s.numel / s.cols;
  const auto row_mean = [&](int64_t i) { return static_cast<double>(s.v_means[i]); };
  const double mean = SumOfTerms(rows, row_mean, lanes) / static_cast<double>(rows);
  for (int64_t i = threadIdx.x; i < rows; i += kThreads) {
    s.factors[i] = mean > 0 ? static_cast<float>(s.v_means[i] / mean) : 0.0f;
  }
}

// A warp has every eighth row of a slab, a lane every 32nd column of a panel.
__global__ void __launch_bounds__(kThreads)
    SumNewSquares(const FactorStepSegment* segments, int count,
                  const AdamWCoefficients<float>* at) {
  constexpr int kEach = kFactorPanel / kWarp;
  __shared__ double of_warps[kWarps][kFactorPanel];
  const FactorStepSegment s =
      segments[SegmentOf(segments, count, blockIdx.x, &FactorStepSegment::first_sum_tile)];
  const AdamWCoefficients<float> c = *at;
  const SumTile t = SumTileOf(s, blockIdx.x);
  const int warp = static_cast<int>(threadIdx.x / kWarp), lane = LaneInWarp();
  const int64_t first_row = t.slab * kFactorSlab, first_col = t.panel * kFactorPanel;
  float col_means[kEach];
  double col_sums[kEach] = {};
  for (int k = 0; k < kEach; ++k) {
    const int64_t col = first_col + lane + k * kWarp;
    col_means[k] = col < s.cols ? s.v_means[t.rows + col] : 0.0f;
  }
  for (int64_t row = first_row + warp; row < first_row + kFactorSlab && row < t.rows;
       row += kWarps) {
    const float factor = s.factors[row];
    double sum = 0;
    for (int k = 0; k < kEach; ++k) {
      const int64_t col = first_col + lane + k * kWarp;
      if (col >= s.cols) continue;
      const double x = SecondMomentElement(s.g[row * s.cols + col], factor * col_means[k], c);
      sum += x;
      col_sums[k] += x;
    }
    sum = SumAcrossWarp(sum);
    if (lane == 0) s.row_sums[t.panel * t.rows + row] = sum;
  }
  for (int k = 0; k < kEach; ++k) of_warps[warp][lane + k * kWarp] = col_sums[k];
  __syncthreads();
  for (int64_t i = threadIdx.x; i < kFactorPanel && first_col + i < s.cols; i += kThreads) {
    double sum = 0;
    for (int w = 0; w < kWarps; ++w) sum += of_warps[w][i];
    s.col_sums[t.slab * s.cols + first_col + i] = sum;
  }
}

// `count` sums of pieces, `stride` apart.
__device__ float MeanOf(const double* sums, int64_t count, int64_t stride, int64_t elements) {
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += sums[i * stride];
  return static_cast<float>(sum / static_cast<double>(elements));
}
// The first tile of each slab has its rows, the first of each panel its columns.
__global__ void __launch_bounds__(kThreads)
    CommitMeans(const FactorStepSegment* segments, int count) {
  const FactorStepSegment s =
      segments[SegmentOf(segments, count, blockIdx.x, &FactorStepSegment::first_sum_tile)];
  const SumTile t = SumTileOf(s, blockIdx.x);
  if (t.panel == 0) {
    for (int64_t i = threadIdx.x; i < kFactorSlab; i += kThreads) {
      const int64_t row = t.slab * kFactorSlab + i;
      if (row < t.rows) s.v_means[row] = MeanOf(s.row_sums + row, t.panels, t.rows, s.cols);
    }
  }
  if (t.slab == 0) {
    for (int64_t i = threadIdx.x; i < kFactorPanel; i += kThreads) {
      const int64_t col = t.panel * kFactorPanel + i;
      if (col < s.cols) {
        s.v_means[t.rows + col] = MeanOf(s.col_sums + col, t.slabs, s.cols, t.rows);
      }
    }
  }
}

// A lane's four elements may lie in several rows.
__global__ void __launch_bounds__(kThreads)
    StepByFit(const FactorStepSegment* segments, int count, const AdamWCoefficients<float>* at) {
  constexpr int kEach = MomentCoder::kEach;
  const FactorStepSegment s = segments[SegmentOf(segments, count, blockIdx.x)];
  AdamWCoefficients<float> c = *at;
  c.beta2 = 1;
  c.rest2 = 0;
  const float* col_means = s.v_means + s.numel / s.cols;
  ForBlocks<kStateBlock4>(s, [&](int64_t block) {
    const int64_t first = block * kStateBlock4 + LaneInWarp() * kEach;
    float p[kEach], g[kEach], m[kEach];
    LoadFloats(s.p, first, s.numel, p);
    LoadFloats(s.g, first, s.numel, g);
    DecodeLane<MomentCoder>(s.m_codes, s.m_scales[block], first, s.numel, m);
    int64_t row = first / s.cols, col = first % s.cols;
    for (int i = 0; i < kEach && first + i < s.numel; ++i) {
      float v = s.factors[row] * col_means[col];
      AdamWElement(p[i], g[i], m[i], v, c);
      if (++col == s.cols) {
        col = 0;
        ++row;
      }
    }
    StoreFloats(s.p, first, s.numel, p);
    const float scale = EncodeLane<MomentCoder>(m, first, s.numel, s.m_codes);
    if (LaneInWarp() == 0) s.m_scales[block] = scale;
  });
}

}  // namespace

int64_t PlaceFactor(std::span<FactorStepSegment> segments) {
  int64_t tiles = 0;
  for (FactorStepSegment& s : segments) {
    s.first_sum_tile = tiles;
    tiles += SumTiles(s);
  }
  return PlaceTiles(segments);
}
int64_t FactorSumTiles(std::span<const FactorStepSegment> placed) {
  return placed.empty() ? 0 : placed.back().first_sum_tile + SumTiles(placed.back());
}

int64_t FactorScratchBytes(std::span<const FactorStepSegment> segments) {
  int64_t bytes = 0;
  for (const FactorStepSegment& s : segments) bytes += ScratchBytes(s);
  return bytes;
}
void UseFactorScratch(std::span<FactorStepSegment> segments, uint8_t* scratch) {
  for (FactorStepSegment& s : segments) {
    s.row_sums = reinterpret_cast<double*>(scratch);
    s.col_sums = s.row_sums + RowSums(s);
    s.factors = reinterpret_cast<float*>(s.col_sums + ColSums(s));
    scratch += ScratchBytes(s);
  }
}

void AdamWStepFactor(Table<FactorStepSegment> table, int64_t sum_tiles,
                     const AdamWCoefficients<float>* c, Stream stream) {
  if (table.tiles == 0) return;
  Launch(FitRows, table.count, kThreads, stream, table.segments);
  Launch(SumNewSquares, sum_tiles, kThreads, stream, table.segments, table.count, c);
  Launch(CommitMeans, sum_tiles, kThreads, stream, table.segments, table.count);
  Launch(FitRows, table.count, kThreads, stream, table.segments);
  Launch(StepByFit, table.tiles, kThreads, stream, table.segments, table.count, c);
}

}  // namespace tw::kernels::device
