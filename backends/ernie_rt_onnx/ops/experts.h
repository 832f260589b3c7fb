// Experts as exported models have them: in place of the functions MoE and QMoE (ernie_rt_onnx/functions.py), of which
// they take the same inputs and attributes. Each has a version for x in float32 and one for float16.

#pragma once

#include "feed_forward.h"

namespace ernie_rt {

// Experts in x's dtype: gate_up [E, 2I, H], gate and up in turn, down [E, H, I].
template <ort::ElementType T>
class MoE {
 public:
  static constexpr const char* NAME = "MoE";
  static constexpr ort::ElementType OUTPUTS[] = {T};  // y [N, H]
  static constexpr Input INPUTS[] = {
      {"x", T},                               // [N, H]
      {"router", ort::FLOAT},                 // [E, H]
      {"correction_bias", ort::FLOAT, true},  // [E]
      {"gate_up", T},
      {"down", T},
  };

  explicit MoE(const Attributes& attributes) : top_k_(attributes.integer("top_k")) {}
  void compute(const Context& context, const Kernels& kernels) const;

 private:
  int64_t top_k_;
};

// Experts in blocks of integers, in the layout "raw": codes [E, 2I, H * bits / 8] and [E, H, I * bits / 8], scales
// [E, 2I, H / block_size] and [E, H, I / block_size]. At accuracy level 4 they meet activations rounded to int8 in the
// same blocks, at level 0 float32.
template <ort::ElementType T>
class QMoE {
 public:
  static constexpr const char* NAME = "QMoE";
  static constexpr ort::ElementType OUTPUTS[] = {T};
  static constexpr Input INPUTS[] = {
      {"x", T},
      {"router", ort::FLOAT},
      {"correction_bias", ort::FLOAT, true},
      {"gate_up", ort::UINT8},
      {"gate_up_scales", ort::FLOAT16},
      {"down", ort::UINT8},
      {"down_scales", ort::FLOAT16},
  };

  explicit QMoE(const Attributes& attributes);
  void compute(const Context& context, const Kernels& kernels) const;

 private:
  int64_t top_k_, bits_, block_;
  bool exact_;
};

}  // namespace ernie_rt
