// Local steps and sparse pseudo-gradients on a small language model: DiLoCo (Douillard et al.,
// arXiv 2311.08105) and SparseLoCo (Sarfi et al., arXiv 2508.15706) against AdamW that exchanges
// every gradient.
//   bytes of synthetic text, a GPT of 2 layers, width 48, context 32 (70,000 parameters), 4 ranks
//   with 4 windows each, 240 steps = 123,000 tokens for every method; AdamW, cosine with 30 steps
//   of warm-up
//   DiLoCo: H = 20, dense
//   SparseLoCo: H = 20, 3 % of each chunk of 4096, 2-bit values, ef14 with decay 0.95
// Every method gets a grid of 12, on one seed apart from the reported ones: lr of (the inner) AdamW
// in {.002, .004, .008, .016} times
//   AdamW: beta2 in {.95, .99, .999}
//   DiLoCo: (outer lr, momentum) in {(.7, .9), (.7, .5), (1, 0)}, the paper's and those for few
//   rounds; SparseLoCo: outer lr in {.5, .7, 1}
// Loss: the whole validation split at the end, nats a byte. Traffic: payloads of all ranks. A quick
// run has one seed, lr = 0.008 and the first of the three, untuned, and 80 steps; it claims bytes
// alone. DeMo and Dion are not in this program. A first run tuned lr alone and left the outer step
// at .7 with momentum .9: DiLoCo ended 30 % above AdamW.
// Claims: at least 20 times fewer bytes, and a loss within 5 % of AdamW's or lower.

#include <array>

#include "absl/strings/str_format.h"
#include "examples/convergence/problems/tuning.h"

namespace tw {
namespace {

constexpr std::array<double, 4> kGrid = {0.002, 0.004, 0.008, 0.016};

class SparseLmSmoke : public Experiment {
 public:
  ExperimentInfo info() const override {
    return {"Douillard et al.: DiLoCo; Sarfi et al.: SparseLoCo, on a small language model",
            "2508.15706",
            {"20 times fewer bytes than AdamW with an exchange every step",
             "validation loss < 1.05 x its at equal tokens, each tuned"},
            140};
  }

  Status Run(LabContext& lab) const override {
    lab.plot().metric = "eval_loss";
    TW_ASSIGN_OR_RETURN(const TunedRuns adamw,
                        Tuned(lab, {"AdamW",
                                    {},
                                    {{"beta2 0.95", {"optimizer.betas=[0.9, 0.95]"}},
                                     {"beta2 0.99", {"optimizer.betas=[0.9, 0.99]"}},
                                     {"beta2 0.999", {"optimizer.betas=[0.9, 0.999]"}}}}));
    const std::vector<Method> methods = {
        {"DiLoCo",
         {"strategy.name=diloco", "strategy.local_steps=20"},
         {{"outer 0.7, momentum 0.9", {}},
          {"outer 0.7, momentum 0.5", {"strategy.outer_momentum=0.5"}},
          {"outer 1, momentum 0", {"strategy.outer_lr=1", "strategy.outer_momentum=0"}}}},
        {"SparseLoCo",
         {"strategy.name=sparseloco", "strategy.local_steps=20", "compressor.name=chunked_topk",
          "compressor.ratio=0.03", "compressor.value_bits=2", "feedback.name=ef14",
          "feedback.decay=0.95"},
         {{"outer 1", {}},
          {"outer 0.7", {"strategy.outer_lr=0.7"}},
          {"outer 0.5", {"strategy.outer_lr=0.5"}}}}};
    for (const Method& m : methods) {
      const std::string& label = m.label;
      TW_ASSIGN_OR_RETURN(const TunedRuns method, Tuned(lab, m));
      std::vector<double> saved;
      for (size_t s = 0; s < adamw.runs.size(); ++s) {
        saved.push_back(static_cast<double>(adamw.runs[s].curve.points.back().uplink_bytes) /
                        static_cast<double>(method.runs[s].curve.points.back().uplink_bytes));
      }
      lab.AtLeast(label + ": AdamW's bytes over its own", saved, 20);  // DiLoCo's is H
      if (lab.quick()) continue;
      lab.Below(label + ": validation loss over AdamW's", Over(method.losses, adamw.losses), 1.05);
    }
    return OkStatus();
  }

 private:
  struct Method {
    std::string label;
    std::vector<std::string> settings;
    std::vector<TunedChoice> choices;  // beside lr
  };

  static StatusOr<TunedRuns> Tuned(LabContext& lab, const Method& method) {
    const int64_t steps = lab.quick() ? 80 : 240;
    std::vector<std::string> settings = {"task.name=lm",
                                         "data.path=synthetic",
                                         "data.context=32",
                                         "data.val_fraction=0.01",
                                         "model.name=gpt",
                                         "model.layers=2",
                                         "model.width=48",
                                         "model.heads=2",
                                         "train.batch_size=4",
                                         absl::StrFormat("train.steps=%d", steps),
                                         "optimizer.name=adamw",
                                         "schedule.name=cosine",
                                         "schedule.warmup_steps=30"};
    settings.insert(settings.end(), method.settings.begin(), method.settings.end());
    return TrainTuned(lab, {.label = method.label,
                            .settings = std::move(settings),
                            .ranks = 4,
                            .grid = kGrid,
                            .untuned = 0.008,
                            .choices = method.choices,
                            .loss = [](const Curve& curve) { return curve.last(/*metric=*/1); }});
  }
};

StatusOr<std::unique_ptr<Experiment>> Create(const NoConfig&) {
  return std::make_unique<SparseLmSmoke>();
}

TW_REGISTER(Experiment, sparse_lm_smoke, 0, NoConfig, Create,
            "DiLoCo and SparseLoCo against AdamW on a small language model");

}  // namespace
}  // namespace tw
