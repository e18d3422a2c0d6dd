#include "examples/convergence/problems/six_layers.h"

#include "absl/strings/str_format.h"

namespace tw {

std::vector<std::string> SixLayers(SixLayersData data, int64_t steps,
                                   const std::vector<std::string>& own) {
  const bool pictures = data == SixLayersData::kPictures;
  std::vector<std::string> settings = {pictures ? "task.name=image" : "task.name=tabular",
                                       "data.path=synthetic",
                                       "model.name=mlp",
                                       "model.layers=5",
                                       "model.width=64",
                                       absl::StrFormat("train.steps=%d", steps),
                                       "train.batch_size=16",
                                       "train.grad_clip=0",
                                       "optimizer.name=sgdm",
                                       "optimizer.momentum=0.9"};
  settings.insert(settings.end(), own.begin(), own.end());
  return settings;
}

}  // namespace tw
