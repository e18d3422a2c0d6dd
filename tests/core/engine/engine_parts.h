#pragma once
// Variants by name for tests of the engine, without a config file.

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/engine/plan.h"

namespace tw {

using Keys = std::vector<std::pair<std::string, FieldValue>>;

template <class Interface>
std::unique_ptr<Interface> MakeVariant(const std::string& name, const Keys& keys = {}) {
  ConfigSection section;
  section.Set("name", name);
  for (const auto& [key, value] : keys) section.Set(key, value);
  auto made = Registry<Interface>::Get().Make(section, name);
  TW_CHECK_OK(made);
  return std::move(made).value();
}

inline std::vector<const Exchange*> AllExchanges() {
  std::vector<const Exchange*> out;
  for (Merge merge : {Merge::kSum, Merge::kGather, Merge::kReencode, Merge::kSparse}) {
    if (const Exchange* exchange = FindExchange(merge)) out.push_back(exchange);
  }
  return out;
}

// Owns what routes point to.
class RouteMaker {
 public:
  Route Make(const std::string& compressor, const std::string& feedback,
             const Keys& compressor_keys = {}, const Keys& feedback_keys = {}) {
    codecs_.push_back(MakeVariant<Compressor>(compressor, compressor_keys));
    policies_.push_back(MakeVariant<FeedbackPolicy>(feedback, feedback_keys));
    Route route;
    route.compressor = compressor;
    route.feedback = feedback;
    route.codec = codecs_.back().get();
    route.wire_id = Registry<Compressor>::Get().Find(compressor)->wire_id;
    route.policy = policies_.back().get();
    return route;
  }
  // Ready but for rules.
  PlanOptions Options(int world_size) {
    PlanOptions options;
    options.dense = Make("none", "none");
    options.dense.exchange = FindExchange(Merge::kSum);
    options.exchanges = AllExchanges();
    options.world_size = world_size;
    return options;
  }

 private:
  std::vector<std::unique_ptr<Compressor>> codecs_;
  std::vector<std::unique_ptr<FeedbackPolicy>> policies_;
};

}  // namespace tw
