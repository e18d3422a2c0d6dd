// Kernels of compressors through their public functions, on a device and on the host.
#include "core/base/bytes.h"
#include "core/kernels/elementwise.h"
#include "core/kernels/feedback.h"
#include "core/kernels/index_pack.h"
#include "core/kernels/lowrank.h"
#include "core/kernels/natural.h"
#include "core/kernels/quantize.h"
#include "core/kernels/shared_scale.h"
#include "core/kernels/signs.h"
#include "core/kernels/subset.h"
#include "core/kernels/topk.h"
#include "core/kernels/value_grid.h"
#include "tests/cuda/queue_fixture.h"

namespace tw {
namespace {

using kernels::IndexedValue;

// A message with and without a pending addition, and a body at an odd address.
struct Message {
  Both<float> x, addend, sum;
  Both<uint8_t> body;
  MessageView view() { return {x.span(), x.size() % 2 ? addend.data() : nullptr, 0.5f}; }
};

class QueueCodecs : public QueueTest {
 protected:
  // `awkward`: also numbers whose sums overflow.
  template <class BodyBytes>
  std::vector<Message> Messages(bool awkward, BodyBytes body_bytes, size_t most = 10000) {
    std::vector<Message> out;
    for (const size_t n : QueueSizes()) {
      if (n > most) continue;
      out.push_back({New(awkward ? AwkwardFloats(n, n) : RandomFloats(n, n)), Floats(n, n + 1),
                     Floats(n, n + 2), Bytes(static_cast<size_t>(body_bytes(n)), n % 3)});
    }
    return out;
  }
  static void ExpectSame(const std::vector<Message>& messages) {
    for (const Message& m : messages) {
      EXPECT_TRUE(m.body.Same()) << m.x.size();
      EXPECT_TRUE(m.x.Same()) << m.x.size();
      EXPECT_TRUE(m.sum.Same()) << m.x.size();
    }
  }
};

TEST_F(QueueCodecs, ElementwiseLoopsHaveTheHostsBits) {
  std::vector<Message> messages = Messages(true, [](size_t n) { return 4 * n; });
  EXPECT_EQ(Together(messages,
                     [](Message& m) {
                       const MessageView v = m.view();
                       kernels::MoveOut(v.buffer, v.addend, v.scale, m.body.data());
                       kernels::AddFromBytes(m.sum.span(), 0.25f, m.body.data());
                       kernels::AddInPlace(m.x.span(), 0.5f, m.addend.span());
                       kernels::Scale(m.x.span(), 3.0f);
                       kernels::TakeLarger(m.x.span(), m.sum.span());
                       kernels::ZeroWhere(m.sum.span(), m.addend.span());
                     }),
            6);
  ExpectSame(messages);
}

TEST_F(QueueCodecs, NumbersOfTwoBytesHaveTheHostsBits) {
  struct Row {
    Both<float> x, addend, wide;
    Both<uint16_t> bf16, half;
  };
  std::vector<Row> rows;
  for (const size_t n : QueueSizes()) {
    rows.push_back({New(AwkwardFloats(n, n)), Floats(n, n + 1), Floats(n, n + 2),
                    New(std::vector<uint16_t>(n)), New(std::vector<uint16_t>(n))});
  }
  const auto same = [&] {
    for (const Row& r : rows) {
      EXPECT_TRUE(r.x.Same() && r.wide.Same() && r.bf16.Same() && r.half.Same());
    }
  };
  EXPECT_EQ(Together(rows,
                     [](Row& r) {
                       kernels::ConvertToBf16(r.x.span(), r.bf16.span());
                       kernels::ConvertToHalf(r.x.span(), r.half.span());
                       kernels::ConvertFromBf16(r.bf16.span(), r.wide.span());
                       kernels::AddFromHalf(r.wide.span(), 0.5f, r.half.span());
                       kernels::AddFromBf16(r.x.span(), 0.5f, r.bf16.span());
                       kernels::ConvertFromHalf(r.half.span(), r.wide.span());
                     }),
            6);
  same();
  EXPECT_EQ(Together(rows,
                     [](Row& r) {
                       kernels::CastResidualBf16(r.wide.span(), r.addend.data(), 0.5f, 0.3f, 3.0f,
                                                 r.bf16.span());
                       kernels::CastResidualHalf(r.x.span(), nullptr, 1.0f, 1.0f, 1.0f,
                                                 r.half.span());
                     }),
            2);
  same();
}

TEST_F(QueueCodecs, BytesAreAdded) {
  struct Row {
    Both<uint8_t> a, b;
  };
  std::vector<Row> rows;
  for (const size_t n : QueueSizes()) {
    std::vector<uint8_t> values(n);
    for (size_t i = 0; i < n; ++i) values[i] = static_cast<uint8_t>(i * 31);
    rows.push_back({New(values, 1), New(values, 2)});
  }
  EXPECT_EQ(Together(rows, [](Row& r) { kernels::AddBytes(r.a.span(), r.b.span()); }), 1);
  for (const Row& r : rows) EXPECT_TRUE(r.a.Same());
}

TEST_F(QueueCodecs, ErrorFeedbackHasTheHostsBits) {
  struct Row {
    Both<float> estimate, mean, g, h, e, r, v;
  };
  std::vector<Row> rows;
  for (const size_t n : QueueSizes()) {
    rows.push_back({Floats(n, 1), Floats(n, 2), Floats(n, 3), Floats(n, 4), Floats(n, 5),
                    Floats(n, 6), Floats(n, 7)});
  }
  EXPECT_EQ(Together(rows,
                     [](Row& x) {
                       kernels::Advance(x.estimate.span(), x.mean.span());
                       kernels::DampedAdvance(x.estimate.span(), x.mean.span(), 0.7f);
                       kernels::ErrorMessage(x.g.span(), x.h.span(), x.e.span(), 0.9f);
                       kernels::ErrorMemory(x.e.span(), x.r.span(), 0.8f);
                       kernels::MomentumMessage(x.v.span(), x.g.span(), x.h.span(), 0.9f, 0.1f);
                       kernels::MomentumErrorMessage(x.v.span(), x.g.span(), x.h.span(), x.e.span(),
                                                     0.9f, 0.1f, 0.5f);
                     }),
            6);
  for (const Row& x : rows) {
    EXPECT_TRUE(x.estimate.Same() && x.mean.Same() && x.g.Same() && x.e.Same() && x.v.Same());
  }
}

TEST_F(QueueCodecs, QuantizedBodiesAreTheHosts) {
  const auto check = [&](const kernels::QuantizeSpec& spec, int64_t launches) {
    std::vector<Message> messages =
        Messages(false, [&](size_t n) { return spec.BodyBytes(static_cast<int64_t>(n)); });
    EXPECT_EQ(Together(messages,
                       [&](Message& m) {
                         kernels::Quantize(m.view(), spec, {7, m.x.size()}, m.body.data());
                         kernels::DequantizeAdd(m.body.data(), spec, 0.25f, m.sum.span());
                         EXPECT_TRUE(kernels::CheckQuantized(m.body.span(),
                                                             static_cast<int64_t>(m.x.size()), spec)
                                         .ok());
                       }),
              launches);
    ExpectSame(messages);
  };
  kernels::QuantizeSpec spec;
  spec.block = 128;
  check(spec, 2);
  spec.stochastic = true, spec.bits = 8, spec.levels = 127;
  check(spec, 2);
  spec.block = 0;  // of a whole message: three launches
  check(spec, 4);
  spec.bits = 2, spec.levels = 1, spec.packing = kernels::Packing::kTrits;
  check(spec, 4);
}

TEST_F(QueueCodecs, TensorsOfDifferentSpecsAreLaunchesOfTheirOwn) {
  std::vector<Message> messages = Messages(false, [](size_t n) { return 2 * n + 8; });
  EXPECT_EQ(Together(messages,
                     [](Message& m) {
                       kernels::QuantizeSpec spec;
                       spec.block = m.x.size() > 1000 ? 64 : 128;
                       kernels::Quantize(m.view(), spec, {}, m.body.data());
                     }),
            2);
  ExpectSame(messages);
}

TEST_F(QueueCodecs, NaturalBodiesAreTheHosts) {
  std::vector<Message> messages =
      Messages(true, [](size_t n) { return kernels::NaturalBytes(static_cast<int64_t>(n)); });
  EXPECT_EQ(
      Together(messages,
               [](Message& m) {
                 kernels::NaturalEncode(m.view(), 11, 1000, m.body.data());
                 kernels::NaturalDecodeAdd(m.body.data(), 0.5f, m.sum.span());
                 EXPECT_TRUE(
                     kernels::CheckNatural(m.body.span(), static_cast<int64_t>(m.x.size())).ok());
               }),
      2);
  ExpectSame(messages);
  const DeviceScope scope(queue_.get());
  EXPECT_FALSE(kernels::CheckNatural(messages.back().body.span(), 5).ok());
}

TEST_F(QueueCodecs, SignsAndMeansAreTheHosts) {
  // Of up to a piece, where means are the host's to the bit.
  for (const auto means : {kernels::SignMeans::kOne, kernels::SignMeans::kEach}) {
    std::vector<Message> messages = Messages(
        false, [](size_t n) { return 8 + kernels::SignBytes(n); }, 1000);
    EXPECT_EQ(Together(messages,
                       [&](Message& m) {
                         if (m.x.size() == 0) return;
                         kernels::EncodeSigns(m.view(), means, m.body.data(), m.body.data() + 8);
                         kernels::DecodeSignsAdd(m.sum.span(), 0.5f, means, m.body.data(),
                                                 m.body.data() + 8);
                       }),
              4);
    ExpectSame(messages);
  }
}

struct Sparse {
  Message m;
  Both<IndexedValue> list;
  size_t k;
  int bits() const { return kernels::IndexBits(m.x.size()); }
};

class QueueSparse : public QueueCodecs {
 protected:
  std::vector<Sparse> Lists(size_t most) {
    std::vector<Sparse> out;
    for (const size_t n : QueueSizes()) {
      if (n > most) continue;
      const size_t k = n / 5;
      out.push_back({{Floats(n, n), Floats(n, n + 1), Floats(n, n + 2), Bytes(20 * k + 64, n % 3)},
                     New(std::vector<IndexedValue>(kernels::TopKScratch(n, k))),
                     k});
    }
    return out;
  }
  static void ExpectSame(const std::vector<Sparse>& rows) {
    for (const Sparse& row : rows) {
      EXPECT_TRUE(row.m.x.Same() && row.m.sum.Same() && row.m.body.Same()) << row.m.x.size();
    }
  }
};

TEST_F(QueueSparse, TheLargestAndTheirBodiesAreTheHosts) {
  for (const size_t most : {size_t{4096}, size_t{10000}}) {  // all short; some long
    std::vector<Sparse> rows = Lists(most);
    const auto work = [](Sparse& row) {
      const auto list = kernels::TakeTopK(row.m.view(), row.k, row.list.span());
      ASSERT_EQ(list.size(), row.k);
      EXPECT_TRUE(row.k == 0 || list.data() == row.list.data());
      uint8_t* values = row.m.body.data() + kernels::PackedIndexBytes(row.k, row.bits());
      kernels::PackEntries(list, row.bits(), row.m.body.data(), values);
      kernels::AddAtIndices(row.m.sum.span(), 0.5f,
                            {row.m.body.data(), kernels::PackedIndexBytes(row.k, row.bits())},
                            row.bits(), row.k, values);
    };
    EXPECT_EQ(Together(rows, work), most == 4096 ? 3 : 11 + 2);
    ExpectSame(rows);
  }
}

TEST_F(QueueSparse, ValuesOnGridsAreTheHosts) {
  std::vector<Sparse> rows = Lists(5000);
  EXPECT_EQ(Together(rows,
                     [](Sparse& row) {
                       if (row.k == 0) return;
                       const size_t group = row.k > 64 ? 64 : row.k;
                       const size_t packed = kernels::PackedIndexBytes(row.k, row.bits());
                       const auto list = kernels::TakeTopK(row.m.view(), row.k, row.list.span());
                       kernels::PackEntriesOnGrids(list, row.m.x.span(), row.bits(),
                                                   row.m.body.data(), 5, group,
                                                   row.m.body.data() + packed);
                       kernels::AddAtIndicesFromGrids(row.m.sum.span(), 0.5f,
                                                      {row.m.body.data(), packed}, row.bits(),
                                                      row.k, 5, group, row.m.body.data() + packed);
                     }),
            11 + 2);
  ExpectSame(rows);
}

TEST_F(QueueSparse, WhatIsAboveAThresholdIsCounted) {
  for (const size_t n : QueueSizes()) {
    Both<float> x = Floats(n, n), addend = Floats(n, n + 1);
    Both<IndexedValue> room = New(std::vector<IndexedValue>(n / 4 + 64));
    for (const float threshold : {0.1f, 1.5f}) {  // of which the first does not fit
      std::vector<size_t> counts;
      OnBoth([&] {
        counts.push_back(
            kernels::TakeAbove({x.span(), addend.data(), 0.5f}, threshold, room.span()));
      });
      EXPECT_EQ(counts[0], counts[1]);
      EXPECT_TRUE(x.Same());
      if (counts[0] + kernels::kTakeSlack > room.size()) continue;
      const std::vector<IndexedValue> want(room.host().begin(),
                                           room.host().begin() + static_cast<int64_t>(counts[0]));
      std::vector<IndexedValue> got = room.device();
      got.resize(counts[0]);
      EXPECT_TRUE(SameBits(want, got));
    }
  }
}

TEST_F(QueueCodecs, SubsetsAreDrawnOnTheHostAndTakenOnTheDevice) {
  struct Row {
    Message m;
    Both<uint64_t> bitmap;
  };
  std::vector<Row> rows;
  for (const size_t n : QueueSizes()) {
    rows.push_back({{Floats(n, n), Floats(n, n + 1), Floats(n, n + 2), Bytes(4 * (n / 3), 1)},
                    New(std::vector<uint64_t>(kernels::BitmapWords(n)))});
  }
  const size_t large = 3000000;  // whose bitmap is larger than what the ring takes within rows
  rows.push_back({{Floats(1, 1), Floats(1, 1), Floats(1, 1), Bytes(0)},
                  New(std::vector<uint64_t>(kernels::BitmapWords(large)))});
  const auto work = [&](Row& row) {
    const size_t n = row.m.x.size();
    if (row.bitmap.size() > 1000)
      return kernels::MarkSubset(3, large, large / 2, row.bitmap.span());
    kernels::MarkSubset(n, n, n / 3, row.bitmap.span());
    kernels::TakeMarked(row.m.view(), row.bitmap.span(), 0.75f, row.m.body.data());
    kernels::AddMarked(row.m.sum.span(), row.bitmap.span(), 0.5f, row.m.body.data());
  };
  Together(rows, work);
  for (const Row& row : rows) {
    EXPECT_TRUE(row.bitmap.Same());
    EXPECT_TRUE(row.m.x.Same() && row.m.sum.Same() && row.m.body.Same());
  }
}

struct Matrix {
  kernels::LowRankShape shape;
  Both<float> m, addend, p, qt, out, unit;
  Both<double> scratch;
};

class QueueLowRank : public QueueTest {
 protected:
  std::vector<Matrix> Matrices() {
    std::vector<Matrix> out;
    for (const kernels::LowRankShape& shape :
         {kernels::LowRankShape{1, 1, 1}, {7, 31, 2}, {300, 17, 4}, {128, 129, 3}}) {
      const auto size = [](int64_t n) { return static_cast<size_t>(n); };
      out.push_back(
          {shape, Floats(size(shape.rows * shape.cols), 1),
           Floats(size(shape.rows * shape.cols), 2), Floats(size(shape.rows * shape.rank), 3),
           Floats(size(shape.rank * shape.cols), 4), Floats(size(shape.rows * shape.cols), 5),
           Floats(size(shape.rank * shape.cols), 6),
           New(std::vector<double>(size(shape.rows * shape.rank)))});
    }
    return out;
  }
  static void ExpectNear(const Both<float>& x) {
    const std::vector<float> got = x.device();
    for (size_t i = 0; i < got.size(); ++i) {
      EXPECT_NEAR(x.host()[i], got[i], 1e-3 * (1 + std::fabs(x.host()[i])));
    }
  }
};

TEST_F(QueueLowRank, ProductsAreNearAndWhatRanksAgreeOnIsTheSame) {
  std::vector<Matrix> matrices = Matrices();
  EXPECT_EQ(
      Together(matrices,
               [](Matrix& x) {
                 kernels::OuterAdd(x.out.data(), x.shape, x.p.data(), x.qt.data(), 0.5f);
                 kernels::OuterResidual(x.m.data(), x.shape, x.p.data(), x.qt.data());
                 kernels::Orthonormalize(x.p.span(), x.shape.rows, x.shape.rank, x.scratch.span());
                 kernels::UnitRows(x.unit.data(), x.shape.rank, x.shape.cols, 5, x.unit.data());
                 kernels::DrawUniform(x.addend.span(), 9, 100);
                 kernels::TransposeScaled(x.addend.data(), x.shape.rows, x.shape.cols, 2.0f,
                                          x.out.data());
               }),
      6);
  for (const Matrix& x : matrices) {
    EXPECT_TRUE(x.out.Same() && x.m.Same() && x.p.Same() && x.unit.Same() && x.addend.Same());
  }
  EXPECT_EQ(Together(matrices,
                     [](Matrix& x) {
                       kernels::MaterializeTimesQ({x.m.span(), x.addend.data(), 0.5f}, x.shape,
                                                  x.qt.data(), x.p.data());
                       kernels::TransposeTimesM(x.m.data(), x.shape, x.p.data(), x.qt.data());
                     }),
            3);
  for (const Matrix& x : matrices) {
    EXPECT_TRUE(x.m.Same());
    ExpectNear(x.p);
    ExpectNear(x.qt);
  }
}

TEST_F(QueueCodecs, IntegersOfASharedScaleAreTheHosts) {
  struct Row {
    Both<float> x, y, scales;
    Both<int8_t> codes;
  };
  std::vector<Row> rows;
  for (const size_t n : QueueSizes()) {
    rows.push_back({Floats(n, n), Floats(n, n + 1),
                    New(std::vector<float>(static_cast<size_t>((n + 63) / 64))),
                    New(std::vector<int8_t>(n), n % 3)});
  }
  Together(rows, [](Row& r) {
    kernels::LargestOfBlocks(r.x.span(), 64, r.scales.span());
    kernels::RoundToCodes(r.x.span(), 64, r.scales.span(), 127, 5, 77, r.codes.span());
    kernels::ValuesOfCodes(r.codes.span(), 64, r.scales.span(), 127, r.x.span());
    const auto whole = r.y.span().first(r.y.size() / 64 * 64);
    kernels::RotateBlocks(whole, 64, 9, 3);
    kernels::RotateBlocksBack(whole, 64, 8, 3);
  });
  for (const Row& r : rows) {
    EXPECT_TRUE(r.x.Same() && r.y.Same() && r.scales.Same() && r.codes.Same());
  }
}

}  // namespace
}  // namespace tw
