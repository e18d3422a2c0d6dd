// Optimizers and kernels of models on a device and on the host.
#include <cmath>
#include <numeric>

#include "core/kernels/expand.h"
#include "core/kernels/float16.h"
#include "core/kernels/int8_block.h"
#include "core/kernels/normal.h"
#include "core/kernels/optimizer.h"
#include "core/kernels/reduce.h"
#include "core/kernels/softmax.h"
#include "core/kernels/state_codes.h"
#include "core/kernels/state_steps.h"
#include "tests/cuda/queue_fixture.h"

namespace tw {
namespace {

using kernels::Code4;
using kernels::Code8;
using kernels::CodedMoment;

constexpr kernels::AdamWCoefficients<float> kAdamW = {0.5f,   0.999f, 0.9f, 0.1f, 0.999f,
                                                      0.001f, 1e-2f,  3.0f, 1e-8f};
constexpr kernels::SgdmCoefficients<float> kSgdm = {0.5f, 0.01f, 0.9f, 0.1f, true};

struct Parameter {
  Both<float> p, g, m, v;
};

class QueueSteps : public QueueTest {
 protected:
  std::vector<Parameter> Parameters() {
    std::vector<Parameter> out;
    for (const size_t n : QueueSizes()) {
      std::vector<float> v = RandomFloats(n, n + 3);
      for (float& x : v) x *= x;
      out.push_back({Floats(n, n), Floats(n, n + 1), Floats(n, n + 2), New(v)});
    }
    return out;
  }
  static void ExpectSame(const std::vector<Parameter>& parameters) {
    for (const Parameter& x : parameters) EXPECT_TRUE(x.p.Same() && x.m.Same() && x.v.Same());
  }
};

TEST_F(QueueSteps, OptimizersHaveTheHostsBits) {
  std::vector<Parameter> x = Parameters();
  EXPECT_EQ(Together(x,
                     [](Parameter& x) {
                       kernels::AdamWStep(x.p.span(), x.g.span(), x.m.span(), x.v.span(), kAdamW);
                       kernels::SecondMomentStep(x.g.span(), x.v.span(), kAdamW);
                       kernels::SgdStep(x.p.span(), x.g.span(), kSgdm);
                       kernels::SgdmStep(x.p.span(), x.g.span(), x.m.span(), kSgdm);
                     }),
            4);
  ExpectSame(x);
}

TEST_F(QueueSteps, EachSetOfCoefficientsIsALaunch) {
  std::vector<Parameter> x = Parameters();
  EXPECT_EQ(Together(x,
                     [](Parameter& x) {
                       kernels::AdamWCoefficients<float> c = kAdamW;
                       if (x.p.size() < 100) c.decay = 1;
                       kernels::AdamWStep(x.p.span(), x.g.span(), x.m.span(), x.v.span(), c);
                     }),
            2);
  ExpectSame(x);
}

TEST_F(QueueSteps, StatesOfFewBitsAreTheHosts) {
  struct Coded {
    Parameter x;
    Both<uint8_t> m4, v4, m8, v8;
    Both<float> m4_scales, v4_scales, m8_scales, v8_scales;
    Both<uint16_t> narrow;
    Both<float> wide;
  };
  std::vector<Coded> rows;
  std::vector<Parameter> parameters = Parameters();
  for (Parameter& x : parameters) {
    const auto n = static_cast<int64_t>(x.p.size());
    const auto bytes = [&](int64_t count) { return Bytes(static_cast<size_t>(count)); };
    const auto scales = [&](int64_t block) {
      return New(std::vector<float>(static_cast<size_t>(kernels::Blocks(n, block))));
    };
    rows.push_back({std::move(x), bytes(kernels::NibbleBytes(n)), bytes(kernels::NibbleBytes(n)),
                    bytes(n), bytes(n), scales(kernels::kStateBlock4),
                    scales(kernels::kStateBlock4), scales(kernels::kStateBlock8),
                    scales(kernels::kStateBlock8),
                    New(std::vector<uint16_t>(static_cast<size_t>(n))),
                    New(std::vector<float>(static_cast<size_t>(n)))});
  }
  const auto same = [&] {
    for (const Coded& r : rows) {
      EXPECT_TRUE(r.x.p.Same() && r.x.m.Same() && r.x.v.Same() && r.narrow.Same() && r.wide.Same());
      EXPECT_TRUE(r.m4.Same() && r.v4.Same() && r.m8.Same() && r.v8.Same());
      EXPECT_TRUE(r.m4_scales.Same() && r.v4_scales.Same());
      EXPECT_TRUE(r.m8_scales.Same() && r.v8_scales.Same());
    }
  };
  EXPECT_EQ(
      Together(
          rows,
          [](Coded& r) {
            kernels::EncodeBlocks4(Code4::kDeSigned, r.x.m.span(), r.m4.span(), r.m4_scales.span());
            kernels::EncodeBlocks4(Code4::kLinear, r.x.v.span(), r.v4.span(), r.v4_scales.span());
            kernels::EncodeBlocks8(Code8::kDeSigned, r.x.m.span(), r.m8.span(), r.m8_scales.span());
            kernels::EncodeBlocks8(Code8::kDeUnsigned, r.x.v.span(), r.v8.span(),
                                   r.v8_scales.span());
            kernels::RoundToBf16(r.x.p.span(), 3, 10, r.narrow.span());
            kernels::WidenBf16(r.narrow.span(), r.wide.span());
          }),
      6);
  same();
  for (int step = 0; step < 2; ++step) {
    EXPECT_EQ(Together(rows,
                       [](Coded& r) {
                         const CodedMoment m4{r.m4.span(), r.m4_scales.span()};
                         const CodedMoment v4{r.v4.span(), r.v4_scales.span()};
                         const CodedMoment m8{r.m8.span(), r.m8_scales.span()};
                         const CodedMoment v8{r.v8.span(), r.v8_scales.span()};
                         kernels::AdamWStep4(r.x.p.span(), r.x.g.span(), m4, v4, kAdamW);
                         kernels::AdamWStep8(r.x.p.span(), r.x.g.span(), m8, v8, kAdamW);
                         kernels::SgdmStep4(r.x.p.span(), r.x.g.span(), m4, kSgdm);
                       }),
              3);
    same();
  }
  EXPECT_EQ(Together(rows,
                     [](Coded& r) {
                       kernels::DecodeBlocks4(Code4::kDeSigned, r.m4.span(), r.m4_scales.span(),
                                              r.x.m.span());
                       kernels::DecodeBlocks8(Code8::kDeUnsigned, r.v8.span(), r.v8_scales.span(),
                                              r.x.v.span());
                     }),
            2);
  same();
}

TEST_F(QueueSteps, AdamMiniIsLaunchedOnceForAll) {
  std::vector<Parameter> x;
  for (const auto& [block, blocks] :
       std::vector<std::pair<size_t, size_t>>{{1, 3}, {128, 4}, {1000, 3}, {4099, 2}}) {
    x.push_back({Floats(block * blocks, 1), Floats(block * blocks, 2), Floats(block * blocks, 3),
                 New(std::vector<float>(blocks, 0.25f))});
  }
  const auto step = [&] {
    tw::Together together;
    for (Parameter& row : x) {
      together.Next();
      queue_->AdamMiniBlocks(row.p.span(), row.g.span(), row.m.span(), row.v.span(),
                             static_cast<int64_t>(row.p.size() / row.v.size()), kAdamW);
    }
  };
  EXPECT_EQ(LaunchesOf([&] { OnDevice(step); }), 1);
  for (Parameter& row : x) {
    // As optim/adam_mini.cc does.
    const size_t block = row.p.size() / row.v.size();
    for (size_t b = 0; b < row.v.size(); ++b) {
      std::vector<float> scaled(block);
      for (size_t i = 0; i < block; ++i)
        scaled[i] = row.g.span()[b * block + i] * kAdamW.grad_scale;
      double sum = 0;
      for (size_t at = 0; at < block; at += 1024) {
        sum += kernels::SumOfSquares(
            std::span<const float>(scaled).subspan(at, std::min<size_t>(1024, block - at)));
      }
      float& v = row.v.span()[b];
      v = kAdamW.beta2 * v + kAdamW.rest2 * static_cast<float>(sum / static_cast<double>(block));
      const float denominator = std::sqrt(v) * kAdamW.inverse_root_bias + kAdamW.eps;
      kernels::AdamMiniStep(row.p.span().subspan(b * block, block),
                            row.g.span().subspan(b * block, block),
                            row.m.span().subspan(b * block, block), denominator, kAdamW);
    }
  }
  ExpectSame(x);
}

// What AdamW makes of a matrix whose v has maxima of rows and columns.
void Rank1OnHost(Parameter& x, Both<uint8_t>& m_codes, Both<float>& m_scales,
                 Both<uint8_t>& v_codes, Both<float>& maxima, size_t rows) {
  std::vector<float> fresh(maxima.size()), m(x.p.size()), v = m, scales = m;
  const auto rows_of = [&](std::span<float> all) { return all.first(rows); };
  const auto cols_of = [&](std::span<float> all) { return all.subspan(rows); };
  kernels::DecodeBlocks4(Code4::kDeSigned, m_codes.span(), m_scales.span(), m);
  kernels::DequantizeUnit4(Code4::kLinear, v_codes.span(), v);
  kernels::Rank1Scales(0, rows_of(maxima.span()), cols_of(maxima.span()), scales);
  for (size_t i = 0; i < v.size(); ++i) v[i] *= scales[i];
  kernels::AdamWStep(x.p.span(), x.g.span(), m, v, kAdamW);
  kernels::EncodeBlocks4(Code4::kDeSigned, m, m_codes.span(), m_scales.span());
  kernels::RaiseRank1(v, 0, rows_of(fresh), cols_of(fresh));
  kernels::Rank1Scales(0, rows_of(fresh), cols_of(fresh), scales);
  kernels::DivideByScales(v, scales);
  kernels::QuantizeUnit4(Code4::kLinear, scales, v_codes.span());
  std::copy(fresh.begin(), fresh.end(), maxima.data());
}

TEST_F(QueueSteps, MomentsByRankOneAreTheHosts) {
  struct Matrix {
    Parameter x;
    Both<uint8_t> m_codes, v_codes;
    Both<float> m_scales, maxima, scratch;
    size_t rows, cols;
  };
  std::vector<Matrix> matrices;
  for (const auto& [rows, cols] :
       std::vector<std::pair<size_t, size_t>>{{1, 1}, {3, 129}, {33, 65}}) {
    const size_t n = rows * cols;
    matrices.push_back({{Floats(n, 1), Floats(n, 2), Floats(0, 0), Floats(0, 0)},
                        New(std::vector<uint8_t>((n + 1) / 2, 0x77)),
                        New(std::vector<uint8_t>((n + 1) / 2)),
                        New(std::vector<float>((n + 127) / 128, 0.5f)),
                        New(std::vector<float>(rows + cols)),
                        New(std::vector<float>(rows + cols)),
                        rows,
                        cols});
    if (n % 2) matrices.back().m_codes.span().back() = 0x07;
  }
  const Counted before = LaunchesSoFar();
  for (int step = 0; step < 2; ++step) {
    OnDevice([&] {
      tw::Together together;
      for (Matrix& m : matrices) {
        together.Next();
        queue_->AdamWStepRank1(m.x.p.span(), m.x.g.span(), static_cast<int64_t>(m.cols),
                               {m.m_codes.span(), m.m_scales.span()}, m.v_codes.span(),
                               m.maxima.span(), m.scratch.span(), kAdamW);
      }
    });
    for (Matrix& m : matrices) {
      Rank1OnHost(m.x, m.m_codes, m.m_scales, m.v_codes, m.maxima, m.rows);
      EXPECT_TRUE(m.x.p.Same() && m.m_codes.Same() && m.m_scales.Same());
      EXPECT_TRUE(m.v_codes.Same() && m.maxima.Same());
    }
  }
  EXPECT_EQ(LaunchesSoFar() - before, 2 * 4);
}

// Scratch is cut among all matrices of a launch: what each makes alone it makes beside others.
TEST_F(QueueSteps, FactoredMomentsTogetherAreThoseOfEachAlone) {
  struct Matrix {
    Both<float> p, g, m_scales, means;
    Both<uint8_t> m_codes;
    int64_t cols;
  };
  const auto make = [&] {
    std::vector<Matrix> out;
    for (const auto& [rows, cols] :
         std::vector<std::pair<size_t, size_t>>{{1, 1}, {3, 129}, {0, 5}, {33, 65}, {140, 131}}) {
      const size_t n = rows * cols;
      out.push_back({Floats(n, 1), Floats(n, 2), New(std::vector<float>((n + 127) / 128)),
                     New(std::vector<float>(rows + cols)), New(std::vector<uint8_t>((n + 1) / 2)),
                     static_cast<int64_t>(cols)});
    }
    return out;
  };
  const auto step = [&](Matrix& x) {
    queue_->AdamWStepFactor(x.p.span(), x.g.span(), x.cols, {x.m_codes.span(), x.m_scales.span()},
                            x.means.span(), kAdamW);
  };
  std::vector<Matrix> together = make(), alone = make();
  const Counted before = LaunchesSoFar();
  for (int update = 0; update < 2; ++update) {
    OnDevice([&] {
      tw::Together rows;
      for (Matrix& x : together) {
        rows.Next();
        step(x);
      }
    });
  }
  EXPECT_EQ(LaunchesSoFar() - before, 2 * 5);
  for (int update = 0; update < 2; ++update) {
    for (Matrix& x : alone) OnDevice([&] { step(x); });
  }
  for (size_t i = 0; i < alone.size(); ++i) {
    EXPECT_TRUE(SameBits(alone[i].p.device(), together[i].p.device())) << i;
    EXPECT_TRUE(SameBits(alone[i].means.device(), together[i].means.device())) << i;
    EXPECT_TRUE(SameBits(alone[i].m_codes.device(), together[i].m_codes.device())) << i;
    EXPECT_TRUE(SameBits(alone[i].m_scales.device(), together[i].m_scales.device())) << i;
  }
  EXPECT_FALSE(SameBits(alone[4].p.host(), alone[4].p.device()));
}

TEST_F(QueueSteps, SumsInNumbersOfTwoBytesAreRoundedOnce) {
  const std::vector<float> from = RandomFloats(1000, 1), to = RandomFloats(1000, 2);
  std::vector<uint16_t> narrow, want_bf16, want_half;
  for (size_t i = 0; i < to.size(); ++i) {
    narrow.push_back(kernels::FloatToHalfSaturated(to[i]));
    const float sum = kernels::HalfToFloat(narrow[i]) + 0.3f * from[i];
    want_half.push_back(kernels::FloatToHalfSaturated(sum));
    want_bf16.push_back(kernels::FloatToBf16(kernels::Bf16ToFloat(narrow[i]) +
                                             0.3f * kernels::HalfToFloat(narrow[i])));
  }
  DeviceBuffer<float> added(device_, from);
  DeviceBuffer<uint16_t> half(device_, narrow), bf16(device_, narrow), same(device_, narrow);
  const auto view = [](auto& x, DType dtype) {
    return TensorView{x.data(), dtype, static_cast<int64_t>(x.size())};
  };
  OnDevice([&] {
    queue_->AddToNarrow(view(half, DType::kF16), 0.3f, view(added, DType::kF32));
    queue_->AddToNarrow(view(bf16, DType::kBF16), 0.3f, view(same, DType::kF16));
  });
  EXPECT_TRUE(SameBits(want_half, half.Values()));
  EXPECT_TRUE(SameBits(want_bf16, bf16.Values()));
}

// As if the host had read the norm and scaled the coefficients.
TEST_F(QueueSteps, AreClippedByANormThatNobodyReads) {
  std::vector<Parameter> x = Parameters();
  DeviceBuffer<double> norm(device_, {-1.0, -1.0});
  std::vector<double> sums(x.size());
  OnDevice([&] {
    std::vector<TensorView> views;
    for (Parameter& p : x) views.push_back(p.g.view(DType::kF32));
    queue_->SumsOfSquares(views, sums);
    queue_->Norm(views, norm.data());
    queue_->Norm({}, norm.data() + 1);
  });
  const double want = std::sqrt(std::accumulate(sums.begin(), sums.end(), 0.0));
  EXPECT_GT(want, 1);
  EXPECT_EQ(norm.Values(), (std::vector<double>{want, 0}));

  for (const double limit : {0.5 * want, want, 2 * want}) {
    const float scale = limit < want ? static_cast<float>(limit / want) : 1.0f;
    for (Parameter& p : x) {
      kernels::AdamWCoefficients<float> c = kAdamW;
      kernels::SgdmCoefficients<float> s = kSgdm;
      const auto steps = [&] {
        kernels::AdamWStep(p.p.span(), p.g.span(), p.m.span(), p.v.span(), c);
        kernels::SgdmStep(p.p.span(), p.g.span(), p.m.span(), s);
      };
      OnDevice([&] {
        queue_->ClipSteps(limit, norm.data());
        steps();
        queue_->ClipSteps(0, nullptr);
      });
      c.grad_scale *= scale, s.grad_scale *= scale;
      steps();
    }
    ExpectSame(x);
  }
  OnDevice([&] {  // no longer clipped
    kernels::SgdStep(x[3].p.span(), x[3].g.span(), kSgdm);
  });
  kernels::SgdStep(x[3].p.span(), x[3].g.span(), kSgdm);
  ExpectSame(x);

  DeviceBuffer<double> bad(device_, {std::nan("")});  // clips nothing, as on the host
  OnDevice([&] {
    queue_->ClipSteps(1, bad.data());
    kernels::SgdStep(x[3].p.span(), x[3].g.span(), kSgdm);
    queue_->ClipSteps(0, nullptr);
  });
  kernels::SgdStep(x[3].p.span(), x[3].g.span(), kSgdm);
  ExpectSame(x);
}

TEST_F(QueueSteps, NormalNumbersAndInt8RowsAreTheHosts) {
  Both<float> normal = Floats(3 * 100, 1), x = Floats(9 * 300, 2), back = Floats(9 * 300, 3);
  Both<int8_t> codes = New(std::vector<int8_t>(x.size()));
  Both<float> scales = New(std::vector<float>(9 * 3));
  OnBoth([&] {
    kernels::FillNormal(5, 7, 3, 0.5f, normal.data(), 100);
    kernels::QuantizeInt8(x.data(), 9, 300, codes.data(), scales.data());
    kernels::DequantizeInt8(codes.data(), scales.data(), 9, 300, back.data());
  });
  EXPECT_TRUE(normal.Same() && codes.Same() && scales.Same() && back.Same());
}

TEST_F(QueueSteps, ProjectionsAreExpandedAsOnTheHost) {
  const int64_t rows = 5, cols = 100, rank = 3, strips = 2;
  Both<float> value = Floats(rows * cols, 1), update = Floats(rows * rank, 2);
  Both<float> projection = Floats(strips * rank * kernels::kStripCols, 3);
  OnDevice([&] {
    queue_->Expand(value.data(), rows, cols, update.data(), rank, projection.data(), 0.9f, 0.5f);
  });
  for (int64_t strip = 0; strip < strips; ++strip) {
    const int64_t from = strip * kernels::kStripCols;
    kernels::ExpandStrip(value.data() + from,
                         {rows, rank, std::min(kernels::kStripCols, cols - from), cols},
                         update.data(), projection.data() + from * rank, 0.9f, 0.5f);
  }
  EXPECT_TRUE(value.Same());
}

TEST_F(QueueSteps, LossesAreTheHostsToRoundingWholeOrInPieces) {
  const int64_t rows = 4, cols = 700;
  const std::vector<int64_t> labels = {3, -1, 699, 350};
  DeviceBuffer<int64_t> device_labels(device_, labels);
  Both<float> whole = Floats(rows * cols, 1), pieces = Floats(rows * cols, 1);
  DeviceBuffer<double> losses(device_, std::vector<double>(rows)), lse(device_, losses.Values()),
      label_scores(device_, losses.Values()), losses_of_pieces(device_, losses.Values());
  DeviceBuffer<kernels::LogSumExp> sums(device_, std::vector<kernels::LogSumExp>(rows));
  OnDevice([&] {
    queue_->CrossEntropyRows(whole.data(), device_labels.data(), rows, cols, cols, 0.25f,
                             losses.data());
    queue_->BeginScores(rows, sums.data(), label_scores.data());
    for (const int64_t from : {0, 500}) {
      queue_->AddScores(pieces.data() + from, device_labels.data(), rows, from ? 200 : 500, cols,
                        from, sums.data(), label_scores.data());
    }
    queue_->FinishScores(device_labels.data(), rows, sums.data(), label_scores.data(), lse.data(),
                         losses_of_pieces.data());
    for (const int64_t from : {0, 500}) {
      queue_->SoftmaxGradientRows(pieces.data() + from, device_labels.data(), rows,
                                  from ? 200 : 500, cols, from, lse.data(), 0.25f);
    }
  });
  for (int64_t r = 0; r < rows; ++r) {
    const auto at = static_cast<size_t>(r);
    const auto row = whole.span().subspan(at * cols, cols);
    double loss = 0;
    if (labels[at] < 0) {
      std::fill(row.begin(), row.end(), 0.0f);
    } else {
      loss = kernels::CrossEntropyInPlace(row, labels[at], 0.25f);
    }
    EXPECT_NEAR(losses.Values()[at], loss, 1e-5);
    EXPECT_NEAR(losses_of_pieces.Values()[at], loss, 1e-5);
  }
  const std::vector<float> gradient = whole.device(), gradient_of_pieces = pieces.device();
  for (size_t i = 0; i < gradient.size(); ++i) {
    EXPECT_NEAR(gradient[i], whole.host()[i], 1e-6);
    EXPECT_NEAR(gradient_of_pieces[i], whole.host()[i], 1e-6);
  }
}

}  // namespace
}  // namespace tw
