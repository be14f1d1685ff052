"""What makes Horovod compile and import with a current PyTorch and Python, and sooner."""

from __future__ import annotations

from horovod_edits.edit import Edit

EDITS = [
    Edit(
        "CMakeLists.txt",
        "set(CMAKE_CXX_STANDARD 14)",
        "set(CMAKE_CXX_STANDARD 20)",
        "PyTorch's headers need C++17 since 2.1 and C++20 since 2.13",
    ),
    Edit(
        "horovod/torch/CMakeLists.txt",
        "set(CMAKE_CXX_STANDARD 14)",
        "set(CMAKE_CXX_STANDARD 20)",
        "the same, for the PyTorch binding",
    ),
    Edit(
        "horovod/runner/js_run.py",
        "from distutils.spawn import find_executable",
        "from shutil import which as find_executable",
        "Python 3.12 has no distutils, and horovodrun imports this file",
    ),
    Edit(
        "setup.py",
        "else 'RelWithDebInfo'",
        "else 'Release'",
        "the same machine code without what debuggers read, which takes long to write",
    ),
    Edit(
        "horovod/torch/CMakeLists.txt",
        "from distutils.sysconfig import get_python_inc; print(get_python_inc())",
        "import sysconfig; print(sysconfig.get_path('include'))",
        "Python 3.12 has no distutils",
    ),
    Edit(
        "horovod/common/group_table.h",
        "#include <queue>\n",
        "#include <queue>\n#include <string>\n",
        "GCC 14's other headers no longer bring std::string (upstream: horovod 3957)",
    ),
    Edit(
        "third_party/flatbuffers/include/flatbuffers/stl_emulation.h",
        "const size_type count_;",
        "size_type count_;",
        "GCC 14 refuses an assignment to a const member (upstream: flatbuffers 7227)",
    ),
    Edit(
        "third_party/gloo/gloo/types.h",
        "#include <iostream>\n",
        "#include <cstdint>\n#include <iostream>\n",
        "GCC 15's <iostream> no longer brings uint8_t",
    ),
    Edit(
        "cmake/Modules/FindPytorch.cmake",
        'COMMAND ${PY_EXE} -c "import torch; from torch.utils.cpp_extension import CUDA_HOME; '
        "print(True if ((torch.version.cuda is not None) and (CUDA_HOME is not None))",
        'COMMAND ${PY_EXE} -c "import os, torch; from torch.utils.cpp_extension import CUDA_HOME; '
        "print(True if ((torch.version.cuda is not None) and (CUDA_HOME is not None) "
        "and os.environ.get('HOROVOD_WITHOUT_GPU') != '1')",
        "a CUDA build of PyTorch does not mean that there is a toolkit to build with",
    ),
]
