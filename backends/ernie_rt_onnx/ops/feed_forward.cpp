#include "feed_forward.h"

#include <algorithm>

#include "residency.h"

namespace ernie_rt {
namespace {

// One MLP at work, an expert or the one that all tokens pass: its weights, the tokens that come to it, how each one's
// result weighs, and where it keeps what lies between gate_up and down.
struct Mlp {
  Matrix gate_up, down;
  const float* gate_up_bias;  // [I, 2], or null
  const uint32_t* tokens;     // [count]
  const float* weights;       // [count], or null: 1
  size_t count;
  Activations inner;  // [count, I]

  size_t pairs() const { return gate_up.tiles() / 2; }  // tiles of the inner rows
  size_t whole() const { return inner.step() / TILE; }  // how many of them are rounded at once
};

// A stretch of tiles of one MLP.
struct Job {
  const Mlp* mlp;
  size_t first, last;
};

// A step under way.
class Run {
 public:
  Run(const FeedForward& what, const Context& context, const Kernels& kernels, Scratch& scratch, void* y)
      : what_(what), context_(context), kernels_(kernels), scratch_(scratch),
        y_(what.half ? scratch.take<float>(what.count * what.hidden) : static_cast<float*>(y)),
        y_halves_(what.half ? static_cast<uint16_t*>(y) : nullptr) {}

  void all() {
    const Choices choices = read();
    divide(choices);
    into_inner();
    into_output();
  }

 private:
  // The input normed, as the first matrices take it, and its experts; and what the output begins with.
  Choices read() {
    const size_t hidden = what_.hidden, count = what_.count, experts = what_.experts;
    x_ = (experts > 0 ? what_.experts_gate_up : what_.gate_up).takes().with_room(scratch_, count);
    const size_t each = what_.routed ? what_.router.top_k : 0;
    float* rows = what_.half || what_.norm != nullptr ? scratch_.take<float>(count * hidden) : nullptr;
    float* scores = what_.routed ? scratch_.take<float>(count * 2 * experts) : nullptr;
    int32_t* ids = scratch_.take<int32_t>(count * each);
    float* weights = scratch_.take<float>(count * each);
    context_.parallel(count, [&](size_t n) {
      const float* given = static_cast<const float*>(what_.x) + n * hidden;
      float* row = rows != nullptr ? rows + n * hidden : nullptr;
      if (what_.half) {
        kernels_.widen(static_cast<const uint16_t*>(what_.x) + n * hidden, hidden, row);
        given = row;
      }
      float* out = y_ + n * hidden;
      for (size_t h = 0; h < hidden; h++) {
        out[h] = (what_.residual ? given[h] : 0.f) + (what_.down_bias != nullptr ? what_.down_bias[h] : 0.f);
      }
      const bool routed = what_.routed && (what_.mask == nullptr || what_.mask[n]);
      if (what_.routed && !routed) {
        std::fill(ids + n * each, ids + (n + 1) * each, -1);
        if (!what_.has_mlp) return;
      }
      if (what_.norm != nullptr) {
        kernels_.rms_norm(given, what_.norm, what_.eps, hidden, row);
        given = row;
      }
      x_.put(kernels_, n, 0, given, hidden);
      if (routed) {
        what_.router.choose(kernels_, given, scores + n * 2 * experts, ids + n * each, weights + n * each);
      }
    });
    return what_.routed ? Choices{ids, weights, count, each} : what_.choices;
  }

  // Each MLP with its tokens.
  void divide(const Choices& choices) {
    if (what_.has_mlp) {
      uint32_t* tokens = scratch_.take<uint32_t>(what_.count);
      for (size_t n = 0; n < what_.count; n++) tokens[n] = static_cast<uint32_t>(n);
      add_mlp(what_.gate_up, what_.down, what_.gate_up_bias, tokens, nullptr, what_.count);
    }
    if (what_.experts == 0) return;
    const Groups groups = grouped(choices, what_.experts, scratch_);
    for (size_t e = 0; e < what_.experts; e++) {
      const size_t start = groups.starts[e], number = groups.starts[e + 1] - start;
      if (number == 0) continue;
      add_mlp(what_.experts_gate_up.nth(e), what_.experts_down.nth(e), nullptr, groups.tokens + start,
              groups.weights + start, number);
    }
    if (what_.scarce) look_for_experts();
  }

  // Where most of the experts are chosen, page faults do well to read long stretches of them all.
  void look_for_experts() const {
    std::vector<Stretch> chosen;
    const size_t first = what_.has_mlp ? 1 : 0, number = mlps_.size() - first;
    for (size_t m = first; m < mlps_.size(); m++) {
      for (const Matrix* matrix : {&mlps_[m].gate_up, &mlps_[m].down}) {
        chosen.push_back({matrix->numbers, matrix->rows * matrix->row_bytes()});
        chosen.push_back({matrix->scales, matrix->rows * (matrix->columns / matrix->block) * sizeof(uint16_t)});
      }
    }
    look_for(context_, chosen, 2 * number <= what_.experts);
  }

  void add_mlp(const Matrix& gate_up, const Matrix& down, const float* bias, const uint32_t* tokens,
               const float* weights, size_t count) {
    mlps_.push_back({gate_up, down, bias, tokens, weights, count, down.takes().with_room(scratch_, count)});
  }

  // silu(gate) * up of all MLPs.
  void into_inner() {
    std::vector<Job> jobs;
    for (const Mlp& mlp : mlps_) {
      const size_t whole = mlp.whole();
      const size_t at_once = std::max<size_t>(1, JOB_BYTES / (2 * mlp.gate_up.tile_bytes() * whole)) * whole;
      for (size_t first = 0; first < mlp.pairs(); first += at_once) {
        jobs.push_back({&mlp, first, std::min(first + at_once, mlp.pairs())});
      }
    }
    context_.parallel(jobs.size(), [&](size_t job) { inner_of(jobs[job]); });
  }

  // Of a stretch of tiles, whole steps of the inner rows.
  void inner_of(const Job& job) const {
    const Mlp& mlp = *job.mlp;
    const size_t step = mlp.inner.step(), whole = mlp.whole();
    const ptrdiff_t ahead = 2 * mlp.gate_up.tile_bytes();  // the next pair of tiles
    float halves[2 * BATCH * TILE], inner[BATCH * LARGEST_BLOCK];
    for (size_t start = 0; start < mlp.count; start += BATCH) {
      const size_t number = std::min(BATCH, mlp.count - start);
      for (size_t pair = job.first; pair < job.last; pair++) {
        float* gate = halves;
        float* up = halves + number * TILE;
        mlp.gate_up.multiply(kernels_, 2 * pair, 2, x_, mlp.tokens + start, number, ahead, halves);
        if (mlp.gate_up_bias != nullptr) {
          for (size_t i = 0; i < number * TILE; i++) {
            const float* bias = mlp.gate_up_bias + (pair * TILE + i % TILE) * 2;
            gate[i] += bias[0];
            up[i] += bias[1];
          }
        }
        const size_t within = pair % whole;
        for (size_t i = 0; i < number; i++) {
          kernels_.swiglu(gate + i * TILE, up + i * TILE, TILE, inner + i * step + within * TILE);
        }
        if (within + 1 < whole) continue;
        for (size_t i = 0; i < number; i++) {
          mlp.inner.put(kernels_, start + i, pair / whole * step, inner + i * step, step);
        }
      }
    }
  }

  // What all MLPs make of it, summed.
  void into_output() {
    size_t bytes = 1;  // of a tile: the next one of the same MLP lies beside it, that of another one far away
    for (const Mlp& mlp : mlps_) bytes = std::max(bytes, mlp.down.tile_bytes());
    const size_t tiles = ceil_div(what_.hidden, TILE), at_once = std::max<size_t>(1, JOB_BYTES / (2 * bytes)) * 2;
    context_.parallel(ceil_div(tiles, at_once), [&](size_t job) {
      output_of(job * at_once, std::min(job * at_once + at_once, tiles));
    });
  }

  // A stretch of tiles of the output; no other job writes there.
  void output_of(size_t first, size_t last) const {
    float out[2 * BATCH * TILE];
    for (size_t m = 0; m < mlps_.size(); m++) {
      const Mlp& mlp = mlps_[m];
      const Mlp& next = mlps_[std::min(m + 1, mlps_.size() - 1)];
      const ptrdiff_t ahead = mlp.down.distance_to(next.down);
      for (size_t start = 0; start < mlp.count; start += BATCH) {
        const size_t number = std::min(BATCH, mlp.count - start);
        const Sequence batch(start);
        for (size_t tile = first; tile < last; tile += 2) {
          const size_t tiles = std::min<size_t>(2, last - tile);
          mlp.down.multiply(kernels_, tile, tiles, mlp.inner, batch.index, number, ahead, out);
          for (size_t i = 0; i < number; i++) {
            const float weight = mlp.weights != nullptr ? mlp.weights[start + i] : 1.f;
            for (size_t t = 0; t < tiles; t++) {
              add_to(mlp.tokens[start + i], (tile + t) * TILE, out + (t * number + i) * TILE, weight);
            }
          }
        }
      }
    }
    if (y_halves_ == nullptr) return;
    const size_t begin = first * TILE, end = std::min(last * TILE, what_.hidden);
    for (size_t n = 0; n < what_.count; n++) {
      for (size_t h = begin; h < end; h++) y_halves_[n * what_.hidden + h] = half_of_float(y_[n * what_.hidden + h]);
    }
  }

  void add_to(size_t token, size_t column, const float* numbers, float weight) const {
    float* to = y_ + token * what_.hidden + column;
    if (column + TILE <= what_.hidden) {
      kernels_.add(numbers, weight, TILE, to);
    } else {
      for (size_t h = 0; column + h < what_.hidden; h++) to[h] += weight * numbers[h];
    }
  }

  const FeedForward& what_;
  const Context& context_;
  const Kernels& kernels_;
  Scratch& scratch_;
  float* y_;
  uint16_t* y_halves_;  // where the output is float16
  Activations x_;
  std::vector<Mlp> mlps_;
};

}  // namespace

void FeedForward::run(const Context& context, const Kernels& kernels, void* y) const {
  if (count == 0) return;
  static thread_local Scratch scratch;
  scratch.restart();
  Run(*this, context, kernels, scratch, y).all();
}

}  // namespace ernie_rt
