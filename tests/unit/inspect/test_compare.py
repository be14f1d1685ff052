"""How far apart two runs are."""

import pytest
import torch

from hvd_utils.cli.errors import BadInput
from hvd_utils.inspect import compare
from hvd_utils.run.checkpoint import save_checkpoint


def end_of_run(folder, *, step=3, weight=2.0, momentum=1.0, average=4.0, averaged=None):
    model = {
        "fc.weight": torch.tensor([1.0, weight]),
        "bn.running_mean": torch.tensor([average]),
        "bn.num_batches_tracked": torch.tensor(step),
    }
    optimizer = {"state": {0: {"momentum_buffer": torch.tensor([momentum])}}}
    state = {"step": step, "experiment": {"model": "m"}, "model": model, "optimizer": optimizer}
    if averaged is not None:
        state["averaged"] = {"fc.weight": torch.tensor([averaged])}
    save_checkpoint(folder, state, keep=3)
    return folder


def test_differences_are_relative_to_each_tensor_and_told_by_kind(tmp_path):
    first = end_of_run(tmp_path / "a")
    other = end_of_run(tmp_path / "b", weight=2.5, momentum=0.9, average=4.0)
    apart = compare.differences(compare.newest(other), compare.newest(first))
    kinds = ["weights", "momentum", "running averages", "averaged weights"]
    assert apart == pytest.approx(dict(zip(kinds, [0.25, 0.1, 0.0, 0.0], strict=True)))


def test_a_tensor_that_is_zero_but_for_rounding_counts_as_a_part_of_the_largest(tmp_path):
    first = end_of_run(tmp_path / "a", weight=1e-17)
    other = end_of_run(tmp_path / "b", weight=2e-17)
    ours, theirs = compare.newest(other), compare.newest(first)
    for state in (ours, theirs):  # beside another tensor of the largest magnitude 1
        state["model"]["bias"] = state["model"]["fc.weight"][1:].clone()
    apart = compare.differences(ours, theirs)
    assert apart["weights"] == pytest.approx(1e-17 / compare.LEAST)


def test_every_run_is_shown_beside_the_first(tmp_path, monkeypatch, capsys):
    runs = [end_of_run(tmp_path / "a"), end_of_run(tmp_path / "b", weight=2.5)]
    monkeypatch.setattr("sys.argv", ["compare", *map(str, runs)])
    compare.main()
    *_, heading, line = capsys.readouterr().out.splitlines()
    assert "averaged weights" not in heading  # these runs keep none
    assert line.split() == ["2.5e-01", "0.0e+00", "0.0e+00", str(runs[1])]


def test_averaged_weights_are_shown_where_there_are_some(tmp_path, monkeypatch, capsys):
    runs = [end_of_run(tmp_path / name, averaged=value) for name, value in (("a", 2.0), ("b", 3.0))]
    monkeypatch.setattr("sys.argv", ["compare", *map(str, runs)])
    compare.main()
    *_, heading, line = capsys.readouterr().out.splitlines()
    assert heading.split()[-3:] == ["averaged", "weights", "run"]
    assert line.split()[-2:] == ["5.0e-01", str(runs[1])]


def test_runs_at_other_steps_and_folders_without_runs_are_refused(tmp_path):
    one, two = end_of_run(tmp_path / "a"), end_of_run(tmp_path / "b", step=4)
    with pytest.raises(BadInput, match="steps 4 and 3"):
        compare.differences(compare.newest(two), compare.newest(one))
    with pytest.raises(BadInput, match="no checkpoint in"):
        compare.newest(tmp_path)


def test_nothing_is_shown_where_a_run_is_refused(tmp_path, monkeypatch, capsys):
    runs = [end_of_run(tmp_path / "a"), end_of_run(tmp_path / "b", step=4)]
    monkeypatch.setattr("sys.argv", ["compare", *map(str, runs)])
    with pytest.raises(BadInput, match="steps 4 and 3"):
        compare.main()
    assert capsys.readouterr().out == ""
