// AVX2 with VNNI: 16 rows are two registers.

#include "instructions.h"
#include "kernels.h"
#include "processor.h"

#if defined(__x86_64__) && (defined(__clang__) || __GNUC__ >= 11)

#include <immintrin.h>

INSTRUCTIONS("avxvnni,avx2,fma,f16c")

namespace ernie_rt {
namespace {

#include "ymm.inc"

inline void accumulate(IntPart& sum, __m256i codes, __m256i row) {
  sum = (IntPart)_mm256_dpbusd_avx_epi32((__m256i)sum, codes, row);
}

constexpr int32_t OFFSET8 = 128;
constexpr int GROUP = 4;
constexpr size_t AHEAD = 2048;  // bytes

template <int T, int M>
inline void dots4(const uint8_t* codes, size_t stride, const int8_t* const* rows, Ints (&sums)[T][M]) {
  const __m256i mask = _mm256_set1_epi8(15);
  UNROLL for (int t = 0; t < T; t++) {
    UNROLL for (int c = 0; c < 4; c++) {
      UNROLL for (int half = 0; half < 2; half++) {
        const __m256i pair = line(codes + t * stride + 64 * c + 32 * half);
        const __m256i a = _mm256_and_si256(pair, mask), b = _mm256_and_si256(_mm256_srli_epi16(pair, 4), mask);
        UNROLL for (int m = 0; m < M; m++) {
          accumulate(sums[t][m].part[half], a, four(rows[m] + 8 * c));
          accumulate(sums[t][m].part[half], b, four(rows[m] + 8 * c + 4));
        }
      }
    }
  }
}

template <int T, int M>
inline void dots8(const uint8_t* codes, size_t stride, const int8_t* const* rows, Ints (&sums)[T][M]) {
  UNROLL for (int t = 0; t < T; t++) {
    UNROLL for (int c = 0; c < 8; c++) {
      UNROLL for (int half = 0; half < 2; half++) {
        const __m256i a = line(codes + t * stride + 64 * c + 32 * half);
        UNROLL for (int m = 0; m < M; m++) accumulate(sums[t][m].part[half], a, four(rows[m] + 4 * c));
      }
    }
  }
}

#include "kernels.inc"

}  // namespace

INSTRUCTIONS_END

const Kernels* avxvnni_kernels() {
  static constexpr Kernels found = kernels("avxvnni");
  return processor().avxvnni ? &found : nullptr;
}

}  // namespace ernie_rt

#else

const ernie_rt::Kernels* ernie_rt::avxvnni_kernels() { return nullptr; }

#endif
