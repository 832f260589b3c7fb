// What the processor can do, asked of it and of the system. (Compilers have a builtin for it, which in the library that
// Zig links answers no to everything.)

#pragma once

namespace ernie_rt {

struct Processor {
  bool avx2 = false;     // with FMA and F16C
  bool avxvnni = false;  // with all of these
  bool avx512 = false;   // F, BW, DQ, VL and VNNI, with AVX2, FMA and F16C
  bool dotprod = false;  // ARM's
};

const Processor& processor();

}  // namespace ernie_rt
