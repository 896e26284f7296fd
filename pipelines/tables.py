"""Parquet tables read whole, on the calling thread.

pyarrow's own `read_table` and pandas' `read_parquet` read on other threads, one of which may still hold a buffer of
Python's when the interpreter ends: freeing it then aborts the process.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

    from pipelines.storage import Folder


def read_table(folder: "Folder", name: str, columns: Sequence[str] | None = None) -> "pa.Table":
    """The table in a file, or some of its columns."""
    import pyarrow.parquet as pq

    with folder.open(name) as source, pq.ParquetFile(source) as file:
        return file.read(columns, use_threads=False)
