#pragma once

#include "feed_forward.h"

namespace ernie_rt {

// A feed forward of weights in tiles: all of FeedForward. `scarce` may be left out.
class TiledFeedForward {
 public:
  static constexpr const char* NAME = "TiledFeedForward";
  static constexpr ort::ElementType OUTPUTS[] = {ort::FLOAT};  // y [N, H]
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
      {"mask", ort::BOOL, true},                        // [N], beside a router: which tokens it sends to experts
  };

  explicit TiledFeedForward(const Attributes& attributes);
  void compute(const Context& context, const Kernels& kernels) const;

 private:
  int64_t top_k_;
  float norm_min_, eps_;
  bool residual_, scarce_;
};

}  // namespace ernie_rt
