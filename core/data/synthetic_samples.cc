#include "core/data/synthetic_samples.h"

#include <algorithm>
#include <cmath>

#include "core/base/rng.h"

namespace tw {
namespace {

constexpr int64_t kSide = 28;
constexpr int kClasses = 10;
constexpr int kSpots = 8;
constexpr int64_t kFeatures = 32;

RngStream StreamOf(uint64_t seed, uint64_t part, uint32_t index) {
  return RngStream::Of(seed, RngPurpose::kSynthetic, part, index, kSharedRank);
}

// About normal with mean 0 and variance 1: four uniform numbers added.
float Bell(const RngStream& rng, uint64_t counter) {
  const auto r = rng.At(counter);
  float sum = 0;
  for (uint32_t word : r) sum += static_cast<float>(word >> 8) * 0x1.0p-24f - 0.5f;
  return sum * 1.7320508f;
}

// Brightness 0 .. 1 of a class's pattern, on a canvas that leaves room to move.
std::vector<float> Pattern(uint64_t seed, uint32_t label) {
  const RngStream rng = StreamOf(seed, 10, label);
  std::vector<float> out(static_cast<size_t>(kSide * kSide), 0.0f);
  for (uint64_t spot = 0; spot < kSpots; ++spot) {
    const auto row = 4 + static_cast<float>(rng.Below(2 * spot, kSide - 8));
    const auto column = 4 + static_cast<float>(rng.Below(2 * spot + 1, kSide - 8));
    for (int64_t y = 0; y < kSide; ++y) {
      for (int64_t x = 0; x < kSide; ++x) {
        const float dy = static_cast<float>(y) - row, dx = static_cast<float>(x) - column;
        float& pixel = out[static_cast<size_t>(y * kSide + x)];
        pixel = std::max(pixel, 1 / (1 + (dy * dy + dx * dx) / 4));
      }
    }
  }
  return out;
}

}  // namespace

ImageData SyntheticImages(uint64_t seed, int64_t count) {
  ImageData out{.channels = 1, .height = kSide, .width = kSide, .classes = kClasses};
  std::vector<std::vector<float>> patterns;
  for (uint32_t c = 0; c < kClasses; ++c) patterns.push_back(Pattern(seed, c));
  out.pixels.reserve(static_cast<size_t>(count * kSide * kSide));
  for (int64_t i = 0; i < count; ++i) {
    const RngStream rng = StreamOf(seed, 11, static_cast<uint32_t>(i));
    const auto label = static_cast<int32_t>(rng.Below(0, kClasses));
    const auto down = static_cast<int64_t>(rng.Below(1, 5)) - 2,
               right = static_cast<int64_t>(rng.Below(2, 5)) - 2;
    const std::vector<float>& pattern = patterns[static_cast<size_t>(label)];
    out.labels.push_back(label);
    for (int64_t y = 0; y < kSide; ++y) {
      for (int64_t x = 0; x < kSide; ++x) {
        const int64_t from_y = std::clamp<int64_t>(y - down, 0, kSide - 1);
        const int64_t from_x = std::clamp<int64_t>(x - right, 0, kSide - 1);
        const float noise = 50 * Bell(rng, static_cast<uint64_t>(3 + y * kSide + x));
        const float bright = 200 * pattern[static_cast<size_t>(from_y * kSide + from_x)] + noise;
        out.pixels.push_back(static_cast<uint8_t>(std::clamp(bright, 0.0f, 255.0f)));
      }
    }
  }
  return out;
}

SparseRows SyntheticRows(uint64_t seed, int64_t count) {
  SparseRows out;
  out.features = kFeatures;
  out.classes = 2;
  out.label_values = {0, 1};
  const RngStream hidden = StreamOf(seed, 20, 0);
  for (int64_t i = 0; i < count; ++i) {
    const RngStream rng = StreamOf(seed, 21, static_cast<uint32_t>(i));
    float score = 0;
    for (int64_t f = 0; f < kFeatures; ++f) {
      const float value = Bell(rng, static_cast<uint64_t>(f));
      score += value * Bell(hidden, static_cast<uint64_t>(f));
      out.columns.push_back(static_cast<int32_t>(f));
      out.values.push_back(value);
    }
    // The score's spread is about sqrt(32); noise of a third of it turns one sign in ten.
    out.labels.push_back(score + 1.9f * Bell(rng, kFeatures) > 0 ? 1 : 0);
    out.row_begin.push_back(static_cast<int64_t>(out.columns.size()));
  }
  return out;
}

}  // namespace tw
