#pragma once

#include "tiles.h"

namespace ernie_rt {

// y [N, rows] = rms_norm(x [N, K]) @ weight^T + bias + residual, of a weight in tiles, without a norm where none is given;
// of gate and up in turn y is [N, rows, 2].
class TiledLinear {
 public:
  static constexpr const char* NAME = "TiledLinear";
  static constexpr ort::ElementType OUTPUTS[] = {ort::FLOAT};
  static constexpr Input INPUTS[] = {
      {"x", ort::FLOAT},          {"codes", ort::UINT8},     {"scales", ort::FLOAT16},
      {"bias", ort::FLOAT, true}, {"norm", ort::FLOAT, true}, {"residual", ort::FLOAT, true},
  };

  explicit TiledLinear(const Attributes& attributes);
  void compute(const Context& context, const Kernels& kernels) const;

 private:
  int64_t rows_;
  float eps_;
};

// y [N, columns]: the rows `ids` of a weight in tiles.
class TiledRows {
 public:
  static constexpr const char* NAME = "TiledRows";
  static constexpr ort::ElementType OUTPUTS[] = {ort::FLOAT};
  static constexpr Input INPUTS[] = {{"codes", ort::UINT8}, {"scales", ort::FLOAT16}, {"ids", ort::INT32}};

  explicit TiledRows(const Attributes& attributes);
  void compute(const Context& context, const Kernels& kernels) const;

 private:
  int64_t rows_, columns_;
};

}  // namespace ernie_rt
