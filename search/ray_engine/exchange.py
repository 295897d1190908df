"""The folder by which driver and nodes exchange checkpoints: a local or shared path, or any URL that fsspec knows."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import fsspec
import pyarrow.fs
from ray.tune import Checkpoint

from search.files import replace_file
from search.types import InputError

MARK = "hfir-search-exchange"
"""A file of the folder by which a node knows that it sees the driver's one, and not another of the same name."""
CANDIDATE = "candidate.pt"
"""Name of a candidate's training within a checkpoint."""
SCALARS = "scalars"
"""Folder of its TensorBoard scalars there."""


@dataclass(frozen=True)
class Exchange:
    """A run's folder under `storage_path`.

    Args:
        filesystem: Where it lies.
        storage: `storage_path` as the file system knows it.
        name: Of the folder.
        shown: `storage_path` as the user wrote it.
    """

    filesystem: pyarrow.fs.FileSystem
    storage: str
    name: str
    shown: str

    @property
    def folder(self) -> str:
        """The run's folder, as the file system knows it."""
        return f"{self.storage.rstrip('/')}/{self.name}"

    def open(self) -> None:
        """Make the folder, empty.

        Raises:
            InputError: If nothing can be written there.
        """
        try:
            self.close()
            self.filesystem.create_dir(self.folder)
            with self.filesystem.open_output_stream(f"{self.folder}/{MARK}") as mark:
                mark.write(self.name.encode())
        except OSError as error:
            raise InputError(
                f"execution.storage_path = {self.shown}: cannot be written ({error}).\n"
                "  Give a folder that this machine and each node can write, or a URL such as s3://bucket/path."
            ) from error

    def close(self) -> None:
        """Delete the folder: what is worth keeping stands in the run's own."""
        if self._is_there(self.folder):
            self.filesystem.delete_dir(self.folder)

    def require(self, node: str) -> None:
        """Make sure that this process sees the driver's folder.

        Args:
            node: Name of this node, for the message.

        Raises:
            InputError: If it does not.
        """
        if not self._is_there(f"{self.folder}/{MARK}"):
            raise InputError(
                f"node {node} does not see the driver's folder {self.folder}.\n"
                "  Checkpoints go through it. Set execution.storage_path to a folder that all nodes share, "
                "or to a URL such as s3://bucket/path."
            )

    def offer(self, checkpoint: Path) -> str:
        """Lay out a checkpoint of the run's folder for the nodes, and return its place here."""
        place = f"{self.folder}/earlier/{checkpoint.name}"
        self.filesystem.create_dir(f"{self.folder}/earlier")
        pyarrow.fs.copy_files(str(checkpoint), place, destination_filesystem=self.filesystem)
        return place

    def fetch(self, place: str, path: Path) -> None:
        """Copy what was offered to a path of this node."""
        pyarrow.fs.copy_files(place, str(path), source_filesystem=self.filesystem)

    def _is_there(self, place: str) -> bool:
        return self.filesystem.get_file_info(place).type != pyarrow.fs.FileType.NotFound


def open_exchange(storage_path: str, name: str) -> Exchange:
    """Return an empty folder to exchange checkpoints by.

    Args:
        storage_path: An absolute path, or a URL that fsspec knows.
        name: Of the run; two runs with one `storage_path` differ in it.

    Raises:
        InputError: If the URL's protocol is not known, or nothing can be written there.
    """
    try:
        filesystem, storage = _resolved(storage_path)
    except (ImportError, ValueError) as error:
        raise InputError(
            f"execution.storage_path = {storage_path}: cannot be used ({error}).\n"
            "  Give an absolute folder, or a URL whose package is installed on all nodes (s3fs for s3://)."
        ) from error
    exchange = Exchange(filesystem, storage, name, storage_path)
    exchange.open()
    return exchange


def _resolved(storage_path: str) -> tuple[pyarrow.fs.FileSystem, str]:
    if "://" not in storage_path:
        return pyarrow.fs.LocalFileSystem(), storage_path
    filesystem, path = fsspec.core.url_to_fs(storage_path)
    return pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(filesystem)), path


def keep_checkpoint(checkpoint: Checkpoint, path: Path, scalars: Path | None) -> None:
    """Copy a checkpoint of Tune into the run's folder.

    Args:
        checkpoint: As a node reported it.
        path: Where the candidate's training is kept.
        scalars: Where its TensorBoard scalars are kept; None for nowhere.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with checkpoint.as_directory() as folder:
        replace_file(path, lambda partial: shutil.copyfile(Path(folder) / CANDIDATE, partial))
        events = Path(folder) / SCALARS
        if scalars is not None and events.is_dir():
            shutil.copytree(events, scalars, dirs_exist_ok=True)
