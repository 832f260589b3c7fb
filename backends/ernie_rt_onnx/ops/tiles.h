// Weights in tiles, as the inputs of a node.

#pragma once

#include "op.h"

namespace ernie_rt {

// The weight that codes [.., 16 * columns * bits / 8] and scales [.., 16 * columns / block] are, of `outer` dims before
// the last one. Fails where the two do not belong together, or are not of this many columns.
Tiles tiles_of(const Tensor& codes, const Tensor& scales, const Dims& outer, size_t columns);

// What comes before a matrix: rms_norm by these weights; with null nothing.
struct Norm {
  const float* weight = nullptr;  // [columns]
  float eps = 0;
};

// Rows of x [count, columns], normed and then rounded in blocks as a weight's, in memory of `scratch`.
Rows rounded(const Context& context, const Kernels& kernels, Scratch& scratch, const float* x, size_t count,
             size_t columns, size_t block, Norm norm);

// Room for the same.
Rows room_for(Scratch& scratch, size_t count, size_t columns, size_t block);

// Where work on a weight is divided: into jobs of about so many bytes of it each.
constexpr size_t JOB_BYTES = 128 * 1024;

constexpr size_t LARGEST_BLOCK = 128;

// Rows of activations that are multiplied by two tiles before the next two are.
constexpr size_t BATCH = 48;

inline size_t ceil_div(size_t a, size_t b) { return (a + b - 1) / b; }

// The numbers 0 to BATCH - 1 from `first` on.
struct Sequence {
  uint32_t index[BATCH];
  explicit Sequence(size_t first) {
    for (size_t i = 0; i < BATCH; i++) index[i] = static_cast<uint32_t>(first + i);
  }
};

}  // namespace ernie_rt
