// AVX-512 with VNNI: 16 rows are one register.

#include "kernels.h"

#if defined(__x86_64__)

#include <immintrin.h>

#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // in GCC's own header
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")

namespace ernie_rt {
namespace {

#define WIDTH_LANES 16
#include "vectors.inc"

constexpr int32_t OFFSET8 = 128;
constexpr int GROUP = 8;
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

template <int M>
inline void dots4(const uint8_t* codes, const int8_t* const* rows, Ints* sums) {
  const __m512i mask = _mm512_set1_epi8(15);
  Ints high[M] = {};
#pragma GCC unroll 4
  for (int c = 0; c < 4; c++) {
    const __m512i pair = _mm512_loadu_si512(codes + 64 * c);
    const __m512i a = _mm512_and_si512(pair, mask), b = _mm512_and_si512(_mm512_srli_epi16(pair, 4), mask);
#pragma GCC unroll 8
    for (int m = 0; m < M; m++) {
      sums[m] = accumulate(sums[m], a, four(rows[m] + 8 * c));
      if constexpr (M < 4) {  // two chains, where few rows leave the unit waiting
        high[m] = accumulate(high[m], b, four(rows[m] + 8 * c + 4));
      } else {
        sums[m] = accumulate(sums[m], b, four(rows[m] + 8 * c + 4));
      }
    }
  }
  if constexpr (M < 4) {
    for (int m = 0; m < M; m++) sums[m] = sums[m] + high[m];
  }
}

template <int M>
inline void dots8(const uint8_t* codes, const int8_t* const* rows, Ints* sums) {
#pragma GCC unroll 8
  for (int c = 0; c < 8; c++) {
    const __m512i a = _mm512_loadu_si512(codes + 64 * c);
#pragma GCC unroll 8
    for (int m = 0; m < M; m++) sums[m] = accumulate(sums[m], a, four(rows[m] + 4 * c));
  }
}

#include "kernels.inc"

}  // namespace

const Kernels* avx512_kernels() {
  static constexpr Kernels found = kernels("avx512");
  const bool has = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                   __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
                   __builtin_cpu_supports("avx512vnni");
  return has ? &found : nullptr;
}

}  // namespace ernie_rt

#else

const ernie_rt::Kernels* ernie_rt::avx512_kernels() { return nullptr; }

#endif
