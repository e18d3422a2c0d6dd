// A torch::nn::Module of your own, trained through tightwire: the module, what a batch is, one line
// of registration.
#include <torch/nn/modules/linear.h>

#include "core/engine/task/module_task.h"
#include "launch/program.h"

struct Net : torch::nn::Module {
  explicit Net(int64_t width)
      : in(register_module("in", torch::nn::Linear(2, width))),
        mid(register_module("mid", torch::nn::Linear(width, width))),
        out(register_module("out", torch::nn::Linear(width, 1))) {}
  at::Tensor forward(const at::Tensor& x) { return out(torch::tanh(mid(torch::tanh(in(x))))); }
  torch::nn::Linear in, mid, out;
};

struct WavesConfig {  // the keys of [data]
  double frequency = 3;
  static tw::FieldList<WavesConfig> Fields() {
    return tw::FieldList<WavesConfig>().Real("frequency", &WavesConfig::frequency, {0, 100},
                                             "of the waves to be learned");
  }
};

class Waves : public tw::TaskFor<Net> {
 public:
  Waves(const WavesConfig& config, const tw::TaskOptions& options)
      : TaskFor(options, 64), frequency_(config.frequency) {}
  at::Tensor Loss(uint64_t step, int64_t micro) override {
    return Error(Moved(torch::rand({options_.batch_size, 2}, BatchGenerator(step, micro))));
  }
  tw::StatusOr<tw::EvalResult> Evaluate() override {
    torch::NoGradGuard no_grad;
    const at::Tensor line = torch::linspace(0, 1, 64);
    const at::Tensor grid = Moved(torch::cartesian_prod({line, line}));
    return tw::EvalResult{.loss = Error(grid).item<double>(), .tokens = grid.size(0)};
  }

 private:
  at::Tensor Error(const at::Tensor& x) const {
    return torch::mse_loss(module().forward(x), torch::sin(frequency_ * x).prod(1, true));
  }
  double frequency_;
};
TW_REGISTER_TASK(waves, WavesConfig, Waves, "product of two sine waves over the unit square");

int main(int argc, char** argv) { return tw::ProgramMain(argc, argv); }
