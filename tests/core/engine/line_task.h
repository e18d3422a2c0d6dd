#pragma once
// A task small enough for tests of whole runs, and a sink that keeps what it gets.

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/mse_loss.h>
#include <ATen/ops/zeros.h>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "core/api/metrics.h"
#include "core/api/task.h"
#include "tests/core/engine/reducer_rank.h"

namespace tw {

// Linear regression. A step's samples are numbered over ranks and micro-batches, so that runs which
// divide them differently see the same ones.
class LineTask : public Task {
 public:
  LineTask(int rank, int64_t batch, int64_t accumulate)
      : rank_(rank), batch_(batch), accumulate_(accumulate) {}

  std::vector<std::pair<std::string, at::Tensor>> parameters() override {
    return {{"weight", weight}, {"bias", bias}};
  }
  at::Tensor Loss(uint64_t step, int64_t micro) override {
    std::vector<at::Tensor> rows;
    for (int64_t i = 0; i < batch_; ++i) {
      const int64_t sample = (rank_ * accumulate_ + micro) * batch_ + i;
      rows.push_back(Numbers({1, 12}, 1000 + step * 64 + static_cast<uint64_t>(sample), 1.0));
    }
    const at::Tensor x = at::cat(rows);
    at::Tensor loss = at::mse_loss(at::linear(x, weight, bias), at::matmul(x, truth_.t()) + 0.5);
    if (static_cast<int64_t>(step) >= bad_from && rank_ == 0) {
      loss = loss * std::numeric_limits<float>::quiet_NaN();
    }
    return loss;
  }
  StatusOr<EvalResult> Evaluate() override { return EvalResult{}; }
  int64_t samples_per_batch() const override { return batch_; }
  int64_t tokens_per_batch() const override { return 3 * batch_; }
  Status LoadWeights(const std::string&) override { return OkStatus(); }
  Status SaveWeights(const std::string&) const override { return OkStatus(); }

  at::Tensor weight = Numbers({8, 12}, 1, 0.2).requires_grad_();
  at::Tensor bias = at::zeros({8}).requires_grad_();
  int64_t bad_from = std::numeric_limits<int64_t>::max();

 private:
  at::Tensor truth_ = Numbers({8, 12}, 2, 1.0);
  int64_t rank_, batch_, accumulate_;
};

class RecordingSink : public MetricSink {
 public:
  Status Write(const StepRecord& record) override {
    records.push_back(record);
    return OkStatus();
  }
  Status Flush() override {
    ++flushes;
    return OkStatus();
  }
  std::vector<StepRecord> records;
  int flushes = 0;
};

}  // namespace tw
