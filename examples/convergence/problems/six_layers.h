#pragma once
// The network that experiments on compressed training share: five hidden layers of 64 ReLUs and a
// head, 4 ranks with 16 samples each, sgd with momentum 0.9.
//   pictures: 784 pixels, 10 classes. It learns them by heart: training losses go to zero.
//   rows: 32 numbers, 2 classes, one label in ten turned at random. Losses have a floor, so that a
//   ratio of two of them says something.

#include <cstdint>
#include <string>
#include <vector>

namespace tw {

enum class SixLayersData { kPictures, kRows };

inline constexpr int kSixLayersRanks = 4;
// Steps in which the 3687 training samples (of either kind) are seen once.
inline constexpr int64_t kSixLayersEpoch = 58;

// Settings for lab.Train but for the learning rate; `own` come last.
std::vector<std::string> SixLayers(SixLayersData data, int64_t steps,
                                   const std::vector<std::string>& own);

}  // namespace tw
