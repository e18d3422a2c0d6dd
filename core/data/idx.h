#pragma once
// The IDX format of MNIST (http://yann.lecun.com/exdb/mnist, "file formats"): big-endian, plain or
// gzip.
//   images  00 00 08 03  count:u32  rows:u32  columns:u32  then count * rows * columns bytes
//   labels  00 00 08 01  count:u32  then count bytes
// Thread safe: no state.

#include <optional>
#include <string>

#include "core/base/status.h"
#include "core/data/labeled_data.h"

namespace tw {

struct IdxFolder {
  ImageData train;
  std::optional<ImageData> test;  // the t10k files, when the folder has them
};

// Reads train-images-idx3-ubyte, train-labels-idx1-ubyte and, when there, t10k-..., each with or
// without ".gz". DataError (one line, naming the file): a file missing, wrong magic number, sizes
// that the file does not hold, a count of images unlike that of labels, images of two sizes.
//
StatusOr<IdxFolder> ReadIdxFolder(const std::string& folder);

}  // namespace tw
