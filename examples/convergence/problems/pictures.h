#pragma once
// The pictures of experiments on networks, and who learns from which.

#include <functional>
#include <string>
#include <vector>

#include "core/base/status.h"
#include "core/data/labeled_data.h"

namespace tw {

struct Pictures {
  ImageData images;       // those for training, then those for tests: positions name both
  int64_t num_train = 0;  // of images
  std::string name;       // for claims: "Fashion-MNIST", the folder given, or "synthetic pictures"
};

// Of the folder `given` (MNIST's four IDX files); empty: Debian's dataset-fashion-mnist, or
// synthetic ones where that is not installed. DataError: a folder without test pictures.
StatusOr<Pictures> ReadPictures(const std::string& given);

// Positions of pictures.
using PictureClients = std::vector<std::vector<int64_t>>;
struct PictureSplit {
  PictureClients clients;
  std::vector<int64_t> evaluated;  // in no order of classes
};
// Divides positions 0 .. labels.size() - 1 among clients.
using PictureDeal = std::function<StatusOr<PictureClients>(std::span<const int32_t> labels)>;

// For reported runs: clients have the pictures for training, evaluated are those for tests.
StatusOr<PictureSplit> SplitForTest(const Pictures& pictures, const PictureDeal& deal);
// For tuning: the same with a tenth of those for training held out, which is evaluated.
StatusOr<PictureSplit> SplitForTuning(const Pictures& pictures, uint64_t seed,
                                      const PictureDeal& deal);

// McMahan et al.'s split: sorted by label, cut into two pieces a client, dealt out at random. Most
// clients see two classes. DataError: fewer samples than pieces.
StatusOr<PictureClients> TwoClassClients(std::span<const int32_t> labels, int num_clients,
                                         uint64_t seed);

}  // namespace tw
