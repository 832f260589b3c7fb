// AVX2 without VNNI: 16 rows are two registers. Products of bytes are summed in 16 bits, by pairs.

#include "instructions.h"
#include "kernels.h"
#include "processor.h"

#if defined(__x86_64__)

#include <immintrin.h>

INSTRUCTIONS("avx2,fma,f16c")

namespace ernie_rt {
namespace {

#include "ymm.inc"

constexpr int32_t OFFSET8 = 0;  // the zero of 128 is taken off before the products, or they would not fit 16 bits
constexpr int GROUP = 4;
constexpr size_t AHEAD = 2048;  // bytes

// The same pointer, which the compiler takes for another one: activations are to be read again for the next tile, not
// kept, since there are more of them than registers.
inline const int8_t* again(const int8_t* x) {
  asm volatile("" : "+r"(x));
  return x;
}

// A product is at most 2 * 15 * 127 = 3810, and eight of them fit 16 bits.
template <int T, int M>
inline void dots4(const uint8_t* codes, size_t stride, const int8_t* const* rows, Ints (&sums)[T][M]) {
  const __m256i mask = _mm256_set1_epi8(15), ones = _mm256_set1_epi16(1);
  UNROLL for (int t = 0; t < T; t++) {
    UNROLL for (int half = 0; half < 2; half++) {
      __m256i narrow[M] = {};
      const int8_t* row[M];
      UNROLL for (int m = 0; m < M; m++) row[m] = again(rows[m]);
      UNROLL for (int c = 0; c < 4; c++) {
        const __m256i pair = line(codes + t * stride + 64 * c + 32 * half);
        const __m256i a = _mm256_and_si256(pair, mask), b = _mm256_and_si256(_mm256_srli_epi16(pair, 4), mask);
        UNROLL for (int m = 0; m < M; m++) {
          narrow[m] = _mm256_add_epi16(narrow[m], _mm256_maddubs_epi16(a, four(row[m] + 8 * c)));
          narrow[m] = _mm256_add_epi16(narrow[m], _mm256_maddubs_epi16(b, four(row[m] + 8 * c + 4)));
        }
      }
      UNROLL for (int m = 0; m < M; m++) sums[t][m].part[half] += (IntPart)_mm256_madd_epi16(narrow[m], ones);
    }
  }
}

// |code| times the activation with the code's sign: at most 2 * 128 * 127, which fits 16 bits once.
template <int T, int M>
inline void dots8(const uint8_t* codes, size_t stride, const int8_t* const* rows, Ints (&sums)[T][M]) {
  const __m256i zero = _mm256_set1_epi8(-128), ones = _mm256_set1_epi16(1);
  UNROLL for (int t = 0; t < T; t++) {
    UNROLL for (int half = 0; half < 2; half++) {
      const int8_t* row[M];
      UNROLL for (int m = 0; m < M; m++) row[m] = again(rows[m]);
      UNROLL for (int c = 0; c < 8; c++) {
        const __m256i number = _mm256_xor_si256(line(codes + t * stride + 64 * c + 32 * half), zero);
        const __m256i size = _mm256_abs_epi8(number);
        UNROLL for (int m = 0; m < M; m++) {
          const __m256i product = _mm256_maddubs_epi16(size, _mm256_sign_epi8(four(row[m] + 4 * c), number));
          sums[t][m].part[half] += (IntPart)_mm256_madd_epi16(product, ones);
        }
      }
    }
  }
}

#include "kernels.inc"

}  // namespace

INSTRUCTIONS_END

const Kernels* avx2_kernels() {
  static constexpr Kernels found = kernels("avx2");
  return processor().avx2 ? &found : nullptr;
}

}  // namespace ernie_rt

#else

const ernie_rt::Kernels* ernie_rt::avx2_kernels() { return nullptr; }

#endif
