// ARM's NEON with dot products of bytes: 16 rows are four registers.

#include "instructions.h"
#include "kernels.h"
#include "processor.h"

#if defined(__aarch64__)

#include <arm_neon.h>

INSTRUCTIONS("arch=armv8.2-a+dotprod")

namespace ernie_rt {
namespace {

#define WIDTH_LANES 4
#include "vectors.inc"

constexpr int32_t OFFSET8 = 0;  // the zero of 128 is taken off before the products, which are of signed bytes
constexpr int GROUP = 4;        // so many rows' sums of a tile are sixteen registers
constexpr size_t AHEAD = 2048;  // bytes

inline Floats halves(const uint16_t* x) {
  Floats v;
  UNROLL for (int p = 0; p < PARTS; p++) {
    v.part[p] = vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(x + 4 * p)));
  }
  return v;
}

// Eight numbers of each of four rows: the first four of each, and the second four.
template <int BITS>
inline int8x16x2_t eight(const uint8_t* codes) {
  const uint8x16_t line = vld1q_u8(codes);
  uint8x16_t a, b;
  if constexpr (BITS == 4) {
    a = vandq_u8(line, vdupq_n_u8(15));
    b = vshrq_n_u8(line, 4);
  } else {
    a = veorq_u8(line, vdupq_n_u8(128));
    b = veorq_u8(vld1q_u8(codes + 64), vdupq_n_u8(128));
  }
  return {{vreinterpretq_s8_u8(a), vreinterpretq_s8_u8(b)}};
}

template <int BITS, int T, int M>
inline void dots(const uint8_t* codes, size_t stride, const int8_t* const* rows, Ints (&sums)[T][M]) {
  UNROLL for (int t = 0; t < T; t++) {
    UNROLL for (int p = 0; p < PARTS; p++) {
      UNROLL for (int c = 0; c < 4; c++) {
        const int8x16x2_t numbers = eight<BITS>(codes + t * stride + 16 * BITS * c + 16 * p);
        UNROLL for (int m = 0; m < M; m++) {
          const int8x8_t x = vld1_s8(rows[m] + 8 * c);
          int32x4_t sum = (int32x4_t)sums[t][m].part[p];
          sum = vdotq_lane_s32(sum, numbers.val[0], x, 0);
          sum = vdotq_lane_s32(sum, numbers.val[1], x, 1);
          sums[t][m].part[p] = (IntPart)sum;
        }
      }
    }
  }
}

template <int T, int M>
inline void dots4(const uint8_t* codes, size_t stride, const int8_t* const* rows, Ints (&sums)[T][M]) {
  dots<4>(codes, stride, rows, sums);
}

template <int T, int M>
inline void dots8(const uint8_t* codes, size_t stride, const int8_t* const* rows, Ints (&sums)[T][M]) {
  dots<8>(codes, stride, rows, sums);
}

#include "kernels.inc"

}  // namespace

INSTRUCTIONS_END

const Kernels* neon_kernels() {
  static constexpr Kernels found = kernels("neon");
  return processor().dotprod ? &found : nullptr;
}

}  // namespace ernie_rt

#else

const ernie_rt::Kernels* ernie_rt::neon_kernels() { return nullptr; }

#endif
