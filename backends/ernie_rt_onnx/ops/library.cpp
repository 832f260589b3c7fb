// The entry point: ONNX Runtime calls it when the library is registered with a session.

#include <map>
#include <mutex>
#include <utility>

#include "attention.h"
#include "experts.h"
#include "linear.h"
#include "residency.h"
#include "tiled_feed_forward.h"

namespace ernie_rt {
namespace {

constexpr const char* DOMAIN_NAME = "ernie_rt";

// The operators with some kernels, and the domain that they are in. Sessions point to it for as long as they live.
class Domain {
 public:
  explicit Domain(const Kernels* kernels)
      : linear_(kernels),
        rows_(kernels),
        feed_forward_(kernels),
        attention_(kernels),
        moe_(kernels),
        moe_halves_(kernels),
        qmoe_(kernels),
        qmoe_halves_(kernels) {}

  ort::Status* add_to(ort::SessionOptions* options, const ort::Api* api) {
    if (domain_ == nullptr) {
      ort::OpDomain* domain = nullptr;
      ort::Status* status = api->CreateCustomOpDomain(DOMAIN_NAME, &domain);
      const ort::CustomOp* const ops[] = {&linear_, &rows_,       &feed_forward_, &attention_,
                                          &moe_,    &moe_halves_, &qmoe_,         &qmoe_halves_};
      for (const ort::CustomOp* op : ops) {
        if (status == nullptr) status = api->CustomOpDomain_Add(domain, op);
      }
      if (status != nullptr) return status;
      domain_ = domain;
    }
    return api->AddCustomOpDomain(options, domain_);
  }

 private:
  Registered<TiledLinear> linear_;
  Registered<TiledRows> rows_;
  Registered<TiledFeedForward> feed_forward_;
  Registered<RopeAttention> attention_;
  Registered<MoE<ort::FLOAT>> moe_;
  Registered<MoE<ort::FLOAT16>> moe_halves_;
  Registered<QMoE<ort::FLOAT>> qmoe_;
  Registered<QMoE<ort::FLOAT16>> qmoe_halves_;
  ort::OpDomain* domain_ = nullptr;
};

ort::Status* register_ops(ort::SessionOptions* options, const ort::ApiBase* base) {
  const ort::Api* api = base->GetApi(ort::VERSION);
  if (api == nullptr) return nullptr;  // an older runtime: it runs what it knows itself
  const Kernels* kernels = choose_kernels();
  if (kernels == nullptr) {
    return api->CreateStatus(ort::INVALID_ARGUMENT, "ERNIE_RT_KERNELS names no kernels that this processor can run");
  }
  static std::mutex mutex;
  static auto* const domains = new std::map<const Kernels*, Domain>;  // never deleted: sessions may outlive it
  const std::lock_guard<std::mutex> lock(mutex);
  return domains->try_emplace(kernels, kernels).first->second.add_to(options, api);
}

}  // namespace
}  // namespace ernie_rt

extern "C" {

#if defined(_WIN32)
#define EXPORTED __declspec(dllexport)
#else
#define EXPORTED __attribute__((visibility("default")))
#endif

EXPORTED ort::Status* RegisterCustomOps(ort::SessionOptions* options, const ort::ApiBase* base) {
  return ernie_rt::register_ops(options, base);
}

// The kernels that are used here, by name: "avx512" for one; null when there are none to choose.
EXPORTED const char* ernie_rt_kernels() {
  const ernie_rt::Kernels* found = ernie_rt::choose_kernels();
  return found != nullptr ? found->name : nullptr;
}

// What operators on this thread have read since the last call.
EXPORTED ernie_rt::Reads ernie_rt_take_reads() { return std::exchange(ernie_rt::reads_of_this_thread(), {}); }

}
