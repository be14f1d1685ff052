"""The benchmark of the last layer counts what is there; never how fast it is."""

import json
import sys

from benchmarks import head


def test_the_last_layers_bytes_grow_with_its_classes(tmp_path, monkeypatch, capsys):
    arguments = ["--classes", "10,1000", "--images", "4", "--rounds", "1"]
    arguments += ["--json", str(tmp_path / "head.json")]
    monkeypatch.setattr(sys, "argv", ["head", *arguments])
    head.main()
    written = json.loads((tmp_path / "head.json").read_text())
    assert min(written["seconds"].values()) > 0
    layer = 4 * 1000 * (2048 + 1)
    assert written["bytes"]["1000"] == {
        "parameters": 3 * layer, "logits": 3 * 4 * 1000 * 4, "allreduce": 2 * layer
    }  # fmt: skip
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[2:4]] == [
        "10", "1,000"
    ]  # fmt: skip
