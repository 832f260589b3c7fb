#include "residency.h"

#include <algorithm>
#include <atomic>

#if defined(__linux__)
#include <sys/mman.h>
#include <unistd.h>
#endif

namespace ernie_rt {

Reads& reads_of_this_thread() {
  static thread_local Reads reads{};
  return reads;
}

#if defined(__linux__)

namespace {

constexpr size_t READ_BYTES = 128 * 1024;  // of a longer stretch Linux may read no more for one call

// The bytes of those pages of a stretch that are not in memory.
size_t missing_of(const Stretch& stretch, bool fetch) {
  static const uintptr_t page = sysconf(_SC_PAGESIZE);
  constexpr size_t AT_ONCE = 1024;
  unsigned char present[AT_ONCE];
  const uintptr_t begin = reinterpret_cast<uintptr_t>(stretch.data) / page * page;
  const uintptr_t end = reinterpret_cast<uintptr_t>(stretch.data) + stretch.bytes;
  const size_t most = std::max<size_t>(1, READ_BYTES / page);
  size_t missing = 0;
  for (uintptr_t start = begin; start < end; start += AT_ONCE * page) {
    const size_t count = std::min<size_t>(AT_ONCE, (end - start + page - 1) / page);
    if (mincore(reinterpret_cast<void*>(start), count * page, present) != 0) break;
    for (size_t first = 0, last; first < count; first = last) {
      for (last = first; last < count && last - first < most && !(present[last] & 1);) last++;
      const size_t bytes = (last - first) * page;
      if (fetch && bytes > 0) madvise(reinterpret_cast<void*>(start + first * page), bytes, MADV_WILLNEED);
      missing += bytes;
      while (last < count && present[last] & 1) last++;
    }
  }
  return missing;
}

}  // namespace

void look_for(const Context& context, const std::vector<Stretch>& chosen, bool fetch) {
  std::atomic<size_t> missing{0};
  context.parallel(chosen.size(), [&](size_t i) { missing += missing_of(chosen[i], fetch); });
  size_t bytes = 0;
  for (const Stretch& each : chosen) bytes += each.bytes;
  Reads& reads = reads_of_this_thread();
  reads.chosen += bytes;
  reads.missing += std::min<size_t>(missing, bytes);
}

#else

void look_for(const Context&, const std::vector<Stretch>&, bool) {}

#endif

}  // namespace ernie_rt
