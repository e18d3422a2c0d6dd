#include "examples/convergence/problems/adversarial_gpt.h"

#include <torch/optim/adam.h>

#include <cstring>

#include "core/data/synthetic_text.h"
#include "core/engine/catch_torch.h"
#include "core/nn/model/gpt.h"
#include "core/nn/torch.h"

namespace tw {
namespace {

constexpr int64_t kVocab = 128;  // SyntheticText is ASCII

class OneThread {
 public:
  OneThread() : before_(at::get_num_threads()) { at::set_num_threads(1); }
  ~OneThread() { at::set_num_threads(before_); }
  OneThread(const OneThread&) = delete;
  OneThread& operator=(const OneThread&) = delete;

 private:
  int before_;
};

}  // namespace

struct AdversarialGpt::Model {
  AdversarialGptOptions options;
  std::shared_ptr<LanguageModel> gpt;
  std::vector<at::Tensor> weights;  // of gpt, in the order of specs; the table of tokens first
  std::vector<at::Tensor> start;
  std::vector<TensorSpec> specs;
  std::string text;

  // Windows of context + 1 tokens, [rows, context + 1].
  at::Tensor Windows(int64_t begin, std::span<const int64_t> starts) const {
    const int64_t length = options.context + 1;
    at::Tensor out = torch::empty({static_cast<int64_t>(starts.size()), length}, torch::kLong);
    int64_t* to = out.data_ptr<int64_t>();
    for (const int64_t start : starts) {
      for (int64_t t = 0; t < length; ++t) {
        *to++ = static_cast<unsigned char>(text[static_cast<size_t>(begin + start + t)]) % kVocab;
      }
    }
    return out;
  }

  void Put(std::span<const TensorView> x) {
    torch::NoGradGuard no_grad;
    for (size_t p = 0; p < weights.size(); ++p) {
      std::memcpy(weights[p].data_ptr(), x[p].data, static_cast<size_t>(x[p].bytes()));
    }
  }

  // L with `head` in the head; the table of tokens may have been moved.
  at::Tensor Loss(const at::Tensor& windows, const at::Tensor& head) const {
    const int64_t length = options.context;
    const at::Tensor scores = at::linear(gpt->Hidden(windows.narrow(1, 0, length)), head);
    return at::cross_entropy_loss(scores.flatten(0, 1), windows.narrow(1, 1, length).reshape({-1}));
  }

  // Plain training without an adversary, on the text of all clients: where every method starts.
  void Pretrain() {
    torch::optim::Adam adam(weights, torch::optim::AdamOptions(0.01));
    const auto room =
        static_cast<uint64_t>(options.num_clients * options.text_bytes - options.context - 1);
    for (int64_t step = 0; step < options.pretrain_steps; ++step) {
      const RngStream rng = RngStream::Of(options.seed, RngPurpose::kProblem,
                                          static_cast<uint64_t>(step), 0, kSharedRank);
      std::vector<int64_t> starts;
      for (uint64_t i = 0; i < 16; ++i) starts.push_back(static_cast<int64_t>(rng.Below(i, room)));
      adam.zero_grad();
      Loss(Windows(0, starts), weights[0]).backward();
      adam.step();
    }
    for (at::Tensor& weight : weights) weight.mutable_grad() = at::Tensor();
  }

  // E <- E + D*; returns L(theta, 0).
  double MoveEmbeddings(const at::Tensor& windows, const at::Tensor& head) {
    const at::Tensor loss = Loss(windows, head);
    const at::Tensor g = torch::autograd::grad({loss}, {weights[0]})[0];
    torch::NoGradGuard no_grad;
    const double norm = g.norm().item<double>();
    if (norm > 0) weights[0].add_(g, options.epsilon / norm);
    return loss.item<double>();
  }
};

AdversarialGpt::AdversarialGpt(std::unique_ptr<Model> model) : model_(std::move(model)) {}
AdversarialGpt::~AdversarialGpt() = default;

StatusOr<std::unique_ptr<AdversarialGpt>> AdversarialGpt::Create(
    const AdversarialGptOptions& options) {
  auto model = std::make_unique<Model>();
  model->options = options;
  ModelInput input;
  input.kind = InputKind::kTokens;
  input.vocab = kVocab;
  input.context = options.context;
  TW_ASSIGN_OR_RETURN(
      model->gpt,
      CreateGpt({.layers = options.layers, .width = options.width, .heads = options.heads}, input,
                options.seed));
  for (const auto& item : model->gpt->named_parameters()) {
    TensorSpec spec;
    spec.id = static_cast<uint32_t>(model->specs.size());
    spec.name = item.key();
    spec.shape.assign(item.value().sizes().begin(), item.value().sizes().end());
    model->specs.push_back(std::move(spec));
    model->weights.push_back(item.value());
  }
  TW_CHECK(model->weights[0].is_same(model->gpt->HeadWeight()));
  model->text = SyntheticText(options.seed, options.text_bytes * (options.num_clients + 1));
  TW_RETURN_IF_ERROR(CatchTorch([&]() -> Status {
    const OneThread one;
    model->Pretrain();
    return OkStatus();
  }));
  for (const at::Tensor& w : model->weights) model->start.push_back(w.detach().clone());
  return std::unique_ptr<AdversarialGpt>(new AdversarialGpt(std::move(model)));
}

int AdversarialGpt::num_clients() const { return model_->options.num_clients; }
std::span<const TensorSpec> AdversarialGpt::parameters() const { return model_->specs; }
int64_t AdversarialGpt::numel() const {
  int64_t total = 0;
  for (const TensorSpec& spec : model_->specs) total += spec.numel();
  return total;
}

void AdversarialGpt::Start(std::span<const TensorView> x) {
  for (size_t p = 0; p < x.size(); ++p) {
    std::memcpy(x[p].data, model_->start[p].data_ptr(), static_cast<size_t>(x[p].bytes()));
  }
}

StatusOr<double> AdversarialGpt::Gradient(const GradientCall& call, std::span<const TensorView> x,
                                          std::span<const TensorView> out) {
  const OneThread one;
  Model& m = *model_;
  const RngStream rng = call.noise();
  std::vector<int64_t> starts;
  const auto room = static_cast<uint64_t>(m.options.text_bytes - m.options.context);
  for (int64_t i = 0; i < m.options.batch; ++i) {
    starts.push_back(static_cast<int64_t>(rng.Below(static_cast<uint64_t>(i), room)));
  }
  double value = 0;
  const Status status = CatchTorch([&]() -> Status {
    m.Put(x);
    const at::Tensor windows = m.Windows(call.client * m.options.text_bytes, starts);
    const at::Tensor head = m.weights[0].detach().clone().requires_grad_();
    m.MoveEmbeddings(windows, head);
    const at::Tensor loss = m.Loss(windows, head);
    std::vector<at::Tensor> leaves = m.weights;
    leaves.push_back(head);
    std::vector<at::Tensor> grads = torch::autograd::grad({loss}, leaves);
    grads[0] = grads[0] + grads.back();
    for (size_t p = 0; p < out.size(); ++p) {
      const at::Tensor g = grads[p].contiguous();
      std::memcpy(out[p].data, g.data_ptr(), static_cast<size_t>(out[p].bytes()));
    }
    value = loss.item<double>();
    return OkStatus();
  });
  TW_RETURN_IF_ERROR(status);
  return value;
}

Status AdversarialGpt::Measure(std::span<const TensorView> x, std::span<double> out) {
  const OneThread one;
  Model& m = *model_;
  const int64_t begin = m.options.num_clients * m.options.text_bytes, batch = m.options.batch;
  const int64_t apart = (m.options.text_bytes - m.options.context) / m.options.evaluated_windows;
  const int64_t batches = m.options.evaluated_windows / batch;
  out[0] = out[1] = 0;
  return CatchTorch([&]() -> Status {
    for (int64_t b = 0; b < batches; ++b) {
      std::vector<int64_t> starts;
      for (int64_t i = 0; i < batch; ++i) starts.push_back((b * batch + i) * apart);
      m.Put(x);
      const at::Tensor windows = m.Windows(begin, starts);
      const at::Tensor head = m.weights[0].detach().clone();
      out[1] += m.MoveEmbeddings(windows, head) / static_cast<double>(batches);
      torch::NoGradGuard no_grad;
      out[0] += m.Loss(windows, head).item<double>() / static_cast<double>(batches);
    }
    return OkStatus();
  });
}

}  // namespace tw
