// Instructions that not every processor has, for the functions between INSTRUCTIONS("avx2,fma") and INSTRUCTIONS_END, in
// GCC's words and in Clang's.

#pragma once

#define PRAGMA(text) _Pragma(#text)
#if defined(__clang__)
#define INSTRUCTIONS(names) PRAGMA(clang attribute push(__attribute__((target(names))), apply_to = function))
#define INSTRUCTIONS_END PRAGMA(clang attribute pop)
#else
#define INSTRUCTIONS(names) PRAGMA(GCC push_options) PRAGMA(GCC target(names))
#define INSTRUCTIONS_END PRAGMA(GCC pop_options)
#endif
