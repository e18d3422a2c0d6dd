#include "core/data/idx.h"

#include <algorithm>
#include <cstdio>

#include "core/base/bytes.h"
#include "core/data/file.h"

namespace tw {
namespace {

constexpr uint32_t kImageMagic = 0x00000803;
constexpr uint32_t kLabelMagic = 0x00000801;

uint32_t BigEndian32(const std::string& bytes, size_t at) {
  uint32_t value = 0;
  for (size_t i = 0; i < 4; ++i) value = value << 8 | static_cast<uint8_t>(bytes[at + i]);
  return value;
}

// Checks magic number and length; returns the sizes that follow the magic number.
StatusOr<std::vector<int64_t>> ReadHeader(const std::string& path, const std::string& bytes,
                                          uint32_t magic, size_t dims, const char* what) {
  const size_t header = 4 + 4 * dims;
  if (bytes.size() < 4 || BigEndian32(bytes, 0) != magic) {
    const std::string found = bytes.size() < 4 ? std::to_string(bytes.size()) + " bytes" : [&] {
      char text[16];
      std::snprintf(text, sizeof(text), "0x%08x", BigEndian32(bytes, 0));
      return std::string(text);
    }();
    char wanted[16];
    std::snprintf(wanted, sizeof(wanted), "0x%08x", magic);
    return DataError(path + ": starts with " + found + ", an IDX file of " + what + " with " +
                     wanted);
  }
  if (bytes.size() < header) return DataError(path + ": the IDX header is cut off");
  std::vector<int64_t> sizes;
  const size_t held = bytes.size() - header;
  size_t need = 1;
  bool fits = true;
  for (size_t d = 0; d < dims; ++d) {
    const size_t size = BigEndian32(bytes, 4 + 4 * d);
    sizes.push_back(static_cast<int64_t>(size));
    if (size == 0) return DataError(path + ": an IDX header with a size of 0");
    fits = fits && need <= held / size;  // before the product, which might overflow
    if (fits) need *= size;
  }
  if (!fits || need != held) {
    std::string shape;
    for (size_t d = 0; d < dims; ++d) {
      shape += (d ? " x " : "") + std::to_string(BigEndian32(bytes, 4 + 4 * d));
    }
    return DataError(path + ": the header says " + shape + " bytes, the file holds " +
                     std::to_string(held) + " behind it");
  }
  return sizes;
}

std::string Find(const std::string& stem) {
  if (FileExists(stem)) return stem;
  return FileExists(stem + ".gz") ? stem + ".gz" : "";
}

StatusOr<ImageData> ReadPair(const std::string& images_path, const std::string& labels_path) {
  ImageData data;
  TW_ASSIGN_OR_RETURN(const std::string images, ReadDataFile(images_path));
  TW_ASSIGN_OR_RETURN(const auto sizes, ReadHeader(images_path, images, kImageMagic, 3, "images"));
  TW_ASSIGN_OR_RETURN(const std::string labels, ReadDataFile(labels_path));
  TW_ASSIGN_OR_RETURN(const auto count, ReadHeader(labels_path, labels, kLabelMagic, 1, "labels"));
  if (sizes[0] != count[0]) {
    return DataError(images_path + ": " + std::to_string(sizes[0]) + " images, but " + labels_path +
                     " has " + std::to_string(count[0]) + " labels");
  }
  data.height = sizes[1];
  data.width = sizes[2];
  data.pixels.assign(images.begin() + 16, images.end());
  data.labels.reserve(static_cast<size_t>(count[0]));
  for (size_t i = 8; i < labels.size(); ++i) data.labels.push_back(static_cast<uint8_t>(labels[i]));
  data.classes = *std::max_element(data.labels.begin(), data.labels.end()) + 1;
  return data;
}

}  // namespace

StatusOr<IdxFolder> ReadIdxFolder(const std::string& folder) {
  if (!IsFolder(folder)) {
    return DataError(folder + ": " + (FileExists(folder) ? "is a file" : "no such folder") +
                     "; a folder with MNIST's four IDX files is needed");
  }
  const auto path = [&](const char* name) { return Find(folder + "/" + name); };
  const std::string train_images = path("train-images-idx3-ubyte"),
                    train_labels = path("train-labels-idx1-ubyte");
  const std::string test_images = path("t10k-images-idx3-ubyte"),
                    test_labels = path("t10k-labels-idx1-ubyte");
  if (test_images.empty() != test_labels.empty()) {
    return DataError(folder +
                     ": of t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte only one is there");
  }
  IdxFolder out;
  if (!test_images.empty()) {
    TW_ASSIGN_OR_RETURN(out.test, ReadPair(test_images, test_labels));
  }
  if (train_images.empty() || train_labels.empty()) {
    return DataError(
        folder + "/" +
        (train_images.empty() ? "train-images-idx3-ubyte" : "train-labels-idx1-ubyte") +
        "[.gz]: no such file");
  }
  TW_ASSIGN_OR_RETURN(out.train, ReadPair(train_images, train_labels));
  if (out.test) {
    if (out.test->height != out.train.height || out.test->width != out.train.width) {
      return DataError(folder + ": training images are " + std::to_string(out.train.height) +
                       " x " + std::to_string(out.train.width) + ", test images " +
                       std::to_string(out.test->height) + " x " + std::to_string(out.test->width));
    }
    out.train.classes = out.test->classes = std::max(out.train.classes, out.test->classes);
  }
  return out;
}

}  // namespace tw
