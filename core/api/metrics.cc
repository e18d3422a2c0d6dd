#include "core/api/metrics.h"

namespace tw {

const std::vector<MetricField>& MetricFields() {
#define TW_METRIC(name, integer, help)                                                    \
  {                                                                                       \
#name, help, integer, [](const StepRecord& r) { return static_cast<double>(r.name); } \
  }
  static const std::vector<MetricField> fields = {
      TW_METRIC(step, true, "steps done"),
      TW_METRIC(samples, true, "samples seen so far, all ranks"),
      TW_METRIC(tokens, true, "tokens seen so far, all ranks (samples where there are no tokens)"),
      TW_METRIC(loss, false, "training loss, mean over ranks, nats; in a local step rank 0's own"),
      TW_METRIC(lr, false, "learning rate after the schedule"),
      TW_METRIC(grad_norm, false,
                "norm of the gradient the optimizer saw, before clipping; in a local "
                "step rank 0's own"),
      TW_METRIC(payload_bytes, true, "bytes this rank encoded, each counted once"),
      TW_METRIC(wire_bytes, true,
                "all bytes rank 0 handed to the transport, frames and forwards included"),
      TW_METRIC(dense_bytes, true, "4 x number of parameters"),
      TW_METRIC(step_ms, false, "wall time of the step"),
      TW_METRIC(cpu_ms, false, "of step_ms, the main thread on a core"),
      TW_METRIC(core_wait_ms, false,
                "of step_ms, the main thread ready to run while all cores were taken"),
      TW_METRIC(forward_ms, false, "forward passes"),
      TW_METRIC(backward_ms, false, "backward passes"),
      TW_METRIC(encode_ms, false, "feedback and encoding, on the lane thread"),
      TW_METRIC(exchange_ms, false, "moving bytes and waiting for peers, on the lane thread"),
      TW_METRIC(decode_ms, false, "decoding and adding, on the lane thread"),
      TW_METRIC(exposed_ms, false, "the step waited for communication after backward"),
      TW_METRIC(optimizer_ms, false, "norm, clipping and the update"),
      TW_METRIC(residual_norm, false, "norm of this rank's error memory"),
      TW_METRIC(peak_tensor_bytes, true, "high-water mark of tensor memory"),
      TW_METRIC(skipped, true,
                "1 when a rank had a non-finite gradient and the step was skipped on all; a local "
                "step: when rank 0 skipped it"),
  };
#undef TW_METRIC
  return fields;
}

}  // namespace tw
