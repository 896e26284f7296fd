"""From `ingest.source` to an open source: what is there decides which kind it is."""

from pathlib import Path

from pipelines.sources.demo import open_demo
from pipelines.sources.folder import open_folder
from pipelines.sources.huggingface import find_files, open_huggingface
from pipelines.sources.source import Reader, Source
from pipelines.sources.tar import open_tar
from pipelines.specs import IngestSpec
from pipelines.storage import Folder

__all__ = ["Reader", "Source", "open_source"]


def open_source(spec: IngestSpec, cache: Path | None = None) -> Source:
    """The source that `spec.source` names; indexes of archives are kept in `cache`. ValueError: why there is none."""
    if spec.source == "demo":
        return open_demo()
    folder = Folder.at(spec.source)
    parent, name = folder.split()
    if parent.size(name) is not None:
        return _open_file(parent, name, spec, cache)
    if not folder.exists():
        raise ValueError(f"ingest.source: there is no file or folder {folder.where()}; use a path, a URL or 'demo'")
    return _open_folder(folder, spec, cache)


def _open_file(folder: Folder, name: str, spec: IngestSpec, cache: Path | None) -> Source:
    if name.endswith((".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")):
        raise ValueError(f"{folder.where(name)} is compressed, so members cannot be read in place; unpack it to a .tar")
    if name.endswith(".tar"):
        return open_tar(folder, name, spec.val_fraction, cache)
    if name.endswith(".parquet"):
        raise ValueError(f"{folder.where(name)} is one Parquet file; name the folder that holds it")
    raise ValueError(f"{folder.where(name)} is neither a folder nor a .tar of class folders")


def _open_folder(folder: Folder, spec: IngestSpec, cache: Path | None) -> Source:
    if find_files(folder)[1]:
        return open_huggingface(folder, spec.val_fraction, cache)
    return open_folder(folder, spec.val_fraction)
