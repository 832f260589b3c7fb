// A custom operator in C++: what it is given, what it gives, and its share of ONNX Runtime's threads.

#pragma once

#include <atomic>
#include <cstdint>
#include <initializer_list>
#include <new>
#include <string>
#include <vector>

#include "kernels.h"
#include "ort_abi.h"

namespace ernie_rt {

// What is wrong with a node or its inputs; ONNX Runtime raises it as an error of the run.
struct Failure {
  std::string text;
};

using Dims = std::vector<int64_t>;

std::string spelled(const Dims& dims);

// An input. One that a node leaves out has no data.
struct Tensor {
  const char* name = "";
  const void* data = nullptr;
  Dims dims;

  explicit operator bool() const { return data != nullptr; }
  const float* floats() const { return static_cast<const float*>(data); }
  // Fails unless the input has these dims; -1 stands for any.
  const Tensor& expect(const Dims& wanted) const;
  // As expect, where the node may leave the input out.
  const Tensor& expect_optional(const Dims& wanted) const { return *this ? expect(wanted) : *this; }
};

// Memory that a thread keeps from one call to the next.
class Scratch {
 public:
  // Room for `count` of T, until `restart`; what is in it is not defined.
  template <class T>
  T* take(size_t count) {
    return static_cast<T*>(take_bytes(count * sizeof(T)));
  }
  void restart();

 private:
  void* take_bytes(size_t bytes);

  std::vector<std::vector<unsigned char>> pieces_;
  size_t piece_ = 0, used_ = 0;
};

class Context {
 public:
  Context(const ort::Api* api, ort::KernelContext* context, const char* const* names);

  // The input of this place, under the name that the operator has for it.
  Tensor input(size_t index) const;
  template <class T = float>
  T* output(size_t index, const Dims& dims) const {
    return static_cast<T*>(output_data(index, dims));
  }
  template <class T = float>
  T* output(const Dims& dims) const {
    return output<T>(0, dims);
  }

  // Calls work(i) for each i < count, on as many threads as the session has, whichever is free. It may throw
  // std::bad_alloc, and nothing else.
  template <class Work>
  void parallel(size_t count, const Work& work) const {
    if (count == 1) {
      work(0);
      return;
    }
    struct Shared {
      const Work& work;
      std::atomic<bool> failed{false};
    } shared{work};
    check(api_->KernelContext_ParallelFor(
        context_,
        [](void* data, size_t i) {
          Shared& all = *static_cast<Shared*>(data);
          try {
            all.work(i);
          } catch (const std::bad_alloc&) {  // not to go through the frames of ONNX Runtime
            all.failed = true;
          }
        },
        count, count, &shared));
    if (shared.failed) throw std::bad_alloc();
  }

 private:
  void check(ort::Status* status) const;
  void* output_data(size_t index, const Dims& dims) const;

  const ort::Api* api_;
  ort::KernelContext* context_;
  const char* const* names_;
  size_t inputs_ = 0;
};

// What a node says beside its inputs.
class Attributes {
 public:
  Attributes(const ort::Api* api, const ort::KernelInfo* info) : api_(api), info_(info) {}
  int64_t integer(const char* name) const;
  float number(const char* name) const;
  bool flag(const char* name) const;  // false where the node does not say

 private:
  const ort::Api* api_;
  const ort::KernelInfo* info_;
};

struct Input {
  const char* name;
  ort::ElementType type;
  bool optional = false;
};

// The table that ONNX Runtime reads of an operator. `Op` has a NAME, INPUTS, the types of its OUTPUTS, a constructor of
// Attributes, and `void compute(const Context&, const Kernels&) const`. Operators of one name differ in their types.
template <class Op>
class Registered : public ort::CustomOp {
 public:
  explicit Registered(const Kernels* chosen) : ort::CustomOp{}, kernels(chosen) {
    version = ort::VERSION;
    GetName = [](const ort::CustomOp*) { return Op::NAME; };
    GetExecutionProviderType = [](const ort::CustomOp*) -> const char* { return nullptr; };  // the CPU's
    GetInputType = [](const ort::CustomOp*, size_t i) { return Op::INPUTS[i].type; };
    GetInputTypeCount = [](const ort::CustomOp*) { return COUNT; };
    GetInputCharacteristic = [](const ort::CustomOp*, size_t i) {
      return Op::INPUTS[i].optional ? ort::OPTIONAL : ort::REQUIRED;
    };
    GetInputMemoryType = [](const ort::CustomOp*, size_t) { return 0; };
    GetOutputType = [](const ort::CustomOp*, size_t i) { return Op::OUTPUTS[i]; };
    GetOutputTypeCount = [](const ort::CustomOp*) { return sizeof(Op::OUTPUTS) / sizeof(Op::OUTPUTS[0]); };
    GetOutputCharacteristic = [](const ort::CustomOp*, size_t) { return ort::REQUIRED; };
    GetVariadicInputMinArity = [](const ort::CustomOp*) { return 0; };
    GetVariadicInputHomogeneity = [](const ort::CustomOp*) { return 0; };
    GetVariadicOutputMinArity = [](const ort::CustomOp*) { return 0; };
    GetVariadicOutputHomogeneity = [](const ort::CustomOp*) { return 0; };
    GetStartVersion = [](const ort::CustomOp*) { return 1; };
    GetEndVersion = [](const ort::CustomOp*) { return 1; };
    KernelDestroy = [](void* kernel) { delete static_cast<Kernel*>(kernel); };
    CreateKernelV2 = [](const ort::CustomOp* op, const ort::Api* api, const ort::KernelInfo* info, void** kernel) {
      return guarded(api, [&] {
        *kernel = new Kernel{api, static_cast<const Registered*>(op)->kernels, Op(Attributes(api, info))};
      });
    };
    KernelComputeV2 = [](void* data, ort::KernelContext* context) {
      const Kernel* kernel = static_cast<const Kernel*>(data);
      return guarded(kernel->api, [&] {
        kernel->op.compute(Context(kernel->api, context, NAMES), *kernel->kernels);
      });
    };
    for (size_t i = 0; i < COUNT; i++) NAMES[i] = Op::INPUTS[i].name;
  }

 private:
  struct Kernel {
    const ort::Api* api;
    const Kernels* kernels;
    Op op;
  };

  template <class Work>
  static ort::Status* guarded(const ort::Api* api, const Work& work) {
    try {
      work();
      return nullptr;
    } catch (const Failure& failure) {
      return api->CreateStatus(ort::INVALID_ARGUMENT, (std::string(Op::NAME) + ": " + failure.text).c_str());
    } catch (const std::bad_alloc&) {
      return api->CreateStatus(ort::FAIL, (std::string(Op::NAME) + ": out of memory").c_str());
    }
  }

  static constexpr size_t COUNT = sizeof(Op::INPUTS) / sizeof(Op::INPUTS[0]);
  static inline const char* NAMES[COUNT];
  const Kernels* kernels;
};

}  // namespace ernie_rt
