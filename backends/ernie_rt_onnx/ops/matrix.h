// Weights in each of the ways in which a node may hand them over, and activations as these take them.

#pragma once

#include "tiles.h"

namespace ernie_rt {

// Rows of activations: rounded to int8 in the blocks of the weight that they meet, or float32.
class Activations {
 public:
  enum Form {
    ROUNDED,
    ROUNDED_EVENS_FIRST,  // of every 8, as int4 codes in the raw layout have them
    FLOATS,
  };

  Activations() = default;
  Activations(Form form, size_t columns, size_t block) : form_(form), columns_(columns), block_(block) {}

  // How many numbers of a row are put at once, or a multiple of it.
  size_t step() const { return form_ == FLOATS ? TILE : block_; }
  // The same kind, with memory for so many rows.
  Activations with_room(Scratch& scratch, size_t rows) const;
  // Puts numbers into a row, from a column on.
  void put(const Kernels& kernels, size_t row, size_t column, const float* numbers, size_t count) const;

  const Rows& rounded() const { return rounded_; }
  const FloatRows& floats() const { return floats_; }

 private:
  Form form_ = FLOATS;
  size_t columns_ = 0, block_ = 0;
  Rows rounded_{};
  FloatRows floats_{};
  float* room_ = nullptr;
};

// A weight [rows, columns], of which 16 rows at a time meet activations; or gate and up in turn, whose even rows are
// gate's: there tiles 2i and 2i + 1 are 16 rows of gate and the same of up.
struct Matrix {
  enum Form {
    TILES,   // codes and scales in the layout "tiled"
    CODES,   // codes and scales in the layout "raw" (ernie_rt/storage/block_quantized.py)
    FLOATS,  // float32
    HALVES,  // float16
  };

  Form form = FLOATS;
  const void* numbers = nullptr;
  const uint16_t* scales = nullptr;
  size_t rows = 0, columns = 0;
  int bits = 0;
  size_t block = 0;
  bool paired = false;
  bool exact = false;  // codes meet float32 activations, not rounded ones

  size_t tiles() const { return paired ? 2 * ceil_div(rows / 2, TILE) : ceil_div(rows, TILE); }
  size_t row_bytes() const;
  size_t tile_bytes() const { return TILE * row_bytes(); }
  // The matrix `index` of several that lie one after another.
  Matrix nth(size_t index) const;
  // How many bytes on another one lies.
  ptrdiff_t distance_to(const Matrix& other) const {
    return reinterpret_cast<intptr_t>(other.numbers) - reinterpret_cast<intptr_t>(numbers);
  }
  // The kind of activations that it takes.
  Activations takes() const;
  // out[t, i, r] = row r of tile `first` + t * row index[i] of x, for 1 or 2 tiles. Where rows have to be brought
  // together first, what lies `ahead` bytes on is fetched meanwhile.
  void multiply(const Kernels& kernels, size_t first, size_t count_tiles, const Activations& x, const uint32_t* index,
                size_t count, ptrdiff_t ahead, float* out) const;

 private:
  void multiply_codes(const Kernels& kernels, size_t first, size_t count_tiles, const Rows& x, const uint32_t* index,
                      size_t count, ptrdiff_t ahead, float* out) const;
  void multiply_numbers(const Kernels& kernels, size_t tile, const FloatRows& x, const uint32_t* index, size_t count,
                        float* out) const;
  size_t first_row(size_t tile) const { return paired ? tile / 2 * 2 * TILE + tile % 2 : tile * TILE; }
  size_t apart() const { return paired ? 2 : 1; }
};

}  // namespace ernie_rt
