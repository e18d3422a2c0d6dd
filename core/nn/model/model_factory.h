#pragma once
// A registered kind of model with its keys filled in. Who only makes models and asks what they take
// needs no more than this, and none of LibTorch's large headers.

#include <cstdint>
#include <memory>

#include "core/api/activations.h"
#include "core/base/registry.h"

namespace tw {

class Model;

enum class InputKind { kTokens, kImage, kRows };

// What the data set says about the model; only the fields of its kind are read.
struct ModelInput {
  InputKind kind = InputKind::kTokens;
  int64_t vocab = 256, context = 128;             // kTokens
  int64_t channels = 1, height = 28, width = 28;  // kImage
  int64_t features = 0;                           // kRows
  int64_t classes = 10;                           // kImage, kRows

  // Numbers in one sample of kImage and kRows.
  int64_t numel() const { return kind == InputKind::kImage ? channels * height * width : features; }
};

// A registered kind of model with its keys filled in. Immutable.
class ModelFactory {
 public:
  virtual ~ModelFactory() = default;
  // True when models of this kind can work on such data.
  virtual bool Takes(InputKind kind) const = 0;
  // Weights are a pure function of the configuration and `seed`. ConfigError for sizes that do not
  // fit together. REQUIRES: Takes(input.kind).
  // What `memory` asks for and models of this kind do not have is a ConfigError too.
  virtual StatusOr<std::shared_ptr<Model>> Create(const ModelInput& input, uint64_t seed,
                                                  const MemoryConfig& memory) const = 0;
};

}  // namespace tw
