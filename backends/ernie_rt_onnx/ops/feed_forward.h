#pragma once

#include "tiles.h"

namespace ernie_rt {

// An MLP, experts, or both side by side, on the same input; weights in tiles.
//
// With y = rms_norm(x), or x where no norm is given:
//   out = [x +] sum over a < A of weights[n, a] * expert(ids[n, a])(y) + mlp(y)
// where experts and mlp are down(silu(gate) * up), and x is added where `residual` says so. Which experts, and how they
// weigh, is either given, or routed: probabilities = softmax(y @ router^T), the `top_k` largest of probabilities +
// correction_bias (of equal ones the lowest id), weighing probabilities / max(their sum, norm_min). An id of -1 adds
// nothing. Every expert has at most one row of a token.
class TiledFeedForward {
 public:
  static constexpr const char* NAME = "TiledFeedForward";
  static constexpr size_t OUTPUTS = 1;
  static constexpr Input INPUTS[] = {
      {"x", ort::FLOAT},                                // [N, H]
      {"norm", ort::FLOAT, true},                       // [H]
      {"router", ort::FLOAT, true},                     // [E, H]
      {"correction_bias", ort::FLOAT, true},            // [E]
      {"ids", ort::INT32, true},                        // [N, A], in place of a router
      {"weights", ort::FLOAT, true},                    // [N, A]
      {"experts_gate_up_codes", ort::UINT8, true},      // [E, I / 16, 2, ..]
      {"experts_gate_up_scales", ort::FLOAT16, true},
      {"experts_down_codes", ort::UINT8, true},         // [E, H / 16, ..]
      {"experts_down_scales", ort::FLOAT16, true},
      {"gate_up_codes", ort::UINT8, true},              // [I' / 16, 2, ..]
      {"gate_up_scales", ort::FLOAT16, true},
      {"gate_up_bias", ort::FLOAT, true},               // [I', 2]
      {"down_codes", ort::UINT8, true},                 // [H / 16, ..]
      {"down_scales", ort::FLOAT16, true},
      {"down_bias", ort::FLOAT, true},                  // [H]
  };

  explicit TiledFeedForward(const Attributes& attributes);
  void compute(const Context& context, const Kernels& kernels) const;

 private:
  size_t top_k_;
  float norm_min_, eps_;
  bool residual_;
};

}  // namespace ernie_rt
