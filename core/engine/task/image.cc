// Task image: the class of a picture. Pixels are shifted and scaled by mean and deviation of the
// training pictures.

#include <cmath>
#include <memory>

#include "core/data/file.h"
#include "core/data/idx.h"
#include "core/data/synthetic_samples.h"
#include "core/engine/task/classification.h"

namespace tw {
namespace {

constexpr char kFashionMnist[] =
    "/usr/share/datasets/fashion-mnist";  // Debian's dataset-fashion-mnist
constexpr int64_t kSyntheticImages = 4096;

struct ImageConfig {
  std::string path = "fashion-mnist";
  double val_fraction = 0.1;
  std::string shard = "iid";
  double alpha = 0.5;

  static FieldList<ImageConfig> Fields() {
    FieldList<ImageConfig> list;
    list.Text("path", &ImageConfig::path, {},
              "fashion-mnist (Debian's dataset-fashion-mnist), synthetic, or a folder with MNIST's "
              "four IDX files");
    AddShardFields(list);
    return list;
  }
};

// Mean and deviation of bytes. Sums of integers: exact, and equal on every rank.
struct Moments {
  float mean = 0, deviation = 1;

  explicit Moments(std::span<const uint8_t> pixels) {
    uint64_t sum = 0, squares = 0;
    for (uint8_t p : pixels) {
      sum += p;
      squares += uint64_t{p} * p;
    }
    const double n = static_cast<double>(pixels.size());
    const double m = static_cast<double>(sum) / n;
    const double variance = static_cast<double>(squares) / n - m * m;
    mean = static_cast<float>(m);
    deviation = variance > 1e-6 ? static_cast<float>(std::sqrt(variance)) : 1.0f;
  }
};

StatusOr<std::pair<std::shared_ptr<ImageData>, Split>> ReadImages(const ImageConfig& config,
                                                                  uint64_t seed) {
  auto images = std::make_shared<ImageData>();
  if (config.path == "synthetic") {
    *images = SyntheticImages(seed, kSyntheticImages);
  } else {
    const bool fashion = config.path == "fashion-mnist";
    if (fashion && !IsFolder(kFashionMnist)) {
      return DataError(
          std::string("data.path = \"fashion-mnist\" needs ") + kFashionMnist +
          ", which is not there; install Debian's dataset-fashion-mnist, or give a folder, or "
          "\"synthetic\"");
    }
    TW_ASSIGN_OR_RETURN(IdxFolder folder, ReadIdxFolder(fashion ? kFashionMnist : config.path));
    *images = std::move(folder.train);
    if (folder.test) {
      const int64_t num_train = images->size();
      images->Append(*folder.test);
      return std::make_pair(images, SplitAt(num_train, images->size()));
    }
  }
  auto split = SplitSamples(seed, images->size(), config.val_fraction);
  if (!split.ok()) return Annotate(split.status(), config.path);
  return std::make_pair(images, std::move(*split));
}

class ImageKind : public TaskKind {
 public:
  explicit ImageKind(const ImageConfig& config) : config_(config) {}
  const char* default_model() const override { return "cnn"; }

  StatusOr<std::unique_ptr<Task>> Create(const TaskOptions& options) const override {
    TW_ASSIGN_OR_RETURN(auto read, ReadImages(config_, options.seed));
    const std::shared_ptr<ImageData> images = read.first;
    const int64_t numel = images->numel();
    // Also with a permuted split: all pictures but a few are for training.
    const Moments moments(
        std::span(images->pixels).first(read.second.train.size() * static_cast<size_t>(numel)));
    LabeledSet set;
    set.input = {.kind = InputKind::kImage,
                 .channels = images->channels,
                 .height = images->height,
                 .width = images->width,
                 .classes = images->classes};
    set.labels = images->labels;
    set.split = std::move(read.second);
    set.fill = [images, numel, moments](int64_t index, std::span<float> out) {
      const uint8_t* from = images->pixels.data() + index * numel;
      for (float& x : out) x = (static_cast<float>(*from++) - moments.mean) / moments.deviation;
    };
    return CreateClassification(std::move(set), {config_.shard, config_.alpha}, default_model(),
                                options);
  }

 private:
  ImageConfig config_;
};

StatusOr<std::unique_ptr<TaskKind>> MakeImage(const ImageConfig& config) {
  return std::unique_ptr<TaskKind>(std::make_unique<ImageKind>(config));
}

}  // namespace

TW_REGISTER(TaskKind, image, 0, ImageConfig, MakeImage, "class of a picture, IDX files");

}  // namespace tw
