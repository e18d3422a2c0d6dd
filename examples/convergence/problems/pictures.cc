#include "examples/convergence/problems/pictures.h"

#include <numeric>

#include "core/data/file.h"
#include "core/data/idx.h"
#include "core/data/split.h"
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
    pictures.images = SyntheticImages(1, 14000);
    pictures.num_train = 12000;
    return pictures;
  }
  TW_ASSIGN_OR_RETURN(IdxFolder folder, ReadIdxFolder(given.empty() ? kFolder : given));
  if (!folder.test) return DataError(pictures.name + " has no test pictures");
  pictures.num_train = folder.train.size();
  pictures.images = std::move(folder.train);
  pictures.images.Append(*folder.test);
  return pictures;
}

StatusOr<PictureSplit> SplitForTest(const Pictures& pictures, const PictureDeal& deal) {
  PictureSplit split;
  const std::span<const int32_t> labels = pictures.images.labels;
  TW_ASSIGN_OR_RETURN(split.clients, deal(labels.first(static_cast<size_t>(pictures.num_train))));
  split.evaluated.resize(static_cast<size_t>(pictures.images.size() - pictures.num_train));
  std::iota(split.evaluated.begin(), split.evaluated.end(), pictures.num_train);
  return split;
}

StatusOr<PictureSplit> SplitForTuning(const Pictures& pictures, uint64_t seed,
                                      const PictureDeal& deal) {
  TW_ASSIGN_OR_RETURN(Split held_out, SplitSamples(seed, pictures.num_train, 0.1));
  std::vector<int32_t> labels;
  for (const int64_t i : held_out.train) {
    labels.push_back(pictures.images.labels[static_cast<size_t>(i)]);
  }
  PictureSplit split;
  TW_ASSIGN_OR_RETURN(split.clients, deal(labels));
  for (auto& client : split.clients) {
    for (int64_t& i : client) i = held_out.train[static_cast<size_t>(i)];
  }
  split.evaluated = std::move(held_out.validation);
  return split;
}

StatusOr<PictureClients> TwoClassClients(std::span<const int32_t> labels, int num_clients,
                                         uint64_t seed) {
  TW_ASSIGN_OR_RETURN(
      const auto pieces,
      Shards(labels, {.kind = "by_label", .seed = seed, .world_size = 2 * num_clients}));
  const std::vector<int64_t> order =
      Permutation(RngStream::Of(seed, RngPurpose::kDataSplit, 3, 0, kSharedRank),
                  static_cast<int64_t>(pieces.size()));
  PictureClients clients(static_cast<size_t>(num_clients));
  for (size_t i = 0; i < order.size(); ++i) {
    const auto& piece = pieces[static_cast<size_t>(order[i])];
    clients[i / 2].insert(clients[i / 2].end(), piece.begin(), piece.end());
  }
  return clients;
}

}  // namespace tw
