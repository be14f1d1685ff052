"""The paper's tables as Markdown, with what runs came to beside its figures."""

from __future__ import annotations

from collections.abc import Iterator

from hvd_utils.paper.results import PRINTED, ROWS, SEEDS, Row
from hvd_utils.reproduction.collected import Collected

TITLES = {
    "Table 1": "warmup",
    "Table 2a": "learning rate",
    "Table 2b": "γ of the last batch norm of each block",
    "Table 2c": "ResNet-101",
    "Figure 3": "minibatch (Figure 1 draws it too)",
}
NOT_HERE = {
    "imagenet_5k": "Figure 6, ImageNet-5k: not part of this command",
    "transfer": "Table 3a, Mask R-CNN from these weights: by examples/mask_rcnn.py",
    "detection": "Table 3b, Mask R-CNN by linear scaling: by examples/mask_rcnn.py",
}


def markdown(collected: Collected) -> Iterator[str]:
    """Yield the tables line by line; the last are those that no run here can fill."""
    for source, title in TITLES.items():
        rows = [row for row in ROWS if row.reference.source == source]
        yield f"**{source}, page {rows[0].reference.page}: {title}**\n"
        yield "| kn | rate | differs from the recipe | top-1 error %, paper | here | runs |"
        yield "|---|---|---|---|---|---|"
        yield from (_line(row, collected) for row in rows)
        yield ""
    for part, title in NOT_HERE.items():
        names = [name for name in PRINTED[part][0] if name not in ("source", "page")]
        yield f"**{title} (page {PRINTED[part][0]['page']})**\n"
        yield f"| {' | '.join(names)} |"
        yield f"|{'---|' * len(names)}"
        yield from (
            f"| {' | '.join(f'{printed[name]:,}' for name in names)} |" for printed in PRINTED[part]
        )
        yield ""


def _line(row: Row, collected: Collected) -> str:
    outcome = collected.of(row)
    departs = ", ".join(f"{name} {value}" for name, value in row.settings.items())
    here, runs = (str(outcome), len(outcome.errors)) if outcome else ("", 0)
    return (
        f"| {row.minibatch:,} | {row.rate:.4g} | {departs} | {row.reference} | {here} | "
        f"{runs} of {SEEDS} |"
    )
