#include "processor.h"

#include <cstdint>
#include <initializer_list>

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#elif defined(__aarch64__) && defined(__APPLE__)
#include <sys/sysctl.h>
#endif

namespace ernie_rt {
namespace {

#if defined(__x86_64__)

struct Answer {
  uint32_t a = 0, b = 0, c = 0, d = 0;
};

// Zeros where the processor does not know the question.
Answer ask(uint32_t leaf, uint32_t part) {
  Answer found;
  __get_cpuid_count(leaf, part, &found.a, &found.b, &found.c, &found.d);
  return found;
}

bool all(uint32_t word, std::initializer_list<int> bits) {
  for (const int bit : bits) {
    if (!(word >> bit & 1)) return false;
  }
  return true;
}

// The registers that the system saves where it changes threads.
uint32_t saved() {
  uint32_t low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return low;
}

Processor seen() {
  Processor found;
  const Answer first = ask(1, 0), seventh = ask(7, 0), more = ask(7, 1);
  if (!all(first.c, {27})) return found;  // OSXSAVE, without which there is no `saved`
  const bool ymm = all(saved(), {1, 2}), zmm = ymm && all(saved(), {5, 6, 7});
  found.avx2 = ymm && all(first.c, {12, 28, 29}) && all(seventh.b, {5});  // FMA, AVX, F16C; AVX2
  found.avxvnni = found.avx2 && all(more.a, {4});
  found.avx512 = found.avx2 && zmm && all(seventh.b, {16, 17, 30, 31}) && all(seventh.c, {11});  // F, DQ, BW, VL; VNNI
  return found;
}

#else

Processor seen() {
  Processor found;
#if defined(__aarch64__) && defined(__linux__)
  found.dotprod = getauxval(AT_HWCAP) & HWCAP_ASIMDDP;
#elif defined(__aarch64__) && defined(__APPLE__)
  int has = 0;
  size_t size = sizeof has;
  found.dotprod = sysctlbyname("hw.optional.arm.FEAT_DotProd", &has, &size, nullptr, 0) == 0 && has;
#endif
  return found;
}

#endif

}  // namespace

const Processor& processor() {
  static const Processor found = seen();
  return found;
}

}  // namespace ernie_rt
