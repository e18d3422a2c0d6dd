// int4_factor: m as in int4; v of a matrix as an outer product of row and column means in fp32
// (Shazeer & Stern, Adafactor, arXiv 1804.04235; "4-bit Factor" of arXiv 2309.01507).
//   R_i = mean over columns of v,   C_j = mean over rows of v,   v ~ R_i C_j / mean(R)
// R and C are linear in v, so fitting them to beta2 v + (1-beta2) g^2 is the moving average of the
// means of g^2. The parameter moves by the fit. mean(R) = 0 gives v = 0. A tensor of more
// dimensions is the matrix [d0, rest]; without two dimensions v is as in int4. Slots of v: .means
// fp32 [rows + cols], rows first. Sums in fp64, in the order of the elements. m 0.53125, v 4 (rows
// + cols) / numel bytes an element. Left out: Adafactor's clipping and relative step.

#include <algorithm>

#include "optim/state/block_codes.h"

namespace tw {
namespace {

class Int4Factor : public SignedInt4 {
 public:
  const char* name() const override { return "int4_factor"; }
  std::vector<StateSlotSpec> Slots(MomentKind kind, const TensorSpec& spec) const override {
    if (!Factored(kind, spec)) return BlockSlots4(spec);
    return {{".means", {spec.rows() + spec.cols()}, DType::kF32}};
  }
  StatePasses passes(MomentKind kind, const TensorSpec& spec) const override {
    return Factored(kind, spec) ? StatePasses::kFit : StatePasses::kOne;
  }
  // Sums, and the mean of R.
  int64_t ScratchBytes(MomentKind kind, const TensorSpec& spec) const override {
    return Factored(kind, spec) ? 8 * (spec.rows() + spec.cols() + 1) : 0;
  }

  void Begin(const MomentState& state) const override {
    std::ranges::fill(Sums(state), 0.0);
    *MeanOfRows(state) = Mean(state);
  }
  void Decode(const MomentState& state, int64_t first, std::span<float> out) const override {
    if (!Factored(state.kind, *state.spec)) return SignedInt4::Decode(state, first, out);
    const std::span<const float> means = state.slots[0].f32();
    const size_t rows = static_cast<size_t>(state.spec->rows());
    const std::span<const float> columns = means.subspan(rows);
    const double mean = *MeanOfRows(state);
    EachRun(state, first, out.size(), [&](size_t i, size_t row, size_t col, size_t run) {
      const float factor = mean > 0 ? static_cast<float>(means[row] / mean) : 0.0f;
      for (size_t k = 0; k < run; ++k) out[i + k] = factor * columns[col + k];
    });
  }
  void Observe(const MomentState& state, int64_t first, std::span<const float> x) const override {
    const std::span<double> sums = Sums(state);
    const size_t rows = static_cast<size_t>(state.spec->rows());
    EachRun(state, first, x.size(), [&](size_t i, size_t row, size_t col, size_t run) {
      double* columns = sums.data() + rows + col;
      double sum[4] = {};
      size_t k = 0;
      for (; k + 4 <= run; k += 4) {
        for (size_t lane = 0; lane < 4; ++lane) {
          const double value = x[i + k + lane];
          sum[lane] += value;
          columns[k + lane] += value;
        }
      }
      for (; k < run; ++k) {
        sum[0] += x[i + k];
        columns[k] += x[i + k];
      }
      sums[row] += (sum[0] + sum[2]) + (sum[1] + sum[3]);
    });
  }
  void Encode(const MomentState& state, int64_t first, std::span<const float> x) const override {
    TW_CHECK(!Factored(state.kind, *state.spec));  // Commit has it all
    SignedInt4::Encode(state, first, x);
  }
  void Commit(const MomentState& state) const override {
    const std::span<float> means = state.slots[0].f32();
    const std::span<double> sums = Sums(state);
    const size_t rows = static_cast<size_t>(state.spec->rows());
    for (size_t i = 0; i < means.size(); ++i) {
      const int64_t count = i < rows ? state.spec->cols() : state.spec->rows();
      means[i] = static_cast<float>(sums[i] / static_cast<double>(count));
    }
    *MeanOfRows(state) = Mean(state);
  }

 private:
  static bool Factored(MomentKind kind, const TensorSpec& spec) {
    return kind == MomentKind::kSquare && spec.is_matrix();
  }
  static double* MeanOfRows(const MomentState& state) {
    return static_cast<double*>(state.scratch);
  }
  static std::span<double> Sums(const MomentState& state) {
    return {static_cast<double*>(state.scratch) + 1, static_cast<size_t>(state.slots[0].numel)};
  }
  static double Mean(const MomentState& state) {
    double sum = 0;
    const size_t rows = static_cast<size_t>(state.spec->rows());
    for (size_t i = 0; i < rows; ++i) sum += state.slots[0].f32()[i];
    return sum / static_cast<double>(rows);
  }
  // f(place in the tile, row, column, elements) for each stretch of a row in the tile.
  template <class F>
  static void EachRun(const MomentState& state, int64_t first, size_t size, F&& f) {
    const size_t cols = static_cast<size_t>(state.spec->cols());
    for (size_t i = 0; i < size;) {
      const size_t at = static_cast<size_t>(first) + i, run = std::min(cols - at % cols, size - i);
      f(i, at / cols, at % cols, run);
      i += run;
    }
  }
};

StatusOr<std::unique_ptr<StateCodec>> Create(const NoConfig&) {
  return std::make_unique<Int4Factor>();
}

TW_REGISTER(StateCodec, int4_factor, 0, NoConfig, Create,
            "4 bits, mean squares as an outer product of row and column means");

}  // namespace
}  // namespace tw
