#pragma once

#include "tiles.h"

namespace ernie_rt {

// Attention of new tokens to a cache that it writes, queries and keys rotated by adjacent pairs:
// by the row of a table that a token's place is, or by a row of its own.
//
// Of B sequences each brings S = N / B tokens, the last of them in the place last[b] of its context; a row of the cache
// holds what lies before. Query heads q * Q / K to (q + 1) * Q / K - 1 read key head q. A token sees itself and what lies
// before it. The caches that come out are those that go in, with the new rows; given the same memory, they stay there.
class RopeAttention {
 public:
  static constexpr const char* NAME = "RopeAttention";
  static constexpr ort::ElementType OUTPUTS[] = {ort::FLOAT, ort::FLOAT, ort::FLOAT};  // y [N, Q * D], and both caches
  static constexpr Input INPUTS[] = {
      {"qkv", ort::FLOAT},         // [N, (Q + 2 K) * D]
      {"cos", ort::FLOAT, true},   // [P, D / 2]
      {"sin", ort::FLOAT, true},
      {"past_key", ort::FLOAT},    // [B, K, R, D]
      {"past_value", ort::FLOAT},
      {"last", ort::INT32},        // [B]
      {"token_cos", ort::FLOAT, true},  // [N, D / 2], in place of tables: a row for each token
      {"token_sin", ort::FLOAT, true},
  };

  explicit RopeAttention(const Attributes& attributes);
  void compute(const Context& context, const Kernels& kernels) const;

 private:
  int64_t heads_, kv_heads_;
  float scale_;
};

}  // namespace ernie_rt
