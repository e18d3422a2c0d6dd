#include "examples/convergence/problems/pictures.h"

#include <gtest/gtest.h>

#include <set>

#include "core/data/synthetic_samples.h"

namespace tw {
namespace {

TEST(Pictures, TuningHoldsATenthOfTheTrainingPicturesOut) {
  const Pictures pictures{.images = SyntheticImages(2, 90), .num_train = 80, .name = "some"};
  const auto deal = [&](std::span<const int32_t> labels) { return TwoClassClients(labels, 5, 3); };
  const auto of = [](const PictureSplit& split) {
    std::multiset<int64_t> out;
    for (const auto& client : split.clients) out.insert(client.begin(), client.end());
    return out;
  };
  std::multiset<int64_t> train, test;
  for (int64_t i = 0; i < 90; ++i) (i < 80 ? train : test).insert(i);

  const auto reported = SplitForTest(pictures, deal);
  ASSERT_TRUE(reported.ok());
  EXPECT_EQ(of(*reported), train);
  EXPECT_EQ(std::multiset<int64_t>(reported->evaluated.begin(), reported->evaluated.end()), test);

  const auto tuned = SplitForTuning(pictures, 7, deal);
  ASSERT_TRUE(tuned.ok());
  EXPECT_EQ(tuned->evaluated.size(), 8u);
  std::multiset<int64_t> all = of(*tuned);
  all.insert(tuned->evaluated.begin(), tuned->evaluated.end());
  EXPECT_EQ(all, train);
  for (const auto& client : tuned->clients) {  // dealt by the labels of these very pictures
    std::set<int32_t> classes;
    for (const int64_t i : client) classes.insert(pictures.images.labels[static_cast<size_t>(i)]);
    EXPECT_LE(classes.size(), 4u);
  }
}

TEST(TwoClassClients, EverySampleHasOneClientAndClientsFewClasses) {
  std::vector<int32_t> labels;
  for (int i = 0; i < 1000; ++i) labels.push_back(i * 7 % 10);
  const auto clients = TwoClassClients(labels, 20, 5);
  ASSERT_TRUE(clients.ok());
  std::vector<int> owners(labels.size());
  for (const auto& client : *clients) {
    std::set<int32_t> classes;
    for (const int64_t i : client) {
      ++owners[static_cast<size_t>(i)];
      classes.insert(labels[static_cast<size_t>(i)]);
    }
    EXPECT_EQ(client.size(), 50u);
    EXPECT_LE(classes.size(), 2u);
  }
  for (const int count : owners) EXPECT_EQ(count, 1);
  EXPECT_NE(*clients, *TwoClassClients(labels, 20, 6));
  EXPECT_EQ(ExitCode(TwoClassClients(labels, 501, 5).status()), 3);
}

}  // namespace
}  // namespace tw
