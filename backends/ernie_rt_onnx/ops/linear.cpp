#include "linear.h"

#include <algorithm>

namespace ernie_rt {

constexpr Input TiledLinear::INPUTS[];
constexpr Input TiledRows::INPUTS[];

TiledLinear::TiledLinear(const Attributes& attributes)
    : rows_(attributes.integer("rows")), eps_(attributes.number("eps")) {
  if (rows_ < 1) throw Failure{"rows is " + std::to_string(rows_) + ", expected 1 or more"};
}

void TiledLinear::compute(const Context& context, const Kernels& kernels) const {
  const Tensor x = context.input(0).expect({-1, -1}), codes = context.input(1), scales = context.input(2);
  const size_t count = x.dims[0], columns = x.dims[1], rows = rows_;
  const bool paired = codes.dims.size() == 3;  // gate and up in turn: of each tile two
  const size_t halves = paired ? 2 : 1;
  Dims outer{static_cast<int64_t>(ceil_div(rows, TILE))};
  if (paired) outer.push_back(2);
  const Tiles weight = tiles_of(codes, scales, outer, columns);
  const Tensor bias = context.input(3).expect_optional(paired ? Dims{rows_, 2} : Dims{rows_});
  const Tensor norm = context.input(4).expect_optional({x.dims[1]});
  Dims dims{x.dims[0], rows_};
  if (paired) dims.push_back(2);
  const float* residual = context.input(5).expect_optional(dims).floats();
  float* y = context.output(dims);
  if (count == 0) return;
  static thread_local Scratch scratch;
  scratch.restart();
  const Rows rounded_x =
      rounded(context, kernels, scratch, x.floats(), count, columns, weight.block, {norm.floats(), eps_});
  const size_t at_once = std::max<size_t>(1, JOB_BYTES / (2 * weight.tile_bytes())) * 2;
  context.parallel(ceil_div(weight.tiles, at_once), [&](size_t job) {
    const size_t first = job * at_once, last = std::min(first + at_once, weight.tiles);
    float out[2 * BATCH * TILE];
    for (size_t start = 0; start < count; start += BATCH) {
      const size_t number = std::min(BATCH, count - start);
      const Sequence batch(start);
      for (size_t tile = first; tile < last; tile += 2) {
        const size_t tiles = std::min<size_t>(2, last - tile);
        kernels.multiply(weight.part(tile, tiles), rounded_x, batch.index, number, out);
        for (size_t t = 0; t < tiles; t++) {
          const size_t row = (tile + t) / halves * TILE, half = (tile + t) % halves, width = std::min(TILE, rows - row);
          const float* offset = bias ? bias.floats() + row * halves + half : nullptr;
          for (size_t i = 0; i < number; i++) {
            const float* from = out + (t * number + i) * TILE;
            const size_t place = ((start + i) * rows + row) * halves + half;
            for (size_t r = 0; r < width; r++) {
              y[place + r * halves] = from[r] + (offset != nullptr ? offset[r * halves] : 0.f) +
                                      (residual != nullptr ? residual[place + r * halves] : 0.f);
            }
          }
        }
      }
    }
  });
}

TiledRows::TiledRows(const Attributes& attributes)
    : rows_(attributes.integer("rows")), columns_(attributes.integer("columns")) {
  if (rows_ < 1 || columns_ < 1) throw Failure{"rows and columns are 1 or more"};
}

void TiledRows::compute(const Context& context, const Kernels&) const {
  const Tensor ids = context.input(2).expect({-1});
  const size_t count = ids.dims[0], columns = columns_;
  const Tiles table = tiles_of(context.input(0), context.input(1), {static_cast<int64_t>(ceil_div(rows_, TILE))}, columns);
  const int32_t* wanted = static_cast<const int32_t*>(ids.data);
  for (size_t i = 0; i < count; i++) {
    if (wanted[i] < 0 || wanted[i] >= rows_) {
      throw Failure{"ids hold " + std::to_string(wanted[i]) + ", expected 0 to " + std::to_string(rows_ - 1)};
    }
  }
  float* y = context.output({ids.dims[0], columns_});
  for (size_t i = 0; i < count; i++) {
    const Tiles tile = table.part(wanted[i] / TILE, 1);
    const size_t row = wanted[i] % TILE;
    for (size_t k = 0; k < columns; k++) {
      int number;
      if (table.bits == 8) {
        number = tile.codes[(k / 4 * TILE + row) * 4 + k % 4] - 128;
      } else {
        const uint8_t pair = tile.codes[(k / 8 * TILE + row) * 4 + k % 4];
        number = (k % 8 < 4 ? pair & 15 : pair >> 4) - 8;
      }
      y[i * columns + k] = static_cast<float>(number) * float_of_half(tile.scales[k / table.block * TILE + row]);
    }
  }
}

}  // namespace ernie_rt
