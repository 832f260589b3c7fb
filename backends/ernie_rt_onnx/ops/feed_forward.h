#pragma once

#include "matrix.h"
#include "routing.h"

namespace ernie_rt {

// An MLP, experts, or both side by side, on the same input; weights of any kind. What several operators compute, once
// they have read their inputs.
//
// With z = rms_norm(x), or x where no norm is given:
//   y = [x +] down_bias + sum over a < A of weights[n, a] * expert(ids[n, a])(z) + mlp(z)
// where experts and mlp are down(silu(gate) * up), and x is added where `residual` says so. Which experts, and how they
// weigh, is either given, or routed. Every expert has at most one row of a token.
struct FeedForward {
  size_t count = 0, hidden = 0;
  const void* x = nullptr;  // [count, hidden]
  bool half = false;        // x and y are float16, not float32
  const float* norm = nullptr;  // [hidden]
  float eps = 0;
  bool residual = false;
  bool scarce = false;  // memory may lack experts, which are then counted, and read before they are touched

  size_t experts = 0;
  Matrix experts_gate_up, experts_down;  // those of the first expert; the others follow
  bool routed = false;
  Router router{};
  const bool* mask = nullptr;  // [count]: which tokens are routed; null: all
  Choices choices{};  // where they are not routed

  bool has_mlp = false;
  Matrix gate_up, down;
  const float* gate_up_bias = nullptr;  // [I, 2]
  const float* down_bias = nullptr;     // [hidden]

  void run(const Context& context, const Kernels& kernels, void* y) const;
};

}  // namespace ernie_rt
