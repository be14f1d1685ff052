"""The console commands of an installed wheel: each runs the module that its name stands for."""

import runpy
from functools import partial


def _run(module: str) -> None:
    runpy.run_module(module, run_name="__main__", alter_sys=True)


train = partial(_run, "train_imagenet")
preflight = partial(_run, "hvd_utils.preflight")
status = partial(_run, "hvd_utils.status")
track = partial(_run, "hvd_utils.track")
report = partial(_run, "hvd_utils.report")
final = partial(_run, "hvd_utils.final")
compare = partial(_run, "hvd_utils.compare")
scaling = partial(_run, "hvd_utils.scaling")
paper = partial(_run, "hvd_utils.paper")
prepare = partial(_run, "dali_pipeline.prepare")
stage = partial(_run, "dali_pipeline.stage")
export = partial(_run, "hvd_utils.export")
predict = partial(_run, "hvd_utils.predict")
completion = partial(_run, "hvd_utils.completion")
