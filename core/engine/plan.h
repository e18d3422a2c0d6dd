#pragma once
// Plan: for every parameter, how its gradient travels. Built once from rules, agreed by all ranks
// through its fingerprint. The plan owns choices; it moves nothing.

#include <string>
#include <vector>

#include "core/api/exchange.h"
#include "core/api/feedback.h"

namespace tw {

// One way for a gradient to travel. The pointed-to objects outlive the plan.
struct Route {
  std::string compressor;
  std::string feedback;
  const Compressor* codec = nullptr;
  int wire_id = 0;
  const FeedbackPolicy* policy = nullptr;
  std::string merge = "auto";  // name of the only one wanted, or auto
  bool hop_feedback = false;   // error feedback of kReencode's second hop
  const Exchange* exchange = nullptr;
};

// From [compressor] and [[compressor.rule]]; the first rule whose glob matches a parameter's name
// decides.
struct PlanRule {
  std::string match = "*";
  Route route;  // exchange is chosen by BuildPlan
  int64_t min_numel = 1024;
  int64_t start_step = 0;  // dense before
};

struct ParameterPlan {
  TensorSpec spec;
  Route route;              // what it uses from start_step on
  bool compressed = false;  // false: route is the dense one
  std::string why_dense;    // "numel 256 < min_numel 1024", ...
  int64_t start_step = 0;
  int64_t payload_bytes = 0;  // a step, all rounds; an upper bound for codecs without a fixed size
  int rule = 0;               // of PlanOptions that decided
  std::string option;         // "rank 6" where a planner has chosen, empty otherwise
};

struct PlanOptions {
  Route dense;  // compressor none, feedback none, an exchange of sums
  // That of what travels dense although a compressor was asked for; null: that of `dense`.
  const Exchange* leftover_sums = nullptr;
  std::vector<PlanRule> rules;  // the last one matches everything
  std::vector<const Exchange*> exchanges;
  int world_size = 1;
};

class Plan {
 public:
  // Fault kConfig when a compressor, its feedback and the exchanges have no merge in common; the
  // message names the pairs that would work.
  static StatusOr<Plan> Build(const std::vector<TensorSpec>& specs, const PlanOptions& options);

  const std::vector<ParameterPlan>& parameters() const { return parameters_; }
  const Route& dense() const { return dense_; }
  // Lines for the log: what travels dense although a compressor was asked for, settings that do
  // nothing.
  const std::vector<std::string>& notes() const { return notes_; }
  // The same on all ranks, or they must not start.
  uint64_t fingerprint() const;

  // How a parameter travels from the next step on. Between two steps, with the lane idle; on all
  // ranks alike. An exchange must be in the route.
  void Choose(size_t parameter, const Route& route, bool compressed, const std::string& option);

 private:
  std::vector<ParameterPlan> parameters_;
  Route dense_;
  std::vector<std::string> notes_;
};

// '*' any run of characters, '?' any one.
bool GlobMatch(const std::string& pattern, const std::string& text);
// All rounds; an upper bound for codecs without a fixed size.
int64_t PayloadBytes(const Compressor& codec, const TensorSpec& spec);
// Of the exchanges for merges that codec, policy and the route's own wish accept the one that hands
// the fewest bytes to the transport; of equals the one the codec lists first. Null when there is
// none, or when what the policy keeps would grow without bound.
const Exchange* ChooseExchange(const Route& route, const TensorSpec& spec,
                               const std::vector<const Exchange*>& exchanges, int ranks);
// Whether the policy's needs hold for means formed this way.
bool Accepts(const FeedbackPolicy& policy, const Compressor& codec, Merge merge);

}  // namespace tw
