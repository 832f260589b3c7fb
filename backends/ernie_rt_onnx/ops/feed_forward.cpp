#include "feed_forward.h"

#include <algorithm>
#include <cmath>

namespace ernie_rt {
namespace {

enum Place {
  X, NORM, ROUTER, CORRECTION_BIAS, IDS, WEIGHTS,
  EXPERTS_GATE_UP, EXPERTS_GATE_UP_SCALES, EXPERTS_DOWN, EXPERTS_DOWN_SCALES,
  GATE_UP, GATE_UP_SCALES, GATE_UP_BIAS, DOWN, DOWN_SCALES, DOWN_BIAS,
};

// One MLP at work, an expert or the one that all tokens pass: its weights, the tokens that come to it, how each one's
// result weighs, and where it keeps what lies between gate_up and down.
struct Mlp {
  Tiles gate_up, down;
  const float* gate_up_bias;  // [I, 2], or null
  const uint32_t* tokens;     // [count]
  const float* weights;       // [count], or null: 1
  size_t count;
  Rows inner;  // [count, I]

  size_t pairs() const { return gate_up.tiles / 2; }  // tiles of the inner rows
};

// A stretch of tiles of one MLP.
struct Job {
  const Mlp* mlp;
  size_t first, last;
};

struct Routing {
  const int32_t* ids;    // [count, choices]
  const float* weights;  // the same
  size_t choices;
};

void route(const Kernels& kernels, const float* x, size_t hidden, const float* router, const float* bias,
           size_t experts, size_t choices, float norm_min, float* scratch, int32_t* ids, float* weights) {
  float* probabilities = scratch;
  float* scores = scratch + experts;
  float largest = -INFINITY, total = 0;
  for (size_t e = 0; e < experts; e++) {
    probabilities[e] = kernels.dot(x, router + e * hidden, hidden);
    largest = std::max(largest, probabilities[e]);
  }
  for (size_t e = 0; e < experts; e++) total += probabilities[e] = std::exp(probabilities[e] - largest);
  for (size_t e = 0; e < experts; e++) {
    probabilities[e] /= total;
    scores[e] = probabilities[e] + (bias != nullptr ? bias[e] : 0.f);
  }
  float chosen = 0;
  for (size_t a = 0; a < choices; a++) {
    size_t best = 0;
    for (size_t e = 1; e < experts; e++) {
      if (scores[e] > scores[best]) best = e;
    }
    ids[a] = static_cast<int32_t>(best);
    chosen += weights[a] = probabilities[best];
    scores[best] = -INFINITY;
  }
  for (size_t a = 0; a < choices; a++) weights[a] /= std::max(chosen, norm_min);
}

// Gate and up of a stretch of tiles, whole blocks of the inner rows, and these rounded.
void into_inner(const Kernels& kernels, const Job& job, const Rows& x) {
  const Mlp& mlp = *job.mlp;
  const size_t block = mlp.inner.block, blocks = mlp.inner.columns / block, per_block = block / TILE;
  constexpr size_t widest = 128;
  float halves[2 * BATCH * TILE], inner[BATCH * widest];
  for (size_t start = 0; start < mlp.count; start += BATCH) {
    const size_t number = std::min(BATCH, mlp.count - start);
    for (size_t pair = job.first; pair < job.last; pair++) {
      float* gate = halves;
      float* up = halves + number * TILE;
      kernels.multiply(mlp.gate_up.part(2 * pair, 2), x, mlp.tokens + start, number, halves);
      if (mlp.gate_up_bias != nullptr) {
        for (size_t i = 0; i < number * TILE; i++) {
          const float* bias = mlp.gate_up_bias + (pair * TILE + i % TILE) * 2;
          gate[i] += bias[0];
          up[i] += bias[1];
        }
      }
      const size_t within = pair % per_block;
      for (size_t i = 0; i < number; i++) {
        kernels.swiglu(gate + i * TILE, up + i * TILE, TILE, inner + i * block + within * TILE);
      }
      if (within + 1 < per_block) continue;
      const size_t b = pair / per_block;
      for (size_t i = 0; i < number; i++) {
        const size_t row = start + i;
        kernels.quantize(inner + i * block, 1, block, mlp.inner.codes + row * mlp.inner.columns + b * block,
                         mlp.inner.scales + row * blocks + b, mlp.inner.sums + row * blocks + b);
      }
    }
  }
}

// A stretch of tiles of the output, from all MLPs; no other job writes there.
void into_output(const Kernels& kernels, const std::vector<Mlp>& mlps, size_t first, size_t last, size_t hidden,
                 float* y) {
  float out[2 * BATCH * TILE];
  for (const Mlp& mlp : mlps) {
    for (size_t start = 0; start < mlp.count; start += BATCH) {
      const size_t number = std::min(BATCH, mlp.count - start);
      const Sequence batch(start);
      for (size_t tile = first; tile < last; tile += 2) {
        const size_t tiles = std::min<size_t>(2, last - tile);
        kernels.multiply(mlp.down.part(tile, tiles), mlp.inner, batch.index, number, out);
        for (size_t i = 0; i < number; i++) {
          const float weight = mlp.weights != nullptr ? mlp.weights[start + i] : 1.f;
          float* to = y + mlp.tokens[start + i] * hidden + tile * TILE;
          for (size_t t = 0; t < tiles; t++) kernels.add(out + (t * number + i) * TILE, weight, TILE, to + t * TILE);
        }
      }
    }
  }
}

}  // namespace

constexpr Input TiledFeedForward::INPUTS[];

TiledFeedForward::TiledFeedForward(const Attributes& attributes)
    : top_k_(attributes.integer("top_k")),
      norm_min_(attributes.number("norm_min")),
      eps_(attributes.number("eps")),
      residual_(attributes.integer("residual") != 0) {}

void TiledFeedForward::compute(const Context& context, const Kernels& kernels) const {
  static thread_local Scratch scratch;
  scratch.restart();
  const Tensor given = context.input(X).expect({-1, -1});
  const int64_t N = given.dims[0], H = given.dims[1];
  const size_t count = N, hidden = H;
  if (hidden % TILE != 0) throw Failure{"x is " + spelled(given.dims) + ", expected rows of a multiple of 16"};
  const Tensor norm = context.input(NORM).expect_optional({H});

  const Tensor router = context.input(ROUTER), bias = context.input(CORRECTION_BIAS);
  const Tensor ids = context.input(IDS), weights = context.input(WEIGHTS);
  const Tensor experts_gate_up = context.input(EXPERTS_GATE_UP), experts_down = context.input(EXPERTS_DOWN);
  const Tensor gate_up = context.input(GATE_UP), down = context.input(DOWN);
  const auto width_of = [](const Tensor& codes, size_t axis) {
    return codes.dims.size() > axis ? static_cast<size_t>(codes.dims[axis]) * TILE : 0;
  };

  Tiles all_gate_up{}, all_down{};
  size_t experts = 0, width = 0;
  if (experts_gate_up) {
    experts_gate_up.expect({-1, -1, 2, -1});
    experts = experts_gate_up.dims[0];
    width = width_of(experts_gate_up, 1);
    const int64_t E = experts, I = width / TILE;
    all_gate_up = tiles_of(experts_gate_up, context.input(EXPERTS_GATE_UP_SCALES), {E, I, 2}, hidden);
    all_down = tiles_of(experts_down, context.input(EXPERTS_DOWN_SCALES), {E, H / 16}, width);
  }
  std::vector<Mlp> mlps;
  Mlp shared{};
  if (gate_up) {
    gate_up.expect({-1, 2, -1});
    const size_t inner = width_of(gate_up, 0);
    shared.gate_up = tiles_of(gate_up, context.input(GATE_UP_SCALES), {gate_up.dims[0], 2}, hidden);
    shared.down = tiles_of(down, context.input(DOWN_SCALES), {H / 16}, inner);
    shared.gate_up_bias = context.input(GATE_UP_BIAS).expect_optional({static_cast<int64_t>(inner), 2}).floats();
  }
  const Tensor down_bias = context.input(DOWN_BIAS).expect_optional({H});
  if (experts > 0 && gate_up && all_gate_up.block != shared.gate_up.block) {
    throw Failure{"experts and the MLP beside them are in blocks of different sizes"};
  }
  if (experts == 0 && !gate_up) throw Failure{"neither experts nor an MLP"};
  const size_t block = experts > 0 ? all_gate_up.block : shared.gate_up.block;

  size_t choices = 0;
  if (experts > 0) {
    if (router) {
      router.expect({static_cast<int64_t>(experts), H});
      bias.expect_optional({static_cast<int64_t>(experts)});
      choices = top_k_;
      if (choices < 1 || choices > experts) {
        throw Failure{"top_k is " + std::to_string(choices) + ", expected 1 to " + std::to_string(experts)};
      }
    } else {
      ids.expect({N, -1});
      weights.expect(ids.dims);
      choices = ids.dims[1];
    }
  }
  float* y = context.output({N, H});
  if (count == 0) return;

  // The input, normed, rounded, and its experts.
  const size_t pairs = count * choices;
  const float* x = given.floats();
  float* normed = norm ? scratch.take<float>(count * hidden) : nullptr;
  const Rows rounded_x = room_for(scratch, count, hidden, block);
  int32_t* chosen = scratch.take<int32_t>(pairs);
  float* shares = scratch.take<float>(pairs);
  float* scores = scratch.take<float>(count * 2 * experts);
  context.parallel(count, [&](size_t n) {
    const float* row = x + n * hidden;
    if (norm) {
      kernels.rms_norm(row, norm.floats(), eps_, hidden, normed + n * hidden);
      row = normed + n * hidden;
    }
    const size_t blocks = hidden / block;
    kernels.quantize(row, blocks, block, rounded_x.codes + n * hidden, rounded_x.scales + n * blocks,
                     rounded_x.sums + n * blocks);
    if (experts > 0 && router) {
      route(kernels, row, hidden, router.floats(), bias ? bias.floats() : nullptr, experts, choices, norm_min_,
            scores + n * 2 * experts, chosen + n * choices, shares + n * choices);
    }
    float* out = y + n * hidden;
    for (size_t h = 0; h < hidden; h++) {
      out[h] = (residual_ ? x[n * hidden + h] : 0.f) + (down_bias ? down_bias.floats()[h] : 0.f);
    }
  });
  const int32_t* expert_of = router ? chosen : static_cast<const int32_t*>(ids.data);
  const float* share_of = router ? shares : weights.floats();

  // The tokens of each expert side by side.
  uint32_t* tokens = scratch.take<uint32_t>(pairs + count);
  float* token_weights = scratch.take<float>(pairs);
  std::vector<size_t> starts(experts + 1, 0);
  for (size_t i = 0; i < pairs; i++) {
    if (expert_of[i] >= static_cast<int64_t>(experts)) {
      throw Failure{"ids hold " + std::to_string(expert_of[i]) + ", expected -1 to " + std::to_string(experts - 1)};
    }
    if (expert_of[i] >= 0) starts[expert_of[i] + 1]++;
  }
  for (size_t e = 0; e < experts; e++) starts[e + 1] += starts[e];
  std::vector<size_t> next(starts.begin(), starts.end());
  for (size_t i = 0; i < pairs; i++) {
    if (expert_of[i] < 0) continue;
    const size_t place = next[expert_of[i]]++;
    tokens[place] = static_cast<uint32_t>(i / choices);
    token_weights[place] = share_of[i];
  }
  for (size_t n = 0; n < count; n++) tokens[pairs + n] = static_cast<uint32_t>(n);

  if (gate_up) {
    shared.tokens = tokens + pairs;
    shared.count = count;
    shared.inner = room_for(scratch, count, shared.down.columns, shared.down.block);
    mlps.push_back(shared);
  }
  for (size_t e = 0; e < experts; e++) {
    const size_t number = starts[e + 1] - starts[e];
    if (number == 0) continue;
    const size_t inner_tiles = width / TILE, tiles = hidden / TILE;
    mlps.push_back({all_gate_up.part(e * inner_tiles * 2, inner_tiles * 2), all_down.part(e * tiles, tiles), nullptr,
                    tokens + starts[e], token_weights + starts[e], number,
                    room_for(scratch, number, width, all_down.block)});
  }

  std::vector<Job> jobs;
  for (const Mlp& mlp : mlps) {
    const size_t whole = mlp.inner.block / TILE;  // a block of inner rows is rounded at once
    const size_t at_once = std::max<size_t>(1, JOB_BYTES / (2 * mlp.gate_up.tile_bytes() * whole)) * whole;
    for (size_t first = 0; first < mlp.pairs(); first += at_once) {
      jobs.push_back({&mlp, first, std::min(first + at_once, mlp.pairs())});
    }
  }
  context.parallel(jobs.size(), [&](size_t job) { into_inner(kernels, jobs[job], rounded_x); });
  size_t down_bytes = 0;
  for (const Mlp& mlp : mlps) down_bytes += mlp.down.tile_bytes();
  const size_t tiles = hidden / TILE, at_once = std::max<size_t>(1, JOB_BYTES / std::max<size_t>(1, down_bytes)) * 2;
  context.parallel(ceil_div(tiles, at_once), [&](size_t job) {
    into_output(kernels, mlps, job * at_once, std::min(job * at_once + at_once, tiles), hidden, y);
  });
}

}  // namespace ernie_rt
