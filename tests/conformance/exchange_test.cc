// Every registered compressor through each of its merges on 1 to 4 ranks: the ranks end with the
// same bits, and with the mean of what each rank's own body decodes to.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "tests/comm/exchange_runner.h"
#include "tests/comm/thread_group.h"

namespace tw {
namespace {

struct Case {
  std::string compressor;
  Merge merge;
  int ranks;
};

std::unique_ptr<Compressor> MakeDefault(const std::string& name) {
  auto made = Registry<Compressor>::Get().Find(name)->make(ConfigSection{.name = "compressor"});
  TW_CHECK_OK(made);
  return std::move(*made);
}

std::vector<Case> AllCases() {
  std::vector<Case> cases;
  for (const std::string& name : Registry<Compressor>::Get().names()) {
    const auto codec = MakeDefault(name);
    for (const Merge merge : codec->traits().merges) {
      for (int n = 1; FindExchange(merge) && n <= 4; ++n) cases.push_back({name, merge, n});
    }
  }
  return cases;
}

std::vector<TensorSpec> SpecsFor(const Compressor& codec) {
  std::vector<std::vector<int64_t>> shapes = {{33, 17}, {8, 300}};
  if (!codec.traits().matrix_only) {
    for (const int64_t numel : {1, 0, 3, 129, 1000, 2}) shapes.push_back({numel});
  }
  std::vector<TensorSpec> specs;
  for (auto& shape : shapes) specs.push_back(TestSpec(static_cast<uint32_t>(specs.size()), shape));
  return specs;
}

// How far a sum of bodies may be from the exact one, as a part of the sum of its terms' sizes.
double Rounding(const Compressor& codec, Merge merge, int ranks) {
  if (merge == Merge::kSum && codec.traits().sum_dtype == DType::kF16) return 0x1p-10;
  if (merge == Merge::kSum && codec.traits().sum_dtype == DType::kBF16) return 0x1p-7;
  return ranks * 0x1p-22;
}

double Norm2(const std::vector<double>& x) {
  double sum = 0;
  for (const double v : x) sum += v * v;
  return sum;
}

class ExchangeConformance : public ::testing::TestWithParam<Case> {
 protected:
  ExchangeConformance()
      : codec_(MakeDefault(GetParam().compressor)),
        specs_(SpecsFor(*codec_)),
        means_(static_cast<size_t>(GetParam().ranks)) {
    RunRanks(GetParam().ranks, [&](Communicator& comm) {
      ExchangeRunner runner(comm);
      auto means = runner.Run(specs_, *codec_, GetParam().merge);
      EXPECT_TRUE(means.ok()) << means.status();
      if (means.ok()) means_[static_cast<size_t>(comm.rank())] = std::move(*means);
    });
  }

  // Squared error that a codec may make on a vector of that squared norm, with slack for chance.
  double AllowedError(const TensorSpec& spec, double norm2) const {
    const double delta = codec_->Delta(spec), omega = codec_->Omega(spec);
    if (delta > 0) return (1 - delta) * norm2 * 1.001 + 1e-12;
    return (std::isfinite(omega) ? 4 * omega + 1e-6 : 1.0) * norm2 + 1e-12;
  }

  const std::unique_ptr<Compressor> codec_;
  const std::vector<TensorSpec> specs_;
  std::vector<std::vector<std::vector<float>>> means_;  // by rank, parameter, element
};

TEST_P(ExchangeConformance, AllRanksHoldTheSameBits) {
  for (const auto& means : means_) {
    ASSERT_EQ(means.size(), specs_.size());
    EXPECT_EQ(means, means_[0]);
  }
}

TEST_P(ExchangeConformance, MeanIsThatOfTheDecodedBodies) {
  const auto [name, merge, ranks] = GetParam();
  ASSERT_EQ(means_[0].size(), specs_.size());
  auto group = MakeThreadGroup(ranks, 1.0);
  ExchangeRunner runner(*group[0]);
  const bool several_rounds = codec_->traits().rounds > 1;
  for (size_t s = 0; s < specs_.size(); ++s) {
    const size_t numel = static_cast<size_t>(specs_[s].numel());
    std::vector<double> mean(numel, 0.0), size(numel, 0.0), error(numel);
    for (int r = 0; r < ranks; ++r) {
      // A body of several rounds only means something summed: there, against the messages.
      const auto decoded = several_rounds ? StatusOr<std::vector<float>>(TestMessage(r, specs_[s]))
                                          : runner.OwnDecoded(specs_[s], *codec_, r);
      ASSERT_TRUE(decoded.ok()) << decoded.status();
      for (size_t i = 0; i < numel; ++i) {
        mean[i] += static_cast<double>((*decoded)[i]) / ranks;
        size[i] += std::abs(static_cast<double>((*decoded)[i])) / ranks;
      }
    }
    for (size_t i = 0; i < numel; ++i) error[i] = means_[0][s][i] - mean[i];
    if (several_rounds || (merge == Merge::kReencode && ranks > 1)) {
      EXPECT_LE(Norm2(error), AllowedError(specs_[s], Norm2(mean))) << specs_[s].name;
      continue;
    }
    const double rounding = Rounding(*codec_, merge, ranks);
    // Elements of a product are sums whose terms may cancel.
    if (codec_->traits().matrix_only && numel > 0) {
      std::fill(size.begin(), size.end(), *std::max_element(size.begin(), size.end()));
    }
    for (size_t i = 0; i < numel; ++i) {
      ASSERT_LE(std::abs(error[i]), rounding * size[i] + 1e-7)
          << specs_[s].name << " at " << i << " of " << numel;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, ExchangeConformance, ::testing::ValuesIn(AllCases()),
                         [](const ::testing::TestParamInfo<Case>& info) {
                           return info.param.compressor + "_" + MergeName(info.param.merge) + "_" +
                                  std::to_string(info.param.ranks);
                         });

}  // namespace
}  // namespace tw
