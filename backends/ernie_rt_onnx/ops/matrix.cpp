#include "matrix.h"

#include <algorithm>
#include <cstring>

namespace ernie_rt {

Activations Activations::with_room(Scratch& scratch, size_t rows) const {
  Activations made = *this;
  if (form_ == FLOATS) {
    const size_t stride = ceil_div(columns_, TILE) * TILE;
    made.room_ = scratch.take<float>(rows * stride);
    made.floats_ = {made.room_, stride, columns_};
  } else {
    made.rounded_ = room_for(scratch, rows, columns_, block_);
  }
  return made;
}

void Activations::put(const Kernels& kernels, size_t row, size_t column, const float* numbers, size_t count) const {
  if (form_ == FLOATS) {
    std::memcpy(room_ + row * floats_.stride + column, numbers, count * sizeof(float));
    return;
  }
  const size_t block = row * (columns_ / block_) + column / block_;
  int8_t* codes = rounded_.codes + row * columns_ + column;
  kernels.quantize(numbers, count / block_, block_, codes, rounded_.scales + block, rounded_.sums + block);
  if (form_ == ROUNDED_EVENS_FIRST) kernels.evens_first(codes, count);
}

size_t Matrix::row_bytes() const {
  switch (form) {
    case FLOATS: return columns * sizeof(float);
    case HALVES: return columns * sizeof(uint16_t);
    default: return columns * bits / 8;
  }
}

Matrix Matrix::nth(size_t index) const {
  Matrix found = *this;
  found.numbers = static_cast<const uint8_t*>(numbers) + index * rows * row_bytes();
  if (scales != nullptr) found.scales = scales + index * rows * (columns / block);
  return found;
}

Activations Matrix::takes() const {
  const bool floats = form == FLOATS || form == HALVES || exact;
  const Activations::Form rounded =
      form == CODES && bits == 4 ? Activations::ROUNDED_EVENS_FIRST : Activations::ROUNDED;
  return {floats ? Activations::FLOATS : rounded, columns, block};
}

void Matrix::multiply(const Kernels& kernels, size_t first, size_t count_tiles, const Activations& x,
                      const uint32_t* index, size_t count, ptrdiff_t ahead, float* out) const {
  if (form == TILES) {
    const Tiles all{static_cast<const uint8_t*>(numbers), scales, tiles(), columns, bits, block};
    kernels.multiply(all.part(first, count_tiles), x.rounded(), index, count, out);
  } else if (form == CODES && !exact) {
    multiply_codes(kernels, first, count_tiles, x.rounded(), index, count, ahead, out);
  } else {
    for (size_t t = 0; t < count_tiles; t++) {
      multiply_numbers(kernels, first + t, x.floats(), index, count, out + t * count * TILE);
    }
  }
}

// Memory of each thread for rows on their way into the kernels: it stays in the nearest caches.
static Scratch& near_scratch() {
  static thread_local Scratch scratch;
  scratch.restart();
  return scratch;
}

void Matrix::multiply_codes(const Kernels& kernels, size_t first, size_t count_tiles, const Rows& x,
                            const uint32_t* index, size_t count, ptrdiff_t ahead, float* out) const {
  const uint8_t* codes = static_cast<const uint8_t*>(numbers);
  const size_t blocks = columns / block;
  const ptrdiff_t scales_ahead = ahead * 16 / static_cast<ptrdiff_t>(bits * block);
  Scratch& scratch = near_scratch();
  uint8_t* near_codes = scratch.take<uint8_t>(count_tiles * tile_bytes());
  uint16_t* near_scales = scratch.take<uint16_t>(count_tiles * TILE * blocks);
  for (size_t t = 0; t < count_tiles; t++) {
    const size_t row = first_row(first + t);
    kernels.tile_words(codes + row * row_bytes(), apart() * row_bytes(), row_bytes() / 4, ahead,
                       near_codes + t * tile_bytes());
    kernels.tile_halves(scales + row * blocks, apart() * blocks, blocks, scales_ahead, near_scales + t * TILE * blocks);
  }
  kernels.multiply({near_codes, near_scales, count_tiles, columns, bits, block}, x, index, count, out);
}

void Matrix::multiply_numbers(const Kernels& kernels, size_t tile, const FloatRows& x, const uint32_t* index,
                              size_t count, float* out) const {
  const size_t row = first_row(tile), number = std::min(TILE, ceil_div(rows - row, apart()));
  if (form == FLOATS) {
    const FloatRows there{static_cast<const float*>(numbers) + row * columns, apart() * columns, columns};
    kernels.multiply_floats(there, number, x, index, count, out);
    return;
  }
  float* wide = near_scratch().take<float>(number * columns);
  for (size_t r = 0; r < number; r++) {
    const size_t from = row + r * apart();
    if (form == HALVES) {
      kernels.widen(static_cast<const uint16_t*>(numbers) + from * columns, columns, wide + r * columns);
    } else {
      kernels.dequantize(static_cast<const uint8_t*>(numbers) + from * row_bytes(), scales + from * (columns / block),
                         columns, bits, block, wide + r * columns);
    }
  }
  kernels.multiply_floats({wide, columns, columns}, number, x, index, count, out);
}

}  // namespace ernie_rt
