// L-GreCo on a language model under Adam (Markov, Alimohammadi, Frantar, Alistarh, "L-GreCo", MLSys
// 2024, arXiv 2210.17357): how many bytes it saves at the same final loss.
//   bytes of synthetic text, a GPT of 2 layers, width 64, context 64 (130,000 parameters), 2 ranks
//   with 8 windows each, 300 steps = 307,000 tokens; AdamW, lr 0.004, cosine with 30 steps of
//   warm-up; plans every 50 steps on the messages of 10
//   rank:    powersgd with ef14, uniform rank 4, choice 2 .. 8
//   density: topk with ef14, uniform 1 %, choice 0.5 % .. 2 %
//   bits:    blockquant with ef14, uniform 4 bits, choice 2 .. 8
// "relative" weighs each layer's error by the norm of its own message: Adam does not see the scale
// of a layer's gradient, and absolute errors let layers with large gradients starve the others.
// Until its first plan L-GreCo is the uniform setting, and those bytes are in its sum. Loss: the
// whole validation split at the end, nats a byte. The same seed draws the same weights and batches.
// A quick run has one seed, 120 steps and no claim on losses.
// Claims: at most the loss of the uniform setting times 1.01, and with the paper's absolute
// errors 1.3 times fewer bytes for ranks, 1.1 for bits; of densities and of relative errors the
// savings are told. Ranks do not hold here: with the first 54 of 300 steps uniform they save 1.2
// times, at 1.2 % more loss; relative errors save less, at no loss.

#include <array>

#include "absl/strings/str_format.h"
#include "examples/convergence/problems/tuning.h"

namespace tw {
namespace {

struct Family {
  std::string what;
  std::vector<std::string> compressor;
  double fewer;  // times; 0: told
};

std::vector<Family> Families() {
  return {
      {"rank", {"compressor.name=powersgd", "compressor.rank=4"}, 1.3},
      {"density", {"compressor.name=topk", "compressor.ratio=0.01"}, 0},
      {"bits", {"compressor.name=blockquant", "compressor.bits=4"}, 1.1},
  };
}

struct Way {
  std::string label;
  std::vector<std::string> settings;
  bool judged = false;  // by its savings
};

class LgrecoGpt : public Experiment {
 public:
  ExperimentInfo info() const override {
    return {"Markov et al.: L-GreCo on a language model under Adam",
            "2210.17357",
            {"rank: 1.3 times fewer bytes at the same final loss",
             "bits: 1.1 times fewer bytes at the same final loss"},
            180};
  }

  Status Run(LabContext& lab) const override {
    lab.plot().metric = "eval_loss";
    const std::vector<std::string> planned = {"planner.name=lgreco", "planner.every=50",
                                              "planner.gamma=0.5", "planner.beta=2"};
    std::vector<std::string> relative = planned;
    relative.push_back("planner.relative=true");
    const std::vector<Way> ways = {{"L-GreCo", planned, true}, {"L-GreCo, relative", relative}};
    for (const Family& family : Families()) {
      std::vector<Trained> uniform;
      for (const uint64_t seed : lab.seeds()) {
        TW_ASSIGN_OR_RETURN(uniform.emplace_back(), Once(lab, family, Way{"uniform", {}}, seed));
      }
      lab.Report(family.what + ": uniform's validation loss", Losses(uniform));
      for (const Way& way : ways) {
        TW_RETURN_IF_ERROR(Against(lab, family, way, uniform));
      }
    }
    return OkStatus();
  }

 private:
  static std::vector<double> Losses(const std::vector<Trained>& runs) {
    std::vector<double> losses;
    for (const Trained& run : runs) losses.push_back(run.curve.last(/*metric=*/1));
    return losses;
  }

  static Status Against(LabContext& lab, const Family& family, const Way& way,
                        const std::vector<Trained>& uniform) {
    const std::string what = family.what + ", " + way.label;
    std::vector<Trained> runs;
    std::vector<double> fewer;
    for (const uint64_t seed : lab.seeds()) {
      TW_ASSIGN_OR_RETURN(runs.emplace_back(), Once(lab, family, way, seed));
      if (runs.back().plans.empty()) return BugError("lgreco_gpt: the planner made no plan");
      fewer.push_back(static_cast<double>(uniform[fewer.size()].curve.points.back().uplink_bytes) /
                      static_cast<double>(runs.back().curve.points.back().uplink_bytes));
    }
    const std::string saved = what + ": uniform's bytes over its own";
    const bool expected = family.what != "rank" || !way.judged;
    const auto why = "at 300 steps, the first 54 of them uniform: fewer bytes, and more loss";
    if (lab.quick() || family.fewer == 0 || !way.judged) {
      lab.Report(saved, fewer);
    } else {
      lab.AtLeast(saved, fewer, family.fewer);
      if (!expected) lab.DoesNotHoldHere(why);
    }
    if (!lab.quick()) {
      lab.Below(what + ": validation loss over uniform's", Over(Losses(runs), Losses(uniform)),
                1.01);
      if (!expected) lab.DoesNotHoldHere(why);
    }
    return OkStatus();
  }

  static StatusOr<Trained> Once(LabContext& lab, const Family& family, const Way& way,
                                uint64_t seed) {
    std::vector<std::string> settings = {
        "task.name=lm",         "data.path=synthetic",
        "data.context=64",      "data.val_fraction=0.01",
        "model.name=gpt",       "model.layers=2",
        "model.width=64",       "model.heads=4",
        "train.batch_size=8",   absl::StrFormat("train.steps=%d", lab.quick() ? 120 : 300),
        "optimizer.name=adamw", "optimizer.lr=0.004",
        "schedule.name=cosine", "schedule.warmup_steps=30",
        "feedback.name=ef14"};
    settings.insert(settings.end(), family.compressor.begin(), family.compressor.end());
    settings.insert(settings.end(), way.settings.begin(), way.settings.end());
    return lab.Train({.label = way.label + ", " + family.what,
                      .seed = seed,
                      .ranks = 2,
                      .settings = std::move(settings),
                      .points = 6});
  }
};

StatusOr<std::unique_ptr<Experiment>> Create(const NoConfig&) {
  return std::make_unique<LgrecoGpt>();
}

TW_REGISTER(Experiment, lgreco_gpt, 0, NoConfig, Create,
            "L-GreCo's ranks, densities and bits by layer on a language model under Adam");

}  // namespace
}  // namespace tw
