"""An immutable directory with a manifest, opened from the store."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm_assets.store.files import sha256_file
from llm_assets.store.manifest import ArtifactError, Manifest

if TYPE_CHECKING:
    import pyarrow


@dataclass(frozen=True)
class Artifact:
    """A committed artifact at a local path."""

    directory: Path
    manifest: Manifest

    @property
    def link(self) -> str:
        """The link that made it."""
        return self.manifest.link

    @property
    def fingerprint(self) -> str:
        """The name it has in the store."""
        return self.manifest.fingerprint

    @property
    def data_version(self) -> str:
        """What downstream recipes record: a content digest, or the fingerprint of a trained link."""
        return self.manifest.data_version

    @property
    def metrics(self) -> dict[str, Any]:
        """The figures its maker measured."""
        return self.manifest.metrics

    def path(self, name: str) -> Path:
        """The local path of a file or folder in it. Raises ``ArtifactError`` when there is none."""
        path = self.directory / name
        if not path.exists():
            raise ArtifactError(f"{self.link} {self.fingerprint} has no file {name}; it holds {', '.join(self.manifest.files)}")
        return path

    def table(self, name: str, columns: list[str] | None = None) -> pyarrow.Table:
        """A Parquet file of it as an Arrow table, all columns or the named ones."""
        import pyarrow.parquet

        return pyarrow.parquet.read_table(self.path(name), columns=columns)

    def batches(self, name: str, columns: list[str] | None = None, rows: int = 10_000) -> Iterator[pyarrow.RecordBatch]:
        """The rows of a Parquet file in order, at most ``rows`` of one row group at once, so that memory does not grow with the file.

        Row groups are bounded in bytes where they are written, rows are not: a batch across groups could hold any number of long texts.
        """
        import pyarrow.parquet

        with pyarrow.parquet.ParquetFile(self.path(name)) as file:
            for group in range(file.num_row_groups):
                yield from file.iter_batches(rows, row_groups=[group], columns=columns)

    def rows(self, name: str) -> int:
        """How many rows a Parquet file of it has, from the file's own metadata."""
        import pyarrow.parquet

        return int(pyarrow.parquet.read_metadata(self.path(name)).num_rows)

    def json(self, name: str) -> Any:
        """A JSON file of it."""
        return json.loads(self.path(name).read_text(encoding="utf-8"))

    def check_sizes(self) -> None:
        """Compare every file's size with the manifest. Raises ``ArtifactError`` naming the file."""
        for name, entry in self.manifest.files.items():
            path = self.directory / name
            size = path.stat().st_size if path.is_file() else None
            if size != entry.size:
                found = "is missing" if size is None else f"has {size} bytes"
                raise ArtifactError(self._damage(name, f"{found}, its manifest says {entry.size}"))

    def verify(self) -> None:
        """Compare every file's SHA-256 with the manifest. Raises ``ArtifactError`` naming the file."""
        self.check_sizes()
        for name, entry in self.manifest.files.items():
            if sha256_file(self.directory / name) != entry.sha256:
                raise ArtifactError(self._damage(name, "does not have the hash its manifest records"))

    def _damage(self, name: str, what: str) -> str:
        return f"{self.link} {self.fingerprint}: {name} {what}; run `llm-assets verify --discard` and materialize {self.link} again"
