"""Sums on a GPU, with HOROVOD_ENABLE_ASYNC_COMPLETION=1: who waits for them, and when.

As released the queue of backprop is told to wait for a sum as soon as the sum is queued, in the
middle of the backward pass: what is computed after that does not overlap with it.
"""

from __future__ import annotations

from horovod_edits.edit import Edit

_FILE = "horovod/torch/mpi_ops_v2.cc"
_WAITS = """\
const Status& status) mutable {
#if HAVE_GPU
        auto hvd_event = status.event;
        if (hvd_event.event) {
          auto stream = GetGPUStream(device);
"""
_LETS_ANOTHER_WAIT = _WAITS.replace(
    "auto stream = GetGPUStream(device);",
    "auto stream =\n"
    "              divisor > 1 ? GetGPUStream(device) : SumsUnderWay(device).stream;",
)

EDITS = [
    Edit(
        _FILE,
        """\
  return c10::cuda::getCurrentCUDAStream(device);
}
#endif
""",
        """\
  return c10::cuda::getCurrentCUDAStream(device);
}

// A stream that waits for each sum on its device, and nothing else.
struct Sums {
  cudaStream_t stream = nullptr;
  cudaEvent_t done = nullptr;
};

static std::mutex sums_mutex;
static std::unordered_map<int, Sums> sums_by_device;

Sums& SumsUnderWay(int device) {
  std::lock_guard<std::mutex> guard(sums_mutex);
  auto& sums = sums_by_device[device];
  if (sums.stream == nullptr) {
    with_device device_guard(device);
    C10_CUDA_CHECK(
        cudaStreamCreateWithFlags(&sums.stream, cudaStreamNonBlocking));
    C10_CUDA_CHECK(
        cudaEventCreateWithFlags(&sums.done, cudaEventDisableTiming));
  }
  return sums;
}

// Lets what the caller queues from now on wait for all sums queued so far.
void WaitForSumsUnderWay() {
  std::lock_guard<std::mutex> guard(sums_mutex);
  for (auto& device_sums : sums_by_device) {
    auto& sums = device_sums.second;
    with_device device_guard(device_sums.first);
    C10_CUDA_CHECK(cudaEventRecord(sums.done, sums.stream));
    C10_CUDA_CHECK(cudaStreamWaitEvent(GetGPUStream(device_sums.first),
                                       sums.done, 0));
  }
}
#endif
""",
        "with asynchronous completion the stream of backprop waited for each sum from the moment "
        "it was queued; now a stream of its own does, and who asks for the result waits for that",
    ),
    Edit(
        _FILE,
        "      [handle, divisor, output, device](" + _WAITS,
        "      [handle, divisor, output, device](" + _LETS_ANOTHER_WAIT,
        "the same, for one tensor; averages are still divided on the stream that waits",
    ),
    Edit(
        _FILE,
        "       device](" + _WAITS,
        "       device](" + _LETS_ANOTHER_WAIT,
        "the same, for a group of tensors",
    ),
    Edit(
        _FILE,
        """\
  auto status = handle_manager.ReleaseHandle(handle);
  ThrowIfError(*status);
}
""",
        """\
  auto status = handle_manager.ReleaseHandle(handle);
  ThrowIfError(*status);
#if HAVE_GPU
  WaitForSumsUnderWay();
#endif
}
""",
        "the same: who asks for the result",
    ),
    Edit(
        _FILE,
        "#include <thread>\n",
        "#include <mutex>\n#include <thread>\n#include <unordered_map>\n",
        "the same: where its parts are declared",
    ),
]
