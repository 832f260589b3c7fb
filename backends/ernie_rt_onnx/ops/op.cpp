#include "op.h"

#include <algorithm>

namespace ernie_rt {

std::string spelled(const Dims& dims) {
  std::string text = "[";
  for (size_t i = 0; i < dims.size(); i++) {
    if (i > 0) text += ", ";
    text += dims[i] < 0 ? "?" : std::to_string(dims[i]);
  }
  return text + "]";
}

const Tensor& Tensor::expect(const Dims& wanted) const {
  const bool same = std::equal(dims.begin(), dims.end(), wanted.begin(), wanted.end(),
                               [](int64_t found, int64_t size) { return size < 0 || found == size; });
  if (data == nullptr) throw Failure{std::string("no input ") + name};
  if (!same) throw Failure{std::string(name) + " is " + spelled(dims) + ", expected " + spelled(wanted)};
  return *this;
}

void Scratch::restart() {
  if (pieces_.size() > 1) {  // one piece for all of it, the next time
    size_t total = 0;
    for (const auto& piece : pieces_) total += piece.size();
    pieces_.assign(1, std::vector<unsigned char>(total));
  }
  piece_ = used_ = 0;
}

void* Scratch::take_bytes(size_t bytes) {
  constexpr size_t LINE = 64;
  bytes = (bytes + LINE - 1) / LINE * LINE;
  while (piece_ < pieces_.size() && used_ + bytes + LINE > pieces_[piece_].size()) piece_++, used_ = 0;
  if (piece_ == pieces_.size()) pieces_.emplace_back(std::max(bytes + LINE, size_t{1} << 20));
  unsigned char* start = pieces_[piece_].data() + used_;
  const size_t past = reinterpret_cast<uintptr_t>(start) % LINE, skip = past ? LINE - past : 0;
  used_ += skip + bytes;
  return start + skip;
}

Context::Context(const ort::Api* api, ort::KernelContext* context, const char* const* names)
    : api_(api), context_(context), names_(names) {
  check(api_->KernelContext_GetInputCount(context_, &inputs_));
}

void Context::check(ort::Status* status) const {
  if (status == nullptr) return;
  api_->ReleaseStatus(status);
  throw Failure{"a call of ONNX Runtime failed"};
}

Tensor Context::input(size_t index) const {
  Tensor tensor;
  tensor.name = names_[index];
  const ort::Value* value = nullptr;
  if (index < inputs_) check(api_->KernelContext_GetInput(context_, index, &value));
  if (value == nullptr) return tensor;
  void* data = nullptr;
  check(api_->GetTensorMutableData(const_cast<ort::Value*>(value), &data));
  ort::ShapeInfo* shape = nullptr;
  check(api_->GetTensorTypeAndShape(value, &shape));
  size_t rank = 0;
  ort::Status* status = api_->GetDimensionsCount(shape, &rank);
  tensor.dims.resize(rank);
  if (status == nullptr) status = api_->GetDimensions(shape, tensor.dims.data(), rank);
  api_->ReleaseTensorTypeAndShapeInfo(shape);
  check(status);
  static const float nothing = 0;
  tensor.data = data == nullptr ? &nothing : data;  // of a tensor without elements there may be none
  return tensor;
}

void* Context::output_data(size_t index, const Dims& dims) const {
  ort::Value* value = nullptr;
  check(api_->KernelContext_GetOutput(context_, index, dims.data(), dims.size(), &value));
  void* data = nullptr;
  check(api_->GetTensorMutableData(value, &data));
  return data;
}

int64_t Attributes::integer(const char* name) const {
  int64_t value = 0;
  ort::Status* status = api_->KernelInfoGetAttribute_int64(info_, name, &value);
  if (status == nullptr) return value;
  api_->ReleaseStatus(status);
  throw Failure{std::string("no attribute ") + name + ", an integer"};
}

bool Attributes::flag(const char* name) const {
  int64_t value = 0;
  api_->ReleaseStatus(api_->KernelInfoGetAttribute_int64(info_, name, &value));
  return value != 0;
}

float Attributes::number(const char* name) const {
  float value = 0;
  ort::Status* status = api_->KernelInfoGetAttribute_float(info_, name, &value);
  if (status == nullptr) return value;
  api_->ReleaseStatus(status);
  throw Failure{std::string("no attribute ") + name + ", a number"};
}

}  // namespace ernie_rt
