"""Which files of a listing are images; the others are counted by their kind, so that nothing vanishes."""

from collections import Counter

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.names import IMAGE_NAME, JUNK_FOLDER


def only_images(paths: pa.Table) -> tuple[pa.Table, Counter[str]]:
    """The rows of a table with a column `path` that are images, and how many files of each other kind there are."""
    is_junk = pc.match_substring_regex(paths["path"], JUNK_FOLDER)
    is_image = pc.and_not(pc.match_substring_regex(paths["path"], IMAGE_NAME), is_junk)
    if pc.all(is_image).as_py():
        return paths, Counter()
    others = paths["path"].filter(pc.invert(is_image))
    kinds = pc.extract_regex(pc.utf8_lower(others), r"(?P<kind>[^/.]\.[^./]+)$")
    kinds = pc.utf8_slice_codeunits(pc.struct_field(kinds, "kind"), 1).fill_null("without an ending")
    kinds = pc.if_else(is_junk.filter(pc.invert(is_image)), "in hidden folders", kinds)
    left_out = Counter({count["values"]: count["counts"] for count in pc.value_counts(kinds).to_pylist()})
    return paths.filter(is_image), left_out


def by_kind(left_out: Counter[str]) -> str:
    return ", ".join(f"{count:,} {kind}" for kind, count in left_out.most_common())


def left_out_notes(left_out: Counter[str]) -> list[str]:
    return [f"{left_out.total():,} files left out: {by_kind(left_out)}"] if left_out else []
