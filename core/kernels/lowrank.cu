#include "core/kernels/lowrank_device.h"
#include "core/kernels/random.h"
#include "core/kernels/sums.cuh"
#include "core/kernels/vectors.cuh"

namespace tw::kernels::device {
namespace {

constexpr int kFactors = 4;        // of the rank, formed together
constexpr int kPanel = 4 * kWarp;  // columns that a warp has side by side
constexpr int kOuterRows = 32;     // by a panel: what a warp does at a time of an outer product

// Thread blocks at once on a multiprocessor, by the registers that loads under way need, and on a
// device of 132.
constexpr int kAtOnce = 2, kSlabsAtOnce = 3;
constexpr int64_t kProcessors = 132;

// Matrices are cut into units that suit a kernel, not into tiles, which would cut rows. A thread
// block has `tiles` tiles of the table, and of a matrix so many units as it has blocks to share
// them.
struct Spread {
  int64_t tiles;
};
// work(segment, begin, end) for the units that this thread block has of each matrix.
template <class UnitsOf, class Work>
__device__ void ForUnits(const LowRankSegment* segments, int count, Spread spread, UnitsOf units_of,
                         Work work) {
  const int64_t block = blockIdx.x, last = block * spread.tiles + spread.tiles - 1;
  for (int at = SegmentOf(segments, count, block * spread.tiles); at < count; ++at) {
    const LowRankSegment& s = segments[at];
    if (s.first_tile > last) return;
    if (s.numel == 0) continue;
    const int64_t tiles = (s.numel + kTile - 1) / kTile;
    const int64_t first_block = s.first_tile / spread.tiles;
    const int64_t blocks = (s.first_tile + tiles - 1) / spread.tiles - first_block + 1;
    const int64_t units = units_of(s), each = (units + blocks - 1) / blocks;
    const int64_t begin = (block - first_block) * each;
    work(s, begin, begin + each < units ? begin + each : units);
  }
}

// Whether rows may be read by fours.
__device__ bool InFours(const float* m, int64_t cols) { return cols % 4 == 0 && IsAligned(m); }

// What a lane has of some rows: four columns from an address on, fewer at the end.
struct Patch {
  int64_t stride;
  int rows, cols;  // that there are, or not positive
  bool fours;
};
template <int kCount>
__device__ void LoadPatch(const float* from, const Patch& patch, Four (&x)[kCount]) {
  if (patch.fours) {
    TW_UNROLL for (int r = 0; r < kCount; ++r) {
      x[r] = Four{};
      if (r < patch.rows && patch.cols > 0) x[r] = FourAt(from + r * patch.stride);
    }
    return;
  }
  TW_UNROLL for (int r = 0; r < kCount; ++r) {
    for (int c = 0; c < 4; ++c) {
      x[r].x[c] = r < patch.rows && c < patch.cols ? from[r * patch.stride + c] : 0.0f;
    }
  }
}
template <int kCount>
__device__ void StorePatch(float* to, const Patch& patch, const Four (&x)[kCount]) {
  TW_UNROLL for (int r = 0; r < kCount; ++r) {
    if (r >= patch.rows || patch.cols <= 0) continue;
    if (patch.fours) {
      PutFour(to + r * patch.stride, x[r]);
    } else {
      for (int c = 0; c < 4; ++c) {
        if (c < patch.cols) to[r * patch.stride + c] = x[r].x[c];
      }
    }
  }
}
__device__ int Fewer(int64_t n, int most) { return n < most ? static_cast<int>(n) : most; }

// A warp has kRows rows, two panels of them at a time; of Q^T a thread reads a part for all warps.
__global__ void __launch_bounds__(kThreads, kAtOnce)
    TimesQ(const LowRankSegment* segments, int count, Spread spread) {
  constexpr int kRows = 4, kPanels = kThreads / kWarp / kFactors;
  constexpr int64_t kBlockRows = kWarps * kRows;
  __shared__ Four near[2][kFactors][kPanels][kWarp];
  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = threadIdx.x % kWarp;
  const int my_factor = warp / kPanels, my_panel = warp % kPanels;
  const auto units = [](const LowRankSegment& s) {
    return (s.shape.rows + kBlockRows - 1) / kBlockRows;
  };
  ForUnits(segments, count, spread, units, [&](const LowRankSegment& s, int64_t unit, int64_t end) {
    const int64_t cols = s.shape.cols;
    const int rank = static_cast<int>(s.shape.rank);
    const float scale = s.scale;
    Patch here{cols, 0, 0, InFours(s.m, cols) && IsAligned(s.addend)};
    Patch of_q{cols, 0, 0, InFours(s.qt, cols)};
    for (; unit < end; ++unit) {
      const int64_t row = unit * kBlockRows + warp * kRows;
      here.rows = Fewer(s.shape.rows - row, kRows);
      for (int k = 0; k < rank; k += kFactors) {
        float* m = s.m + row * cols + lane * 4;
        // A lane reads again what it wrote.
        const float* addend = s.addend && k == 0 ? s.addend + row * cols + lane * 4 : nullptr;
        const float* qt = s.qt + (k + my_factor) * cols + my_panel * kPanel + lane * 4;
        of_q.rows = rank - k - my_factor;
        float sum[kRows][kFactors] = {};
        int side = 0;
        for (int64_t left = cols; left > 0; left -= kPanels * kPanel, side ^= 1) {
          const int of_lane = Fewer(left, kPanels * kPanel) - lane * 4;
          Four x[kPanels][kRows], q[1];
          TW_UNROLL for (int n = 0; n < kPanels; ++n) {
            here.cols = of_lane - n * kPanel;
            LoadPatch(m + n * kPanel, here, x[n]);
          }
          of_q.cols = of_lane - my_panel * kPanel;
          LoadPatch(qt, of_q, q);
          if (addend) {
            Four a[kPanels][kRows];
            TW_UNROLL for (int n = 0; n < kPanels; ++n) {
              here.cols = of_lane - n * kPanel;
              LoadPatch(addend + n * kPanel, here, a[n]);
            }
            TW_UNROLL for (int n = 0; n < kPanels; ++n) {
              for (int r = 0; r < kRows; ++r) {
                for (int c = 0; c < 4; ++c) x[n][r].x[c] += scale * a[n][r].x[c];
              }
              here.cols = of_lane - n * kPanel;
              StorePatch(m + n * kPanel, here, x[n]);
            }
            addend += kPanels * kPanel;
          }
          near[side][my_factor][my_panel][lane] = q[0];
          m += kPanels * kPanel;
          qt += kPanels * kPanel;
          __syncthreads();
          TW_UNROLL for (int n = 0; n < kPanels; ++n) {
            for (int f = 0; f < kFactors; ++f) {
              const Four y = near[side][f][n][lane];
              for (int r = 0; r < kRows; ++r) {
                for (int c = 0; c < 4; ++c) sum[r][f] += x[n][r].x[c] * y.x[c];
              }
            }
          }
        }
        __syncthreads();
        TW_UNROLL for (int r = 0; r < kRows; ++r) {
          TW_UNROLL for (int f = 0; f < kFactors; ++f) {
            if (r >= here.rows || k + f >= rank) continue;  // for the whole warp
            const float total = SumAcrossWarp(sum[r][f]);
            if (lane == 0) s.p[(row + r) * rank + k + f] = total;
          }
        }
      }
    }
  });
}

// partial[slab][k][j] = sum over the slab's rows of p[i][k] m[i][j], by a warp a panel.
__global__ void __launch_bounds__(kThreads, kSlabsAtOnce)
    TransposeSlabs(const LowRankSegment* segments, int count, Spread spread) {
  constexpr int kTogether = 8;
  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = threadIdx.x % kWarp;
  const auto units = [](const LowRankSegment& s) {
    return (s.shape.rows + kSlabRows - 1) / kSlabRows * ((s.shape.rank + kFactors - 1) / kFactors) *
           ((s.shape.cols + kPanel - 1) / kPanel);
  };
  ForUnits(segments, count, spread, units,
           [&](const LowRankSegment& s, int64_t begin, int64_t end) {
             const int64_t cols = s.shape.cols;
             const int rank = static_cast<int>(s.shape.rank);
             const int64_t panels = (cols + kPanel - 1) / kPanel,
                           groups = (rank + kFactors - 1) / kFactors;
             for (int64_t unit = begin + warp; unit < end; unit += kWarps) {
               const int64_t at = unit % panels * kPanel + lane * 4, slab = unit / panels / groups;
               const int k = static_cast<int>(unit / panels % groups) * kFactors;
               const float* m = s.m + slab * kSlabRows * cols + at;
               const float* p = s.p + slab * kSlabRows * rank + k;
               Patch here{cols, Fewer(s.shape.rows - slab * kSlabRows, kSlabRows),
                          Fewer(cols - at, 4), InFours(s.m, cols)};
               Four sum[kFactors] = {};
               for (; here.rows > 0; here.rows -= kTogether) {
                 Four x[kTogether];
                 LoadPatch(m, here, x);
                 m += kTogether * cols;
                 TW_UNROLL for (int r = 0; r < kTogether; ++r) {
                   if (r >= here.rows) continue;
                   for (int f = 0; f < kFactors; ++f) {
                     const float factor = k + f < rank ? p[f] : 0.0f;
                     for (int c = 0; c < 4; ++c) sum[f].x[c] += factor * x[r].x[c];
                   }
                   p += rank;
                 }
               }
               const Patch of_sums{cols, rank - k, here.cols, InFours(s.partial, cols)};
               StorePatch(s.partial + (slab * rank + k) * cols + at, of_sums, sum);
             }
           });
}
__global__ void __launch_bounds__(kThreads)
    AddSlabs(const LowRankSegment* segments, int count, Spread spread) {
  constexpr int kTogether = 8;
  const auto units = [](const LowRankSegment& s) {
    return (s.shape.rank * s.shape.cols + kThreads - 1) / kThreads;
  };
  ForUnits(segments, count, spread, units, [&](const LowRankSegment& s, int64_t unit, int64_t end) {
    const int64_t numel = s.shape.rank * s.shape.cols;
    const int64_t slabs = (s.shape.rows + kSlabRows - 1) / kSlabRows;
    for (; unit < end; ++unit) {
      const int64_t at = unit * kThreads + threadIdx.x;
      if (at >= numel) return;
      float sum = 0.0f;
      for (int64_t slab = 0; slab < slabs; slab += kTogether) {
        float x[kTogether];
        for (int i = 0; i < kTogether; ++i) {
          x[i] = slab + i < slabs ? s.partial[(slab + i) * numel + at] : 0.0f;
        }
        for (int i = 0; i < kTogether; ++i) {
          if (slab + i < slabs) sum += x[i];
        }
      }
      s.qt[at] = sum;
    }
  });
}

// m -= P Q^T, or m += scale * P Q^T. A panel of Q is near for some rows.
template <bool kAdd>
__global__ void __launch_bounds__(kThreads, kAtOnce)
    Outer(const LowRankSegment* segments, int count, Spread spread) {
  constexpr int kRows = 8;
  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = threadIdx.x % kWarp;
  const auto units = [](const LowRankSegment& s) {
    return (s.shape.rows + kOuterRows - 1) / kOuterRows * ((s.shape.cols + kPanel - 1) / kPanel);
  };
  ForUnits(
      segments, count, spread, units, [&](const LowRankSegment& s, int64_t begin, int64_t end) {
        const int64_t cols = s.shape.cols, panels = (cols + kPanel - 1) / kPanel;
        const int rank = static_cast<int>(s.shape.rank);
        const float scale = s.scale;
        for (int64_t unit = begin + warp; unit < end; unit += kWarps) {
          const int64_t at = unit % panels * kPanel + lane * 4, row = unit / panels * kOuterRows;
          float* m = s.m + row * cols + at;
          const float* p = s.p + row * rank;
          Patch here{cols, Fewer(s.shape.rows - row, kOuterRows), Fewer(cols - at, 4),
                     InFours(s.m, cols)};
          const Patch of_q{cols, 1, here.cols, InFours(s.qt, cols)};
          for (; here.rows > 0; here.rows -= kRows) {
            Four x[kRows], value[kRows] = {};
            LoadPatch(m, here, x);
            const float* qt = s.qt + at;
            for (int k = 0; k < rank; ++k) {
              Four q[1];
              LoadPatch(qt, of_q, q);
              qt += cols;
              TW_UNROLL for (int r = 0; r < kRows; ++r) {
                const float factor = r < here.rows ? p[r * rank + k] : 0.0f;
                for (int c = 0; c < 4; ++c) value[r].x[c] = value[r].x[c] + factor * q[0].x[c];
              }
            }
            for (int r = 0; r < kRows; ++r) {
              for (int c = 0; c < 4; ++c) {
                x[r].x[c] = kAdd ? x[r].x[c] + scale * value[r].x[c] : x[r].x[c] - value[r].x[c];
              }
            }
            StorePatch(m, here, x);
            m += kRows * cols;
            p += kRows * rank;
          }
        }
      });
}

// ---- a basis: orthonormalize.cc, step by step ----

constexpr int kBasisThreads = kDotParts * kWarp;

// column -= along * basis, where there is a basis; then its product with `other`, or with itself,
// for all threads. Pieces in sixteen lanes and a tree, every kDotParts-th to a warp, whose sums are
// added in order.
__device__ double SubtractThenDot(double* column, const double* basis, double along,
                                  const double* other, int64_t n, double* of_warps) {
  constexpr int kTogether = 4;
  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = threadIdx.x % kWarp;
  double sum = 0;
  for (int64_t piece = warp * kPiece; piece < n; piece += kDotParts * kPiece) {
    const int64_t end = piece + kPiece < n ? piece + kPiece : n;
    double of_piece = 0;
    for (int64_t at = piece + lane; at - lane < end; at += kTogether * kWarp) {
      double x[kTogether], b[kTogether], y[kTogether];
      for (int row = 0; row < kTogether; ++row) {
        const int64_t i = at + row * kWarp;
        x[row] = i < end ? column[i] : 0.0;
        b[row] = basis && i < end ? basis[i] : 0.0;
        y[row] = other && i < end ? other[i] : 0.0;
      }
      for (int row = 0; row < kTogether; ++row) {
        const int64_t i = at + row * kWarp;
        if (basis) x[row] -= along * b[row];
        if (basis && i < end) column[i] = x[row];
        const double term = x[row] * (other ? y[row] : x[row]);
        const double above = __shfl_down_sync(kWholeWarp, term, kPieceLanes);
        if (i < end) of_piece += term;
        if (i + kPieceLanes < end) of_piece += above;
      }
    }
    sum += SumOfLanes(of_piece);
  }
  if (lane == 0) of_warps[warp] = sum;
  __syncthreads();
  double total = of_warps[0];
  for (int w = 1; w < kDotParts; ++w) total += of_warps[w];
  __syncthreads();
  return total;
}

__global__ void __launch_bounds__(kBasisThreads)
    OrthonormalizeMatrix(const LowRankSegment* segments) {
  constexpr double kDependent = 1e-6;
  __shared__ double of_warps[kDotParts];
  const LowRankSegment s = segments[blockIdx.x];
  const int64_t rows = s.shape.rows, rank = s.shape.rank;
  for (int64_t i = threadIdx.x; i < rows; i += kBasisThreads) {
    for (int64_t k = 0; k < rank; ++k) s.columns[k * rows + i] = s.p[i * rank + k];
  }
  __syncthreads();
  for (int64_t k = 0; k < rank; ++k) {
    double* column = s.columns + k * rows;
    const auto dot = [&](const double* basis, double along, const double* other) {
      return SubtractThenDot(column, basis, along, other, rows, of_warps);
    };
    const double before = std::sqrt(dot(nullptr, 0, nullptr));
    const double* basis = nullptr;
    double along = 0;
    for (int pass = 0; pass < 2; ++pass) {
      for (int64_t j = 0; j < k; ++j) {
        const double* next = s.columns + j * rows;
        along = dot(basis, along, next);
        basis = next;
      }
    }
    const double after = std::sqrt(dot(basis, along, nullptr));
    const bool keep = after > kDependent * before && after - after == 0;
    for (int64_t i = threadIdx.x; i < rows; i += kBasisThreads) {
      const double x = keep ? column[i] / after : 0.0;
      column[i] = x;
      s.p[i * rank + k] = static_cast<float>(x);
    }
    __syncthreads();
  }
}

__device__ double LengthOf(const float* x, int64_t n, double* shared) {
  if (threadIdx.x < kWarp) {
    const double sum =
        SumOfPiece(0, n, [&](int64_t j) { return static_cast<double>(x[j]) * x[j]; });
    if (threadIdx.x == 0) *shared = std::sqrt(sum);
  }
  __syncthreads();
  const double length = *shared;
  __syncthreads();
  return length;
}

__global__ void __launch_bounds__(kThreads) UnitRow(const UnitRowsSegment* segments, int count) {
  __shared__ double shared;
  const UnitRowsSegment s = segments[SegmentOf(segments, count, blockIdx.x)];
  const int64_t begin = (blockIdx.x - s.first_tile) * s.cols;
  const float* from = s.from ? s.from + begin : nullptr;
  float* to = s.to + begin;
  double length = from ? LengthOf(from, s.cols, &shared) : 0.0;
  if (!(length > 0.0)) {
    for (int64_t j = threadIdx.x; j < s.cols; j += kThreads) {
      to[j] = CentredUniform(ElementBits(s.key, static_cast<uint64_t>(begin + j)));
    }
    __syncthreads();
    from = to;
    length = LengthOf(to, s.cols, &shared);
  }
  for (int64_t j = threadIdx.x; j < s.cols; j += kThreads) {
    to[j] = static_cast<float>(from[j] / length);
  }
}

struct Draw {
  __device__ void operator()(const DrawSegment& s, int64_t i) const {
    s.out[i] = CentredUniform(ElementBits(s.key, s.first + static_cast<uint64_t>(i)));
  }
};
struct Transpose {
  __device__ void operator()(const TransposeSegment& s, int64_t at) const {
    const int64_t rows = s.numel / s.cols;
    s.to[at % s.cols * rows + at / s.cols] = s.factor * s.from[at];
  }
};

void LaunchSpread(void (*kernel)(const LowRankSegment*, int, Spread), int at_once,
                  const Table<LowRankSegment>& table, Stream stream) {
  if (table.tiles == 0) return;
  const int64_t most = at_once * kProcessors, each = (table.tiles + most - 1) / most;
  Launch(kernel, (table.tiles + each - 1) / each, kThreads, stream, table.segments, table.count,
         Spread{each});
}

}  // namespace

void MaterializeTimesQ(Table<LowRankSegment> table, Stream stream) {
  LaunchSpread(TimesQ, kAtOnce, table, stream);
}
void TransposeTimesM(Table<LowRankSegment> table, Stream stream) {
  LaunchSpread(TransposeSlabs, kSlabsAtOnce, table, stream);
  LaunchSpread(AddSlabs, kSlabsAtOnce, table, stream);
}
void OuterResidual(Table<LowRankSegment> table, Stream stream) {
  LaunchSpread(Outer<false>, kAtOnce, table, stream);
}
void OuterAdd(Table<LowRankSegment> table, Stream stream) {
  LaunchSpread(Outer<true>, kAtOnce, table, stream);
}
void Orthonormalize(Table<LowRankSegment> table, Stream stream) {
  Launch(OrthonormalizeMatrix, table.count, kBasisThreads, stream, table.segments);
}

int64_t PlaceUnitRows(std::span<UnitRowsSegment> segments) {
  int64_t tiles = 0;
  for (UnitRowsSegment& segment : segments) {
    segment.first_tile = tiles;
    if (segment.numel > 0) tiles += segment.numel / segment.cols;
  }
  return tiles;
}
void UnitRows(Table<UnitRowsSegment> table, Stream stream) {
  Launch(UnitRow, table.tiles, kThreads, stream, table.segments, table.count);
}
void DrawUniform(Table<DrawSegment> table, Stream stream) { LaunchForEach(table, stream, Draw()); }
void TransposeScaled(Table<TransposeSegment> table, Stream stream) {
  LaunchForEach(table, stream, Transpose());
}

}  // namespace tw::kernels::device
