// Which experts a token goes to, and which tokens an expert gets.

#pragma once

#include "op.h"

namespace ernie_rt {

// probabilities = softmax(x @ rows^T); the `top_k` experts with the largest of probabilities + bias (of equal ones the
// lowest id) weigh probabilities / max(their sum, norm_min).
struct Router {
  const float* rows;  // [experts, hidden]
  const float* bias;  // [experts], or null
  size_t experts, hidden, top_k;
  float norm_min;

  // The choice for a token x [hidden]; `scratch` has room for 2 * experts.
  void choose(const Kernels& kernels, const float* x, float* scratch, int32_t* ids, float* weights) const;
};

// The router that the inputs of a node say; fails where they are none of so many experts.
Router router_of(const Tensor& rows, const Tensor& bias, int64_t experts, int64_t hidden, int64_t top_k,
                 float norm_min);

// The experts of each token.
struct Choices {
  const int32_t* ids;    // [count, each]; -1 is none
  const float* weights;  // the same
  size_t count, each;
};

// The tokens of each expert side by side: those of expert e are tokens[starts[e]] to tokens[starts[e + 1] - 1].
struct Groups {
  std::vector<size_t> starts;
  const uint32_t* tokens;
  const float* weights;
};

Groups grouped(const Choices& choices, size_t experts, Scratch& scratch);

}  // namespace ernie_rt
