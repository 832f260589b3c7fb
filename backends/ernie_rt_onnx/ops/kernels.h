// What the operators are made of, once for each kind of processor.

#pragma once

#include <cstddef>
#include <cstdint>

namespace ernie_rt {

constexpr size_t TILE = 16;  // rows of a weight that lie together
constexpr size_t STEP = 32;  // numbers of a row that a dot product takes at once; blocks are multiples of it

// A weight of integers in blocks, its rows in tiles (ernie_rt/storage/block_quantized.py, layout "tiled").
struct Tiles {
  const uint8_t* codes;    // [tiles, 16 * columns * bits / 8]
  const uint16_t* scales;  // [tiles, columns / block, 16], float16
  size_t tiles;
  size_t columns;
  int bits;  // 4 or 8
  size_t block;

  size_t tile_bytes() const { return TILE * columns * bits / 8; }
  Tiles part(size_t first, size_t count) const {
    return {codes + first * tile_bytes(), scales + first * TILE * (columns / block), count, columns, bits, block};
  }
};

// Rows of float32, `stride` numbers from one to the next.
struct FloatRows {
  const float* numbers;
  size_t stride;
  size_t columns;
};

// Rows of activations, rounded to int8 in blocks: number = code * scale.
struct Rows {
  int8_t* codes;   // [rows, columns]
  float* scales;   // [rows, columns / block]
  int32_t* sums;   // [rows, columns / block], of the codes
  size_t columns;
  size_t block;
};

// The number that float16 bits stand for.
inline float float_of_half(uint16_t x) {
  const uint32_t sign = static_cast<uint32_t>(x & 0x8000) << 16, rest = x & 0x7fff;
  uint32_t bits;
  float number;
  if (rest >= 0x7c00) {  // infinite, or NaN
    bits = sign | 0x7f800000 | (rest & 0x3ff) << 13;
  } else {
    bits = rest << 13;  // off by 2^112 as it stands, subnormal numbers too
    __builtin_memcpy(&number, &bits, 4);
    number *= 0x1p112f;
    __builtin_memcpy(&bits, &number, 4);
    bits |= sign;
  }
  __builtin_memcpy(&number, &bits, 4);
  return number;
}

// The nearest float16, halves to the even one.
inline uint16_t half_of_float(float x) {
  uint32_t bits;
  __builtin_memcpy(&bits, &x, 4);
  const uint32_t sign = bits >> 16 & 0x8000, rest = bits & 0x7fffffff;
  if (rest > 0x7f800000) return static_cast<uint16_t>(sign | 0x7e00);  // NaN
  if (rest >= 0x477ff000) return static_cast<uint16_t>(sign | 0x7c00);  // what rounds to more than the largest
  if (rest < 0x38800000) {  // subnormal: adding 1/2 leaves places down to 2^-24
    float size;
    __builtin_memcpy(&size, &rest, 4);
    size += 0.5f;
    __builtin_memcpy(&bits, &size, 4);
    return static_cast<uint16_t>(sign | (bits - 0x3f000000));
  }
  return static_cast<uint16_t>(sign | (rest - 0x38000000 + 0xfff + (rest >> 13 & 1)) >> 13);
}

// The kernels of one kind of processor.
struct Kernels {
  const char* name;
  // Rounds `count` blocks that follow one another, to nearest: the largest number of a block becomes 127 or -127.
  void (*quantize)(const float* x, size_t count, size_t block, int8_t* codes, float* scales, int32_t* sums);
  // out[t, i, r] = row r of tile t * row index[i] of x, of a weight of one tile or two; `out` is [tiles, count, 16].
  void (*multiply)(const Tiles& weight, const Rows& x, const uint32_t* index, size_t count, float* out);
  // y = x / sqrt(mean(x^2) + eps) * weight
  void (*rms_norm)(const float* x, const float* weight, float eps, size_t size, float* y);
  // out[i] = gate[i] / (1 + exp(-gate[i])) * up[i]; `size` is a multiple of 16.
  void (*swiglu)(const float* gate, const float* up, size_t size, float* out);
  float (*dot)(const float* x, const float* y, size_t size);
  // y += factor * x; `size` is a multiple of 16.
  void (*add)(const float* x, float factor, size_t size, float* y);
  // Attention of `count` queries, scaled already, to the keys from `first` up to `last`, of which query m sees those
  // before visible[m]: adds exp(q . k - largest[m]) * v to sums[m], and the first factor to totals[m], where largest[m]
  // is raised to what it has seen. Queries, keys, values and sums have rows of `size`, a multiple of 16.
  void (*attend)(const float* queries, const uint32_t* visible, size_t count, const float* keys, const float* values,
                 size_t size, size_t first, size_t last, float* sums, float* largest, float* totals);

  // For weights that lie row by row. Of 16 rows, `stride` apart, word i (of 4 bytes), or number i (of float16), of each
  // is brought together: out[i, r]. What lies `ahead` bytes on is fetched meanwhile.
  void (*tile_words)(const uint8_t* rows, size_t stride, size_t count, ptrdiff_t ahead, uint8_t* out);
  void (*tile_halves)(const uint16_t* rows, size_t stride, size_t count, ptrdiff_t ahead, uint16_t* out);
  // Of every 8 codes those in even places first: as words of int4 codes in the raw layout meet them.
  void (*evens_first)(int8_t* codes, size_t count);
  // The numbers of a row of codes of 4 or 8 bits in the raw layout.
  void (*dequantize)(const uint8_t* codes, const uint16_t* scales, size_t columns, int bits, size_t block, float* out);
  // The numbers of `count` float16.
  void (*widen)(const uint16_t* halves, size_t count, float* out);
  // out[i, r] = row r of the weight, which has 1 to 16, * row index[i] of x; `out` is [count, 16], what is no row's any
  // number.
  void (*multiply_floats)(const FloatRows& weight, size_t rows, const FloatRows& x, const uint32_t* index, size_t count,
                          float* out);
};

// Null where the processor lacks the instructions, or the compiler did when this was built.
const Kernels* avx512_kernels();   // AVX-512 with VNNI
const Kernels* avxvnni_kernels();  // AVX2 with VNNI
const Kernels* avx2_kernels();
const Kernels* neon_kernels();  // ARM's, with dot products of bytes
const Kernels* plain_kernels();  // never null

// The best ones, or those that the environment variable ERNIE_RT_KERNELS names; null for a name of none.
const Kernels* choose_kernels();

}  // namespace ernie_rt
