"""Settings of data that lie in an object store. No weight depends on them."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator

from hvd_utils.config.data_size import parse_bytes
from hvd_utils.config.recipe import Section


class StorageSettings(Section):
    """data in an object store (--data s3://... or https://..., or an index of tars there)."""

    cache: Path | None = Field(
        None,
        description="folder on each node's disk, shared by its processes and kept between jobs, "
        "for the index and what was read; unset: one below TMPDIR",
    )
    cache_size: str = Field("20GB", description="the most that it holds, as 500GB")
    storage_patience: float = Field(
        120,
        gt=0,
        le=1e6,
        description="try a failed read again for so long, then end the job, seconds",
    )

    @field_validator("cache_size", mode="before")
    @classmethod
    def _is_a_size(cls, value: str | int) -> str:
        parse_bytes(value)
        return str(value)
