// AVX-512 with VNNI: 16 rows are one register.

#include "instructions.h"
#include "kernels.h"
#include "processor.h"

#if defined(__x86_64__)

#include <immintrin.h>

#if !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // in GCC's own header
#endif
INSTRUCTIONS("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")

namespace ernie_rt {
namespace {

#define WIDTH_LANES 16
#include "vectors.inc"

constexpr int32_t OFFSET8 = 128;
constexpr int GROUP = 6;
constexpr size_t AHEAD = 4608;  // bytes

inline Floats halves(const uint16_t* x) {
  return {{_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(x)))}};
}

inline __m512i four(const int8_t* x) {
  int32_t bytes;
  __builtin_memcpy(&bytes, x, 4);
  return _mm512_set1_epi32(bytes);
}

inline Ints accumulate(Ints sum, __m512i codes, __m512i row) {
  return {{(IntPart)_mm512_dpbusd_epi32((__m512i)sum.part[0], codes, row)}};
}

template <int T, int M>
inline void dots4(const uint8_t* codes, size_t stride, const int8_t* const* rows, Ints (&sums)[T][M]) {
  const __m512i mask = _mm512_set1_epi8(15);
  constexpr bool two_chains = T * M < 4;  // where few sums would leave the unit waiting
  Ints high[T][M] = {};
  UNROLL for (int c = 0; c < 4; c++) {
    __m512i low_codes[T], high_codes[T];
    UNROLL for (int t = 0; t < T; t++) {
      const __m512i pair = _mm512_loadu_si512(codes + t * stride + 64 * c);
      low_codes[t] = _mm512_and_si512(pair, mask);
      high_codes[t] = _mm512_and_si512(_mm512_srli_epi16(pair, 4), mask);
    }
    UNROLL for (int m = 0; m < M; m++) {
      const __m512i a = four(rows[m] + 8 * c), b = four(rows[m] + 8 * c + 4);
      UNROLL for (int t = 0; t < T; t++) {
        sums[t][m] = accumulate(sums[t][m], low_codes[t], a);
        Ints& other = two_chains ? high[t][m] : sums[t][m];
        other = accumulate(other, high_codes[t], b);
      }
    }
  }
  if constexpr (two_chains) {
    UNROLL for (int t = 0; t < T; t++) {
      UNROLL for (int m = 0; m < M; m++) sums[t][m] = sums[t][m] + high[t][m];
    }
  }
}

template <int T, int M>
inline void dots8(const uint8_t* codes, size_t stride, const int8_t* const* rows, Ints (&sums)[T][M]) {
  UNROLL for (int c = 0; c < 8; c++) {
    __m512i numbers[T];
    UNROLL for (int t = 0; t < T; t++) numbers[t] = _mm512_loadu_si512(codes + t * stride + 64 * c);
    UNROLL for (int m = 0; m < M; m++) {
      const __m512i a = four(rows[m] + 4 * c);
      UNROLL for (int t = 0; t < T; t++) sums[t][m] = accumulate(sums[t][m], numbers[t], a);
    }
  }
}

#include "kernels.inc"

}  // namespace

INSTRUCTIONS_END

const Kernels* avx512_kernels() {
  static constexpr Kernels found = kernels("avx512");
  return processor().avx512 ? &found : nullptr;
}

}  // namespace ernie_rt

#else

const ernie_rt::Kernels* ernie_rt::avx512_kernels() { return nullptr; }

#endif
