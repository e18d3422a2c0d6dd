#pragma once
// Compressors with keys, and shapes, for tests of codecs on a device.

#include <gtest/gtest.h>

#include <ostream>
#include <string>
#include <vector>

#include "tests/compressors/codec_under_test.h"

namespace tw {

// A compressor and its keys.
struct Setting {
  std::string name;
  ConfigKeys keys;
};

inline void PrintTo(const Setting& setting, std::ostream* out) { *out << setting.name; }

// Every registered compressor as it is without keys, and the keys that change what kernels do.
inline std::vector<Setting> Settings() {
  std::vector<Setting> out;
  for (const std::string& name : Registry<Compressor>::Get().names()) out.push_back({name, {}});
  for (const int64_t bits : {4, 8, 16}) {
    out.push_back({"topk", {{"ratio", 0.3}, {"value_bits", bits}}});
  }
  for (const int64_t bits : {2, 4, 8, 32}) {
    out.push_back({"chunked_topk", {{"ratio", 0.1}, {"chunk", int64_t{64}}, {"value_bits", bits}}});
  }
  out.push_back({"chunked_topk", {{"chunk", int64_t{8192}}, {"value_bits", int64_t{4}}}});
  out.push_back({"randk", {{"ratio", 0.2}, {"indices", std::string("own")}}});
  out.push_back({"randk", {{"ratio", 0.7}, {"mode", std::string("unbiased")}}});
  out.push_back({"threshold", {{"lambda", 2.0}}});   // few
  out.push_back({"threshold", {{"lambda", 0.01}}});  // about all: dense
  for (const int64_t bits : {1, 3, 8}) {
    for (const char* rounding : {"nearest", "stochastic"}) {
      out.push_back({"blockquant", {{"bits", bits}, {"rounding", std::string(rounding)}}});
    }
  }
  out.push_back({"blockquant", {{"block", int64_t{4096}}}});
  out.push_back({"qsgd", {{"levels", int64_t{3}}, {"bucket", int64_t{256}}}});
  out.push_back({"intsum", {{"block", int64_t{64}}}});
  out.push_back({"intsum", {{"rotate", true}}});
  out.push_back({"intsum", {{"block", int64_t{8192}}, {"rotate", true}}});
  out.push_back({"powersgd", {{"rank", int64_t{1}}}});
  out.push_back({"powersgd", {{"rank", int64_t{7}}, {"warm_start", false}}});
  out.push_back({"unbiased_lowrank", {{"rank", int64_t{2}}}});
  return out;
}

inline std::vector<std::vector<int64_t>> Shapes() {
  return {{0}, {1}, {7}, {129}, {17, 33}, {64, 48}, {3, 5, 7}, {4099}};
}

inline std::string SettingName(const testing::TestParamInfo<Setting>& info) {
  std::string name = info.param.name;
  for (const auto& [key, value] : info.param.keys) name += "_" + key;
  return name + "_" + std::to_string(info.index);
}
// Those whose bodies have the same size every time, and that wait for nothing.
inline std::vector<Setting> FixedSettings() {
  std::vector<Setting> settings = Settings();
  std::erase_if(settings, [](const Setting& s) { return s.name == "threshold"; });
  return settings;
}

}  // namespace tw
