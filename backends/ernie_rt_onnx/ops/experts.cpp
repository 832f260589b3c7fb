#include "experts.h"

namespace ernie_rt {
namespace {

// The work of experts on x, routed, without their weights.
template <ort::ElementType T>
FeedForward routed(const Tensor& x, const Tensor& router, const Tensor& correction_bias, int64_t top_k) {
  x.expect({-1, -1});
  if (x.dims[1] == 0) throw Failure{"x is " + spelled(x.dims) + ", expected rows of 1 or more"};
  router.expect({-1, x.dims[1]});
  FeedForward work;
  work.count = x.dims[0];
  work.hidden = x.dims[1];
  work.x = x.data;
  work.half = T == ort::FLOAT16;
  work.experts = router.dims[0];
  work.routed = true;
  work.router = router_of(router, correction_bias, work.experts, work.hidden, top_k, 0.f);
  return work;
}

void run(const Context& context, const Kernels& kernels, const FeedForward& work) {
  const Dims dims{static_cast<int64_t>(work.count), static_cast<int64_t>(work.hidden)};
  work.run(context, kernels, context.output<void>(dims));
}

size_t size_of(int64_t dim) { return static_cast<size_t>(dim); }

// An attribute that has to be one of these.
int64_t among(std::initializer_list<int64_t> known, const char* name, const Attributes& attributes) {
  const int64_t found = attributes.integer(name);
  std::string expected;
  for (const int64_t each : known) {
    if (found == each) return found;
    expected += (expected.empty() ? "" : " or ") + std::to_string(each);
  }
  throw Failure{std::string(name) + " is " + std::to_string(found) + ", expected " + expected};
}

}  // namespace

template <ort::ElementType T>
void MoE<T>::compute(const Context& context, const Kernels& kernels) const {
  FeedForward work = routed<T>(context.input(0), context.input(1), context.input(2), top_k_);
  const int64_t E = work.experts, H = work.hidden;
  const Tensor gate_up = context.input(3).expect({E, -1, H});
  const int64_t I = gate_up.dims[1] / 2;
  gate_up.expect({E, 2 * I, H});
  const Tensor down = context.input(4).expect({E, H, I});
  constexpr Matrix::Form form = T == ort::FLOAT16 ? Matrix::HALVES : Matrix::FLOATS;
  work.experts_gate_up = {form, gate_up.data, nullptr, size_of(2 * I), size_of(H), 0, 0, true};
  work.experts_down = {form, down.data, nullptr, size_of(H), size_of(I)};
  run(context, kernels, work);
}

template <ort::ElementType T>
QMoE<T>::QMoE(const Attributes& attributes)
    : top_k_(attributes.integer("top_k")),
      bits_(among({4, 8}, "bits", attributes)),
      block_(among({32, 64, 128}, "block_size", attributes)),
      exact_(among({0, 4}, "accuracy_level", attributes) == 0) {}

template <ort::ElementType T>
void QMoE<T>::compute(const Context& context, const Kernels& kernels) const {
  FeedForward work = routed<T>(context.input(0), context.input(1), context.input(2), top_k_);
  const int64_t E = work.experts, H = work.hidden;
  const Tensor gate_up = context.input(3).expect({E, -1, H * bits_ / 8});
  const int64_t I = gate_up.dims[1] / 2;
  gate_up.expect({E, 2 * I, H * bits_ / 8});
  const Tensor down = context.input(5).expect({E, H, I * bits_ / 8});
  if (H % block_ != 0 || I % block_ != 0) {
    throw Failure{"gate_up is " + spelled(gate_up.dims) + " and down " + spelled(down.dims) +
                  ", expected rows of whole blocks of " + std::to_string(block_)};
  }
  const auto matrix = [&](const Tensor& codes, const Tensor& scales, int64_t rows, int64_t columns, bool paired) {
    scales.expect({E, rows, columns / block_});
    return Matrix{Matrix::CODES, codes.data, static_cast<const uint16_t*>(scales.data), size_of(rows), size_of(columns),
                  static_cast<int>(bits_), size_of(block_), paired, exact_};
  };
  work.experts_gate_up = matrix(gate_up, context.input(4), 2 * I, H, true);
  work.experts_down = matrix(down, context.input(6), H, I, false);
  run(context, kernels, work);
}

template class MoE<ort::FLOAT>;
template class MoE<ort::FLOAT16>;
template class QMoE<ort::FLOAT>;
template class QMoE<ort::FLOAT16>;

}  // namespace ernie_rt
