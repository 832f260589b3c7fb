#include "routing.h"

#include <algorithm>
#include <cmath>

namespace ernie_rt {

void Router::choose(const Kernels& kernels, const float* x, float* scratch, int32_t* ids, float* weights) const {
  float* logits = scratch;
  float* scores = scratch + experts;
  float largest = -INFINITY, total = 0;
  for (size_t e = 0; e < experts; e++) {
    logits[e] = kernels.dot(x, rows + e * hidden, hidden);
    largest = std::max(largest, logits[e]);
  }
  for (size_t e = 0; e < experts; e++) total += scores[e] = std::exp(logits[e] - largest);
  for (size_t e = 0; e < experts; e++) scores[e] = scores[e] / total + (bias != nullptr ? bias[e] : 0.f);
  float highest = -INFINITY;
  for (size_t a = 0; a < top_k; a++) {
    size_t best = 0;
    for (size_t e = 1; e < experts; e++) {
      if (scores[e] > scores[best]) best = e;
    }
    ids[a] = static_cast<int32_t>(best);
    weights[a] = logits[best];
    highest = std::max(highest, logits[best]);
    scores[best] = -INFINITY;
  }
  // The weights as a softmax of the chosen logits, which holds where their probabilities are too small for a float32.
  float chosen = 0;
  for (size_t a = 0; a < top_k; a++) chosen += weights[a] = std::exp(weights[a] - highest);
  const float unit = std::exp(highest - largest) / total;  // what a weight of 1 is as a probability
  const float factor = chosen * unit >= norm_min ? 1 / chosen : unit / norm_min;
  for (size_t a = 0; a < top_k; a++) weights[a] *= factor;
}

Router router_of(const Tensor& rows, const Tensor& bias, int64_t experts, int64_t hidden, int64_t top_k,
                 float norm_min) {
  rows.expect({experts, hidden});
  bias.expect_optional({experts});
  if (top_k < 1 || top_k > experts) {
    throw Failure{"top_k is " + std::to_string(top_k) + ", expected 1 to " + std::to_string(experts)};
  }
  return {rows.floats(), bias.floats(), static_cast<size_t>(experts), static_cast<size_t>(hidden),
          static_cast<size_t>(top_k), norm_min};
}

Groups grouped(const Choices& choices, size_t experts, Scratch& scratch) {
  const size_t pairs = choices.count * choices.each;
  const int32_t* ids = choices.ids;
  uint32_t* tokens = scratch.take<uint32_t>(pairs);
  float* weights = scratch.take<float>(pairs);
  std::vector<size_t> starts(experts + 1, 0);
  for (size_t i = 0; i < pairs; i++) {
    if (ids[i] >= static_cast<int64_t>(experts)) {
      throw Failure{"ids hold " + std::to_string(ids[i]) + ", expected -1 to " + std::to_string(experts - 1)};
    }
    if (ids[i] >= 0) starts[ids[i] + 1]++;
  }
  for (size_t e = 0; e < experts; e++) starts[e + 1] += starts[e];
  std::vector<size_t> next(starts.begin(), starts.end());
  for (size_t i = 0; i < pairs; i++) {
    if (ids[i] < 0) continue;
    const size_t place = next[ids[i]]++;
    tokens[place] = static_cast<uint32_t>(i / choices.each);
    weights[place] = choices.weights[i];
  }
  return {std::move(starts), tokens, weights};
}

}  // namespace ernie_rt
