"""The DALI loader: reading, decoding, and the transforms that follow on a CPU.

Part of ``loading``. Start with ``loader``, then ``graph``.
"""

from hvd_utils.cli.errors import BadInput

try:
    import nvidia.dali  # noqa: F401
except ModuleNotFoundError as error:  # an extra of this package, as each CUDA has its own
    raise BadInput(
        "DALI is not installed: pip install 'imagenet-in-1-hour[cuda13]' ([cuda12] for drivers "
        "before 580), or set --loader torchvision"
    ) from error
