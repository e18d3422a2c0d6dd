#pragma once
// The pictures of experiments on networks.

#include <string>

#include "core/base/status.h"
#include "core/data/labeled_data.h"

namespace tw {

struct Pictures {
  ImageData train, test;
  std::string name;  // for claims: "Fashion-MNIST", the folder given, or "synthetic pictures"
};

// Of the folder `given` (MNIST's four IDX files); empty: Debian's dataset-fashion-mnist, or
// synthetic ones where that is not installed. DataError: a folder without test pictures.
StatusOr<Pictures> ReadPictures(const std::string& given);

}  // namespace tw
