// Plain C++: what every processor can, and what the other kernels mean.

#include <cstdlib>
#include <cstring>

#include "kernels.h"

namespace ernie_rt {
namespace {

#define WIDTH_LANES 4
#include "vectors.inc"

constexpr int32_t OFFSET8 = 128;
constexpr int GROUP = 4;
constexpr size_t AHEAD = 1024;  // bytes

inline Floats halves(const uint16_t* x) {
  Floats v;
  for (int i = 0; i < 16; i++) v.part[i / WIDTH][i % WIDTH] = float_of_half(x[i]);
  return v;
}

template <int T, int M>
inline void dots4(const uint8_t* codes, size_t stride, const int8_t* const* rows, Ints (&sums)[T][M]) {
  for (int t = 0; t < T; t++, codes += stride) {
    for (int m = 0; m < M; m++) {
      for (int c = 0; c < 4; c++) {
        for (int r = 0; r < 16; r++) {
          int32_t sum = 0;
          for (int j = 0; j < 4; j++) {
            const uint8_t pair = codes[64 * c + 4 * r + j];
            sum += (pair & 15) * rows[m][8 * c + j] + (pair >> 4) * rows[m][8 * c + 4 + j];
          }
          sums[t][m].part[r / WIDTH][r % WIDTH] += sum;
        }
      }
    }
  }
}

template <int T, int M>
inline void dots8(const uint8_t* codes, size_t stride, const int8_t* const* rows, Ints (&sums)[T][M]) {
  for (int t = 0; t < T; t++, codes += stride) {
    for (int m = 0; m < M; m++) {
      for (int c = 0; c < 8; c++) {
        for (int r = 0; r < 16; r++) {
          int32_t sum = 0;
          for (int j = 0; j < 4; j++) sum += codes[64 * c + 4 * r + j] * rows[m][4 * c + j];
          sums[t][m].part[r / WIDTH][r % WIDTH] += sum;
        }
      }
    }
  }
}

#include "kernels.inc"

}  // namespace

const Kernels* plain_kernels() {
  static constexpr Kernels found = kernels("plain");
  return &found;
}

const Kernels* choose_kernels() {
  const char* wanted = std::getenv("ERNIE_RT_KERNELS");
  using Offer = const Kernels* (*)();
  constexpr Offer offers[] = {avx512_kernels, avxvnni_kernels, avx2_kernels, neon_kernels, plain_kernels};
  for (const Offer offer : offers) {
    const Kernels* found = offer();
    if (found != nullptr && (wanted == nullptr || *wanted == '\0' || std::strcmp(wanted, found->name) == 0)) return found;
  }
  return nullptr;
}

}  // namespace ernie_rt
