#include "tiled_feed_forward.h"

namespace ernie_rt {
namespace {

enum Place {
  X, NORM, ROUTER, CORRECTION_BIAS, IDS, WEIGHTS,
  EXPERTS_GATE_UP, EXPERTS_GATE_UP_SCALES, EXPERTS_DOWN, EXPERTS_DOWN_SCALES,
  GATE_UP, GATE_UP_SCALES, GATE_UP_BIAS, DOWN, DOWN_SCALES, DOWN_BIAS, MASK,
};

// The matrix of codes whose `outer` dims end in `tiles` of 16 rows, or, of gate and up, in pairs of these; of several
// matrices the first.
Matrix matrix_of(const Tensor& codes, const Tensor& scales, const Dims& outer, int64_t tiles, int64_t columns,
                 bool paired) {
  const Tiles all = tiles_of(codes, scales, outer, columns);
  const size_t rows = (paired ? 2 : 1) * tiles * TILE;
  return {Matrix::TILES, all.codes, all.scales, rows, all.columns, all.bits, all.block, paired};
}

}  // namespace


TiledFeedForward::TiledFeedForward(const Attributes& attributes)
    : top_k_(attributes.integer("top_k")),
      norm_min_(attributes.number("norm_min")),
      eps_(attributes.number("eps")),
      residual_(attributes.integer("residual") != 0),
      scarce_(attributes.flag("scarce")) {}

void TiledFeedForward::compute(const Context& context, const Kernels& kernels) const {
  const Tensor x = context.input(X).expect({-1, -1});
  const int64_t N = x.dims[0], H = x.dims[1];
  if (H % TILE != 0) throw Failure{"x is " + spelled(x.dims) + ", expected rows of a multiple of 16"};
  FeedForward work;
  work.count = N;
  work.hidden = H;
  work.x = x.data;
  work.norm = context.input(NORM).expect_optional({H}).floats();
  work.eps = eps_;
  work.residual = residual_;
  work.scarce = scarce_;

  const Tensor experts_gate_up = context.input(EXPERTS_GATE_UP);
  if (experts_gate_up) {
    experts_gate_up.expect({-1, -1, 2, -1});
    const int64_t E = experts_gate_up.dims[0], tiles = experts_gate_up.dims[1];
    work.experts = E;
    work.experts_gate_up =
        matrix_of(experts_gate_up, context.input(EXPERTS_GATE_UP_SCALES), {E, tiles, 2}, tiles, H, true);
    work.experts_down = matrix_of(context.input(EXPERTS_DOWN), context.input(EXPERTS_DOWN_SCALES), {E, H / 16}, H / 16,
                                  tiles * 16, false);
    const Tensor router = context.input(ROUTER);
    work.routed = bool(router);
    if (router) {
      work.router = router_of(router, context.input(CORRECTION_BIAS), E, H, top_k_, norm_min_);
      work.mask = static_cast<const bool*>(context.input(MASK).expect_optional({N}).data);
    } else {
      const Tensor ids = context.input(IDS).expect({N, -1}), weights = context.input(WEIGHTS).expect(ids.dims);
      work.choices = {static_cast<const int32_t*>(ids.data), weights.floats(), work.count,
                      static_cast<size_t>(ids.dims[1])};
    }
  }
  const Tensor gate_up = context.input(GATE_UP);
  if (gate_up) {
    gate_up.expect({-1, 2, -1});
    const int64_t tiles = gate_up.dims[0];
    work.has_mlp = true;
    work.gate_up = matrix_of(gate_up, context.input(GATE_UP_SCALES), {tiles, 2}, tiles, H, true);
    work.down = matrix_of(context.input(DOWN), context.input(DOWN_SCALES), {H / 16}, H / 16, tiles * 16, false);
    work.gate_up_bias = context.input(GATE_UP_BIAS).expect_optional({tiles * 16, 2}).floats();
  }
  work.down_bias = context.input(DOWN_BIAS).expect_optional({H}).floats();
  if (experts_gate_up && gate_up && work.experts_gate_up.block != work.gate_up.block) {
    throw Failure{"experts and the MLP beside them are in blocks of different sizes"};
  }
  if (!experts_gate_up && !gate_up) throw Failure{"neither experts nor an MLP"};
  work.run(context, kernels, context.output({N, H}));
}

}  // namespace ernie_rt
