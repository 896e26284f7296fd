"""Several archives in a folder that are no source as they are: classes, or parts of splits; how to unpack them."""

import re
import shlex
from collections.abc import Iterable

from pipelines.names import TRAIN, split_of
from pipelines.storage import Folder

_PART = re.compile(r"([A-Za-z]+)[^A-Za-z].*(\.\w+)$")  # such as train_part1.tar
_UNPACK = {".tar": 'tar xkf "$a" -C', ".zip": 'unzip -q "$a" -d'}  # neither writes over what is there


def how_to_unpack_classes(folder: Folder, archives: Iterable[str]) -> str:
    """What to do with archives of which each may be a class."""
    loops = (
        f'for a in ./*{ending}; do mkdir -p "${{a%.*}}" && {_UNPACK[ending.lower()]} "${{a%.*}}"; done'
        for ending in sorted({name[-4:] for name in archives})
    )
    return f"if each is a class, run {_command(folder, loops)} to unpack it into a folder of its name"


def how_to_unpack_parts(folder: Folder, archives: Iterable[str]) -> str | None:
    """What to do with archives that are parts of splits by the first word of their names; None without any of train."""
    found = {match.groups() for name in archives if (match := _PART.match(name)) and split_of(match[1])}
    if TRAIN not in {split_of(word) for word, _ in found}:
        return None
    loops = (
        f"mkdir -p {split_of(word)} && for a in ./{word}[![:alpha:]]*{ending}; do {_UNPACK[ending.lower()]} "
        f"{split_of(word)}; done"
        for word, ending in sorted(found)
    )
    return f"if those are parts of splits, run {_command(folder, loops)} to unpack them into a folder of each"


def _command(folder: Folder, loops: Iterable[str]) -> str:
    here = shlex.quote(str(folder.local_path())) if folder.is_local else "THERE"
    return f"`cd {here} && {' && '.join(loops)}`"
