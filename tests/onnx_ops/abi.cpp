// Compares the ABI that is declared by hand with ONNX Runtime's own header. Nothing to run: it compiles or does not.

#include <onnxruntime_c_api.h>

#include <cstddef>

#include "ort_abi.h"

#define PLACE(table, ours, name) static_assert(offsetof(table, name) == offsetof(ort::ours, name), #name)

static_assert(ort::VERSION <= ORT_API_VERSION, "the header is older than what is asked for");

PLACE(OrtApi, Api, CreateStatus);
PLACE(OrtApi, Api, CreateCustomOpDomain);
PLACE(OrtApi, Api, CustomOpDomain_Add);
PLACE(OrtApi, Api, AddCustomOpDomain);
PLACE(OrtApi, Api, GetTensorMutableData);
PLACE(OrtApi, Api, GetDimensionsCount);
PLACE(OrtApi, Api, GetDimensions);
PLACE(OrtApi, Api, GetTensorTypeAndShape);
PLACE(OrtApi, Api, KernelInfoGetAttribute_float);
PLACE(OrtApi, Api, KernelInfoGetAttribute_int64);
PLACE(OrtApi, Api, KernelContext_GetInputCount);
PLACE(OrtApi, Api, KernelContext_GetInput);
PLACE(OrtApi, Api, KernelContext_GetOutput);
PLACE(OrtApi, Api, ReleaseStatus);
PLACE(OrtApi, Api, ReleaseTensorTypeAndShapeInfo);
PLACE(OrtApi, Api, KernelContext_ParallelFor);

PLACE(OrtApiBase, ApiBase, GetApi);
PLACE(OrtApiBase, ApiBase, GetVersionString);

PLACE(OrtCustomOp, CustomOp, version);
PLACE(OrtCustomOp, CustomOp, CreateKernel);
PLACE(OrtCustomOp, CustomOp, GetName);
PLACE(OrtCustomOp, CustomOp, GetExecutionProviderType);
PLACE(OrtCustomOp, CustomOp, GetInputType);
PLACE(OrtCustomOp, CustomOp, GetInputTypeCount);
PLACE(OrtCustomOp, CustomOp, GetOutputType);
PLACE(OrtCustomOp, CustomOp, GetOutputTypeCount);
PLACE(OrtCustomOp, CustomOp, KernelCompute);
PLACE(OrtCustomOp, CustomOp, KernelDestroy);
PLACE(OrtCustomOp, CustomOp, GetInputCharacteristic);
PLACE(OrtCustomOp, CustomOp, GetOutputCharacteristic);
PLACE(OrtCustomOp, CustomOp, GetInputMemoryType);
PLACE(OrtCustomOp, CustomOp, GetVariadicInputMinArity);
PLACE(OrtCustomOp, CustomOp, GetVariadicInputHomogeneity);
PLACE(OrtCustomOp, CustomOp, GetVariadicOutputMinArity);
PLACE(OrtCustomOp, CustomOp, GetVariadicOutputHomogeneity);
PLACE(OrtCustomOp, CustomOp, CreateKernelV2);
PLACE(OrtCustomOp, CustomOp, KernelComputeV2);
PLACE(OrtCustomOp, CustomOp, InferOutputShapeFn);
PLACE(OrtCustomOp, CustomOp, GetStartVersion);
PLACE(OrtCustomOp, CustomOp, GetEndVersion);

#define SAME(theirs, ours) static_assert(static_cast<int>(theirs) == static_cast<int>(ort::ours), #theirs)

SAME(ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, FLOAT);
SAME(ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8, UINT8);
SAME(ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32, INT32);
SAME(ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16, FLOAT16);
SAME(ORT_FAIL, FAIL);
SAME(ORT_INVALID_ARGUMENT, INVALID_ARGUMENT);
SAME(INPUT_OUTPUT_REQUIRED, REQUIRED);
SAME(INPUT_OUTPUT_OPTIONAL, OPTIONAL);
static_assert(OrtMemTypeDefault == 0, "what GetInputMemoryType returns");
