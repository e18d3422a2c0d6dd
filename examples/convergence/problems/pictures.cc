#include "examples/convergence/problems/pictures.h"

#include "core/data/file.h"
#include "core/data/idx.h"
#include "core/data/synthetic_samples.h"

namespace tw {
namespace {

constexpr char kFolder[] = "/usr/share/datasets/fashion-mnist";

}  // namespace

StatusOr<Pictures> ReadPictures(const std::string& given) {
  Pictures pictures;
  pictures.name = given.empty() ? "Fashion-MNIST" : given;
  if (given.empty() && !IsFolder(kFolder)) {
    pictures.name = "synthetic pictures";
    pictures.train = SyntheticImages(1, 12000);
    pictures.test = SyntheticImages(1, 14000);  // the first 12000 are the same
    const size_t skip = 12000 * static_cast<size_t>(pictures.test.numel());
    pictures.test.pixels.erase(pictures.test.pixels.begin(),
                               pictures.test.pixels.begin() + static_cast<ptrdiff_t>(skip));
    pictures.test.labels.erase(pictures.test.labels.begin(), pictures.test.labels.begin() + 12000);
    return pictures;
  }
  TW_ASSIGN_OR_RETURN(IdxFolder folder, ReadIdxFolder(given.empty() ? kFolder : given));
  if (!folder.test) return DataError(pictures.name + " has no test pictures");
  pictures.train = std::move(folder.train);
  pictures.test = std::move(*folder.test);
  return pictures;
}

}  // namespace tw
