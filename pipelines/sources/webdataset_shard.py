"""One WebDataset shard: a tar in which neighbours of one name are a sample, key.jpg with key.cls, .json or .txt.

A key ends at the first dot of a name. Images may have an ending of two parts in a set where none has a plain one:
key.input.jpg. Beside plain ones, such files are masks and the like.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable
from itertools import groupby, islice
from typing import NamedTuple

import pyarrow as pa

from pipelines.names import EXTENSIONS
from pipelines.sources.members import require_unique
from pipelines.sources.tar_index import Member, members_with_text
from pipelines.storage import Folder

SCHEMA = pa.schema(
    [
        ("path", pa.string()),  # of the image; of another file of the sample where it has none
        ("offset", pa.int64()),  # null where the sample has no image
        ("size", pa.int64()),
        ("label", pa.string()),  # as written; null where there is none
        ("said_in", pa.string()),  # the kind of file that the label is from
        ("title", pa.string()),  # of the class
    ],
    metadata={},
)
_NAME = re.compile(r"^((?:.*/)?[^/.]+)\.([^/]*)$")
LABEL_KINDS = ("cls", "json", "txt")
_LABEL_FIELDS = ("label", "cls", "class", "class_id", "class_idx")
_TITLE_FIELDS = ("class_name", "classname", "label_name", "synset", "wnid")
_PEEKED = 200  # members that show what a tar is
_LEFT_OUT = b"left_out"


class _Part(NamedTuple):
    """A file of a sample."""

    key: str
    kind: str
    member: Member


def is_shard(folder: Folder, name: str) -> bool:
    """Whether the first members of a tar are samples: an image with .cls, or outside of any folder with a label."""
    try:
        parts = _first_parts(folder, name)
    except ValueError:  # damaged, or no tar
        return False
    images = _keys_of_images(parts) or _keys_of_images(map(_shortened, parts))
    return any(
        part.kind == "cls" or (part.kind in LABEL_KINDS and "/" not in part.key.removeprefix("./"))
        for part in parts
        if part.key in images
    )


def has_long_endings(folder: Folder, name: str) -> bool:
    """Whether no image among the first members of a shard has an ending of one part."""
    return not _keys_of_images(_first_parts(folder, name))


def _first_parts(folder: Folder, name: str) -> list[_Part]:
    return [_part(member) for member in islice(members_with_text(folder, name, lambda path: False), _PEEKED)]


def _keys_of_images(parts: Iterable[_Part]) -> set[str]:
    return {part.key for part in parts if part.kind in EXTENSIONS}


def index_shard(folder: Folder, long_endings: bool, name: str) -> pa.Table:
    """A row of SCHEMA for each sample; files that belong to none are counted by kind, see `left_out`.

    Args:
        long_endings: Whether key.input.jpg is an image, too.
    """
    rows: list[dict] = []
    others = Counter[str]()
    parts = map(_part, members_with_text(folder, name, lambda path: path.lower().endswith(LABEL_KINDS)))
    parts = map(_shortened, parts) if long_endings else parts
    for _, sample in groupby(parts, lambda part: part.key):
        row, unused = _sample(list(sample), folder.where(name))
        rows += row
        others.update(unused)
    table = pa.Table.from_pylist(rows, SCHEMA)
    require_unique(table, folder.where(name))
    return table.replace_schema_metadata({_LEFT_OUT: json.dumps(others)})


def left_out(index: pa.Table) -> Counter[str]:
    """How many files of each kind are no part of the samples."""
    return Counter(json.loads(index.schema.metadata[_LEFT_OUT]))


def _part(member: Member) -> _Part:
    match = _NAME.match(member.path)
    return _Part(match[1], match[2].lower(), member) if match else _Part(member.path, "", member)


def _shortened(part: _Part) -> _Part:
    """An image by the last part of its ending."""
    last = part.kind.rpartition(".")[2]
    return part._replace(kind=last) if last in EXTENSIONS else part


def _sample(parts: list[_Part], where: str) -> tuple[list[dict], Iterable[str]]:
    """The row of a sample, if these are one, and the kinds of the files that are not of it."""
    images = [part for part in parts if part.kind in EXTENSIONS]
    about = [part for part in parts if part.kind in LABEL_KINDS]
    texts = {part.kind: part.member.text.decode("utf-8", "replace").strip() for part in about}
    if len(texts) < len(about):
        raise ValueError(f"{where}: a sample has {about[-1].member.path} twice, so which is it? Pack it again with one")
    others = (part for part in parts if part not in images and part.kind not in texts)
    unused = (f".{part.kind}" if part.kind else "without an ending" for part in others)
    if not images and not texts:
        return [], unused
    if len(images) > 1:
        both = " and ".join(part.member.path for part in images[:2])
        raise ValueError(f"{where}: a sample has the images {both}, so which is it? Pack it again with one")
    row: dict[str, str | int | None] = {"path": parts[0].member.path, **_label(texts, f"{where}: {parts[0].key}.json")}
    if images:
        image = images[0].member
        row |= {"path": image.path, "offset": image.offset, "size": image.size}
    return [row], unused


def _label(texts: dict[str, str], where: str) -> dict[str, str | None]:
    """Label and title of a sample: from .cls, else a field of .json, else from .txt, which may be a title otherwise."""
    try:
        about = json.loads(texts.get("json", "{}"))
    except ValueError as error:
        raise ValueError(f"{where} is no JSON: {error}") from error
    about = about if isinstance(about, dict) else {"label": about}
    labels = {"cls": texts.get("cls"), "json": _field(about, _LABEL_FIELDS), "txt": texts.get("txt")}
    said_in = next((kind for kind, label in labels.items() if label), None)
    label = labels.get(said_in or "")
    title = _field(about, _TITLE_FIELDS) or (labels["txt"] if said_in != "txt" else None)
    has_label = label and not re.match(r"-\d+$", label)
    return {"label": label if has_label else None, "said_in": said_in, "title": title}


def _field(about: dict, names: tuple[str, ...]) -> str | None:
    values = (about.get(name) for name in names)
    return next((str(value) for value in values if isinstance(value, int | str) and not isinstance(value, bool)), None)
