// Weights in mapped files, of which memory holds a part.

#pragma once

#include <vector>

#include "op.h"

namespace ernie_rt {

// Bytes of experts that operators chose, and how many of them had to be read from disk.
struct Reads {
  uint64_t chosen, missing;
};

// Those of the operators that ran on this thread. On systems that do not tell what is in memory it stays 0.
Reads& reads_of_this_thread();

struct Stretch {
  const void* data;
  size_t bytes;
};

// Counts what memory lacks of weights that were chosen and, to `fetch` them, has the system begin to read just that:
// page faults would read one stretch after the other, and what lies around it.
void look_for(const Context& context, const std::vector<Stretch>& chosen, bool fetch);

}  // namespace ernie_rt
