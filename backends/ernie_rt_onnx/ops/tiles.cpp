#include "tiles.h"

#include <algorithm>

namespace ernie_rt {

Tiles tiles_of(const Tensor& codes, const Tensor& scales, const Dims& outer, size_t columns) {
  Dims wanted = outer;
  wanted.push_back(-1);
  codes.expect(wanted);
  scales.expect(wanted);
  const size_t bytes = codes.dims.back(), count = scales.dims.back();
  const int bits = static_cast<int>(columns > 0 ? bytes * 8 / (TILE * columns) : 0);
  const size_t block = count > 0 ? TILE * columns / count : 0;
  const bool fits = (bits == 4 || bits == 8) && bytes == TILE * columns * bits / 8 && block >= STEP &&
                    block <= LARGEST_BLOCK && block % STEP == 0 && count == TILE * columns / block && columns % block == 0;
  if (!fits) {
    throw Failure{std::string(codes.name) + " " + spelled(codes.dims) + " with scales " + spelled(scales.dims) +
                  " is no weight of " + std::to_string(columns) + " columns in tiles of 16 rows"};
  }
  size_t tiles = 1;
  for (size_t i = 0; i < outer.size(); i++) tiles *= codes.dims[i];
  for (size_t i = 0; i < outer.size(); i++) {
    if (codes.dims[i] != scales.dims[i]) throw Failure{std::string(scales.name) + " are of another weight"};
  }
  return {static_cast<const uint8_t*>(codes.data), static_cast<const uint16_t*>(scales.data), tiles, columns, bits,
          block};
}

Rows room_for(Scratch& scratch, size_t count, size_t columns, size_t block) {
  const size_t blocks = count * (columns / block);
  return {scratch.take<int8_t>(count * columns), scratch.take<float>(blocks), scratch.take<int32_t>(blocks), columns,
          block};
}

Rows rounded(const Context& context, const Kernels& kernels, Scratch& scratch, const float* x, size_t count,
             size_t columns, size_t block, Norm norm) {
  const Rows rows = room_for(scratch, count, columns, block);
  float* normed = norm.weight != nullptr ? scratch.take<float>(count * columns) : nullptr;
  const size_t blocks = columns / block;
  constexpr size_t at_once = 8;
  context.parallel(ceil_div(count, at_once), [&](size_t job) {
    const size_t first = job * at_once, number = std::min(at_once, count - first);
    const float* from = x + first * columns;
    if (norm.weight != nullptr) {
      for (size_t i = 0; i < number * columns; i += columns) {
        kernels.rms_norm(from + i, norm.weight, norm.eps, columns, normed + first * columns + i);
      }
      from = normed + first * columns;
    }
    kernels.quantize(from, number * blocks, block, rows.codes + first * columns,
                     rows.scales + first * blocks, rows.sums + first * blocks);
  });
  return rows;
}

}  // namespace ernie_rt
