"""Sums of bfloat16, by MPI, Gloo and NCCL."""

from __future__ import annotations

from horovod_edits.edit import Edit

EDITS = [
    Edit(
        "horovod/common/message.h",
        "  HOROVOD_BOOL = 9,\n",
        "  HOROVOD_BOOL = 9,\n  HOROVOD_BFLOAT16 = 10,\n",
        "bfloat16 could not be summed",
    ),
    Edit(
        "horovod/common/message.cc",
        """\
      return bool_;
""",
        """\
      return bool_;
    case HOROVOD_BFLOAT16:
      static const std::string bfloat16("bfloat16");
      return bfloat16;
""",
        "the same: its name",
    ),
    Edit(
        "horovod/common/message.cc",
        "    case HOROVOD_FLOAT16:\n      return 2;\n",
        "    case HOROVOD_FLOAT16:\n    case HOROVOD_BFLOAT16:\n      return 2;\n",
        "the same: its bytes",
    ),
    Edit(
        "horovod/common/half.h",
        "#include <stdint.h>\n",
        """\
#include <stdint.h>
#include <string.h>

// The upper half of a float, rounded to the nearest, ties to even.
struct BFloat16 {
  uint16_t bits;

  BFloat16() = default;
  BFloat16(float value) {
    uint32_t whole;
    memcpy(&whole, &value, sizeof(whole));
    if (value != value) {
      whole |= 0x400000; // not a number, also without the lower half
    } else {
      whole += 0x7fff + ((whole >> 16) & 1);
    }
    bits = whole >> 16;
  }
  operator float() const {
    uint32_t whole = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &whole, sizeof(value));
    return value;
  }
};
""",
        "the same: how it is computed with",
    ),
    Edit(
        "horovod/common/mpi/mpi_context.cc",
        "  case HOROVOD_FLOAT16:\n    return mpi_float16_t;\n",
        """\
  case HOROVOD_FLOAT16:
    return mpi_float16_t;
  case HOROVOD_BFLOAT16:
    return MPI_UINT16_T;
""",
        "the same: how MPI sends it",
    ),
    Edit(
        "horovod/common/mpi/mpi_context.cc",
        """\
MPI_Op MPIContext::GetMPISumOp(DataType dtype) const {
  return dtype""",
        """\
namespace {

// Combine what arrives with what is there, with what is there in place.
template <float combine(float, float)> MPI_Op BFloat16Op() {
  static const MPI_Op op = [] {
    MPI_Op made;
    MPI_Op_create(
        [](void* arrived, void* there, int* count, MPI_Datatype*) {
          auto from = (const BFloat16*)arrived;
          auto to = (BFloat16*)there;
          for (int i = 0; i < *count; ++i) {
            to[i] = combine(from[i], to[i]);
          }
        },
        1, &made);
    return made;
  }();
  return op;
}

float Add(float a, float b) { return a + b; }
float Least(float a, float b) { return b < a ? b : a; }
float Most(float a, float b) { return a < b ? b : a; }
float Times(float a, float b) { return a * b; }

} // namespace

MPI_Op MPIContext::GetMPISumOp(DataType dtype) const {
  return dtype == HOROVOD_BFLOAT16 ? BFloat16Op<Add>()
         : dtype""",
        "the same: how MPI sums it",
    ),
    Edit(
        "horovod/common/mpi/mpi_context.cc",
        "  return dtype == HOROVOD_FLOAT16 ? mpi_float16_min",
        """\
  return dtype == HOROVOD_BFLOAT16 ? BFloat16Op<Least>()
         : dtype == HOROVOD_FLOAT16 ? mpi_float16_min""",
        "the same: the least",
    ),
    Edit(
        "horovod/common/mpi/mpi_context.cc",
        "  return dtype == HOROVOD_FLOAT16 ? mpi_float16_max",
        """\
  return dtype == HOROVOD_BFLOAT16 ? BFloat16Op<Most>()
         : dtype == HOROVOD_FLOAT16 ? mpi_float16_max""",
        "the same: the most",
    ),
    Edit(
        "horovod/common/mpi/mpi_context.cc",
        "  return dtype == HOROVOD_FLOAT16 ? mpi_float16_prod",
        """\
  return dtype == HOROVOD_BFLOAT16 ? BFloat16Op<Times>()
         : dtype == HOROVOD_FLOAT16 ? mpi_float16_prod""",
        "the same: the product",
    ),
    Edit(
        "horovod/common/ops/gloo_operations.cc",
        "  case HOROVOD_FLOAT32:\n",
        """\
  case HOROVOD_BFLOAT16:
    return new GlooAlgorithms<BFloat16>(gloo_context);
  case HOROVOD_FLOAT32:
""",
        "the same, by Gloo",
    ),
    Edit(
        "horovod/common/ops/gloo_operations.cc",
        '#include "../global_state.h"\n',
        '#include "../global_state.h"\n#include "../half.h"\n',
        "the same: where it is declared",
    ),
    Edit(
        "horovod/common/ops/nccl_operations.cc",
        "    return ncclFloat16;\n",
        "    return ncclFloat16;\n  case HOROVOD_BFLOAT16:\n    return ncclBfloat16;\n",
        "the same, by NCCL",
    ),
    Edit(
        "horovod/torch/adapter_v2.cc",
        "  case common::HOROVOD_FLOAT16:\n    return ::torch::kHalf;\n",
        """\
  case common::HOROVOD_FLOAT16:
    return ::torch::kHalf;
  case common::HOROVOD_BFLOAT16:
    return ::torch::kBFloat16;
""",
        "the same: what PyTorch calls it",
    ),
    Edit(
        "horovod/torch/adapter_v2.cc",
        "  case ::torch::kHalf:\n    return common::HOROVOD_FLOAT16;\n",
        """\
  case ::torch::kHalf:
    return common::HOROVOD_FLOAT16;
  case ::torch::kBFloat16:
    return common::HOROVOD_BFLOAT16;
""",
        "the same, the other way",
    ),
    Edit(
        "horovod/torch/mpi_ops_v2.cc",
        """\
PYBIND11_MODULE(mpi_lib_v2, m) {
  // allreduce
""",
        """\
PYBIND11_MODULE(mpi_lib_v2, m) {
  // allreduce
  m.def("horovod_torch_allreduce_async_torch_BFloat16Tensor", &DoAllreduce);
  m.def("horovod_torch_grouped_allreduce_async_torch_BFloat16Tensor",
        &DoGroupedAllreduce);
#if HOROVOD_GPU_ALLREDUCE
  m.def("horovod_torch_allreduce_async_torch_cuda_BFloat16Tensor",
        &DoAllreduce);
  m.def("horovod_torch_grouped_allreduce_async_torch_cuda_BFloat16Tensor",
        &DoGroupedAllreduce);
#else
  m.def("horovod_torch_allreduce_async_torch_cuda_BFloat16Tensor",
        &DoAllreduceCudaOnCPU);
  m.def("horovod_torch_grouped_allreduce_async_torch_cuda_BFloat16Tensor",
        &DoGroupedAllreduceCudaOnCPU);
#endif
""",
        "the same: what Python calls",
    ),
]
