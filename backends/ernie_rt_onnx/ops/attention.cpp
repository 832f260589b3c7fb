#include "attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace ernie_rt {
namespace {

constexpr size_t QUERY_ROWS = 64;  // of a job, of several tokens
constexpr size_t KEY_ROWS = 512;   // of a job, where a single token has a long context to itself

// dim 2i and 2i + 1 turned by the i-th angle, times a factor.
void rotate(const float* x, const float* cos, const float* sin, size_t size, float factor, float* out) {
  for (size_t i = 0; i < size / 2; i++) {
    const float even = x[2 * i], odd = x[2 * i + 1];
    out[2 * i] = (even * cos[i] - odd * sin[i]) * factor;
    out[2 * i + 1] = (odd * cos[i] + even * sin[i]) * factor;
  }
}

// What a job has found for its query rows.
struct Part {
  float* sums;  // [rows, D]
  float* largest;
  float* totals;
};

}  // namespace

constexpr Input RopeAttention::INPUTS[];

RopeAttention::RopeAttention(const Attributes& attributes)
    : heads_(attributes.integer("num_heads")),
      kv_heads_(attributes.integer("num_kv_heads")),
      scale_(attributes.number("scale")) {
  if (kv_heads_ < 1 || heads_ < kv_heads_ || heads_ % kv_heads_ != 0) {
    throw Failure{"num_heads is " + std::to_string(heads_) + ", expected a multiple of num_kv_heads, " +
                  std::to_string(kv_heads_)};
  }
}

void RopeAttention::compute(const Context& context, const Kernels& kernels) const {
  static thread_local Scratch scratch;
  scratch.restart();
  const Tensor qkv = context.input(0).expect({-1, -1});
  const Tensor past_key = context.input(3).expect({-1, kv_heads_, -1, -1});
  const Tensor past_value = context.input(4).expect(past_key.dims);
  const size_t batch = past_key.dims[0], capacity = past_key.dims[2], size = past_key.dims[3];
  const Tensor last = context.input(5).expect({past_key.dims[0]});
  const size_t heads = heads_, kv_heads = kv_heads_, group = heads / kv_heads, count = qkv.dims[0];
  qkv.expect({-1, static_cast<int64_t>((heads + 2 * kv_heads) * size)});
  const bool by_token = bool(context.input(6));
  const int64_t angles = by_token ? qkv.dims[0] : -1;
  const Tensor cos = context.input(by_token ? 6 : 1).expect({angles, static_cast<int64_t>(size / 2)});
  const Tensor sin = context.input(by_token ? 7 : 2).expect(cos.dims);
  if (size == 0 || size % TILE != 0) throw Failure{"heads of " + std::to_string(size) + ", expected a multiple of 16"};
  if (batch == 0 || count % batch != 0) {
    throw Failure{std::to_string(count) + " tokens are not the same number of each of " + std::to_string(batch) +
                  " sequences"};
  }
  const size_t each = count / batch;
  const int32_t* places = static_cast<const int32_t*>(last.data);
  const int64_t limit = by_token ? capacity : std::min<int64_t>(capacity, cos.dims[0]);
  for (size_t b = 0; b < batch; b++) {
    const int64_t place = places[b];
    if (place + 1 < static_cast<int64_t>(each) || place >= limit) {
      throw Failure{"last is " + std::to_string(place) + ", expected " + std::to_string(static_cast<int64_t>(each) - 1) + " to " +
                    std::to_string(limit - 1)};
    }
  }
  float* y = context.output(0, {qkv.dims[0], static_cast<int64_t>(heads * size)});
  float* keys = context.output(1, past_key.dims);
  float* values = context.output(2, past_value.dims);
  const size_t cached = batch * kv_heads * capacity * size;
  if (keys != past_key.data) std::memcpy(keys, past_key.data, cached * sizeof(float));
  if (values != past_value.data) std::memcpy(values, past_value.data, cached * sizeof(float));
  if (count == 0) return;

  // Queries by sequence, kv head, token and head of the group, so that those that read the same keys lie together.
  float* queries = scratch.take<float>(count * heads * size);
  uint32_t* visible = scratch.take<uint32_t>(count * group);
  context.parallel(count, [&](size_t n) {
    const size_t b = n / each, s = n % each, place = places[b] + 1 - each + s;
    const float* row = qkv.floats() + n * (heads + 2 * kv_heads) * size;
    const size_t angle = (by_token ? n : place) * (size / 2);
    const float* c = cos.floats() + angle;
    const float* d = sin.floats() + angle;
    for (size_t k = 0; k < kv_heads; k++) {
      for (size_t g = 0; g < group; g++) {
        const size_t to = ((b * kv_heads + k) * each + s) * group + g;
        rotate(row + (k * group + g) * size, c, d, size, scale_, queries + to * size);
      }
      const size_t to = ((b * kv_heads + k) * capacity + place) * size;
      rotate(row + (heads + k) * size, c, d, size, 1.f, keys + to);
      std::memcpy(values + to, row + (heads + kv_heads + k) * size, size * sizeof(float));
    }
    for (size_t g = 0; g < group; g++) visible[n * group + g] = static_cast<uint32_t>(place + 1);
  });

  const size_t tokens = std::max<size_t>(1, QUERY_ROWS / group);  // of a job
  const size_t spans = ceil_div(each, tokens);
  size_t longest = 0;
  for (size_t b = 0; b < batch; b++) longest = std::max<size_t>(longest, places[b] + 1);
  const size_t chunks = each == 1 ? ceil_div(longest, KEY_ROWS) : 1;
  const size_t rows = std::min(tokens, each) * group, jobs = batch * kv_heads * spans * chunks;
  float* sums = scratch.take<float>(jobs * rows * size);
  float* largest = scratch.take<float>(jobs * rows);
  float* totals = scratch.take<float>(jobs * rows);
  const auto part_of = [&](size_t job) {
    return Part{sums + job * rows * size, largest + job * rows, totals + job * rows};
  };
  context.parallel(jobs, [&](size_t job) {
    const size_t chunk = job % chunks, span = job / chunks % spans, head = job / chunks / spans;  // of all sequences
    const size_t b = head / kv_heads, start = span * tokens, stop = std::min(start + tokens, each);
    const size_t number = (stop - start) * group;
    const uint32_t* seen = visible + (b * each + start) * group;
    const size_t first = chunks > 1 ? chunk * KEY_ROWS : 0;
    const size_t end = chunks > 1 ? std::min<size_t>(first + KEY_ROWS, seen[0]) : seen[number - 1];
    const Part part = part_of(job);
    std::fill(part.sums, part.sums + number * size, 0.f);
    std::fill(part.largest, part.largest + number, -INFINITY);
    std::fill(part.totals, part.totals + number, 0.f);
    if (first >= end) return;
    kernels.attend(queries + (head * each + start) * group * size, seen, number, keys + head * capacity * size,
                   values + head * capacity * size, size, first, end, part.sums, part.largest, part.totals);
  });
  context.parallel(batch * kv_heads * spans, [&](size_t job) {
    const size_t span = job % spans, head = job / spans, b = head / kv_heads, k = head % kv_heads;
    const size_t start = span * tokens, number = (std::min(start + tokens, each) - start) * group;
    for (size_t i = 0; i < number; i++) {
      const size_t token = b * each + start + i / group;
      float* out = y + (token * heads + k * group + i % group) * size;
      float top = -INFINITY, total = 0;
      for (size_t chunk = 0; chunk < chunks; chunk++) top = std::max(top, part_of(job * chunks + chunk).largest[i]);
      std::fill(out, out + size, 0.f);
      for (size_t chunk = 0; chunk < chunks; chunk++) {
        const Part part = part_of(job * chunks + chunk);
        const float share = std::exp(part.largest[i] - top);
        total += part.totals[i] * share;
        kernels.add(part.sums + i * size, share, size, out);
      }
      for (size_t d = 0; d < size; d++) out[d] /= total;
    }
  });
}

}  // namespace ernie_rt
