// The part of ONNX Runtime's C ABI that this library uses, declared by hand: its headers are in no wheel.
//
// The ABI only grows: later versions append to the table of functions. What stands here holds from version 17 (ONNX
// Runtime 1.17) on. tests/onnx_ops/abi.cpp compares every place and constant with the real header.

#pragma once

#include <cstddef>
#include <cstdint>

namespace ort {

constexpr uint32_t VERSION = 17;  // of the table that is asked for

struct Status;
struct Value;
struct ShapeInfo;  // OrtTensorTypeAndShapeInfo
struct KernelInfo;
struct KernelContext;
struct SessionOptions;
struct OpDomain;  // OrtCustomOpDomain
struct CustomOp;

enum ElementType : int { FLOAT = 1, UINT8 = 2, INT32 = 6, BOOL = 9, FLOAT16 = 10 };
enum ErrorCode : int { FAIL = 1, INVALID_ARGUMENT = 2 };
enum Characteristic : int { REQUIRED = 0, OPTIONAL = 1 };

// OrtApi: what is used, each function in its place.
struct Api {
  Status* (*CreateStatus)(ErrorCode, const char*);
  void* unused_1[25];
  Status* (*CreateCustomOpDomain)(const char*, OpDomain**);
  Status* (*CustomOpDomain_Add)(OpDomain*, const CustomOp*);
  Status* (*AddCustomOpDomain)(SessionOptions*, OpDomain*);
  void* unused_29[22];
  Status* (*GetTensorMutableData)(Value*, void**);
  void* unused_52[9];
  Status* (*GetDimensionsCount)(const ShapeInfo*, size_t*);
  Status* (*GetDimensions)(const ShapeInfo*, int64_t*, size_t);
  void* unused_63[2];
  Status* (*GetTensorTypeAndShape)(const Value*, ShapeInfo**);
  void* unused_66[19];
  Status* (*KernelInfoGetAttribute_float)(const KernelInfo*, const char*, float*);
  Status* (*KernelInfoGetAttribute_int64)(const KernelInfo*, const char*, int64_t*);
  void* unused_87[1];
  Status* (*KernelContext_GetInputCount)(const KernelContext*, size_t*);
  void* unused_89[1];
  Status* (*KernelContext_GetInput)(const KernelContext*, size_t, const Value**);
  Status* (*KernelContext_GetOutput)(KernelContext*, size_t, const int64_t*, size_t, Value**);
  void* unused_92[1];
  void (*ReleaseStatus)(Status*);
  void* unused_94[5];
  void (*ReleaseTensorTypeAndShapeInfo)(ShapeInfo*);
  void* unused_100[174];
  Status* (*KernelContext_ParallelFor)(const KernelContext*, void (*)(void*, size_t), size_t, size_t, void*);
};

struct ApiBase {
  const Api* (*GetApi)(uint32_t version);  // null where the runtime is older
  const char* (*GetVersionString)();
};

// OrtCustomOp, as far as version 17 reads it.
struct CustomOp {
  uint32_t version;
  void* (*CreateKernel)(const CustomOp*, const Api*, const KernelInfo*);
  const char* (*GetName)(const CustomOp*);
  const char* (*GetExecutionProviderType)(const CustomOp*);
  ElementType (*GetInputType)(const CustomOp*, size_t);
  size_t (*GetInputTypeCount)(const CustomOp*);
  ElementType (*GetOutputType)(const CustomOp*, size_t);
  size_t (*GetOutputTypeCount)(const CustomOp*);
  void (*KernelCompute)(void*, KernelContext*);
  void (*KernelDestroy)(void*);
  Characteristic (*GetInputCharacteristic)(const CustomOp*, size_t);
  Characteristic (*GetOutputCharacteristic)(const CustomOp*, size_t);
  int (*GetInputMemoryType)(const CustomOp*, size_t);
  int (*GetVariadicInputMinArity)(const CustomOp*);
  int (*GetVariadicInputHomogeneity)(const CustomOp*);
  int (*GetVariadicOutputMinArity)(const CustomOp*);
  int (*GetVariadicOutputHomogeneity)(const CustomOp*);
  Status* (*CreateKernelV2)(const CustomOp*, const Api*, const KernelInfo*, void**);
  Status* (*KernelComputeV2)(void*, KernelContext*);
  Status* (*InferOutputShapeFn)(const CustomOp*, void*);
  int (*GetStartVersion)(const CustomOp*);
  int (*GetEndVersion)(const CustomOp*);
};

}  // namespace ort
