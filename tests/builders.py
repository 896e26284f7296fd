"""Small data sets in every layout that a source understands: plain functions, from content to files."""

import io
import json
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


@cache
def jpeg(seed: int = 0, width: int = 40, height: int = 32) -> bytes:
    """A JPEG of smooth colours that differ with the seed."""
    small = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
    return file.getvalue()


def class_folders(*prefixes: str, classes=("cat", "dog"), images: int = 3) -> dict[str, bytes]:
    """Paths and contents: PREFIX/CLASS/CLASS_0.jpg ..., all images different."""
    paths = [
        f"{prefix}{name}/{name}_{i}.jpg" for prefix in prefixes or ("",) for name in classes for i in range(images)
    ]
    return {path: jpeg(seed) for seed, path in enumerate(paths)}


def write_files(folder: Path, files: Mapping[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def tar_bytes(
    files: Mapping[str, bytes] | Sequence[tuple[str, bytes]], format: int = tarfile.GNU_FORMAT, folders: bool = False
) -> bytes:
    """A tar archive of files by name, or of pairs, which may repeat one; with `folders` it lists the folders too."""
    file, pairs = io.BytesIO(), list(files.items() if isinstance(files, Mapping) else files)
    with tarfile.open(fileobj=file, mode="w", format=format) as archive:
        for name in sorted({name.rpartition("/")[0] for name, _ in pairs} - {""}) if folders else ():
            info = tarfile.TarInfo(name)
            info.type = tarfile.DIRTYPE
            archive.addfile(info)
        for name, content in pairs:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


def zip_bytes(
    files: Mapping[str, bytes], method: int = zipfile.ZIP_STORED, folders: bool = False, comment: bytes = b""
) -> bytes:
    """A zip archive; with `folders`, it lists the folders too, as `zip -r` does."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name in sorted({name.rpartition("/")[0] for name in files} - {""}) if folders else ():
            archive.writestr(f"{name}/", b"")
        for name, content in files.items():
            archive.writestr(name, content)
        archive.comment = comment
    return file.getvalue()


def tar_members(data: bytes) -> dict[str, bytes]:
    """Names and contents of the files in a tar, by Python's own reader."""
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return {member.name: archive.extractfile(member).read() for member in archive if member.isfile()}


def gzipped(data: bytes) -> bytes:
    import gzip

    return gzip.compress(data, mtime=0)


def synsets(num_classes: int, num_ancestors: int) -> list[tuple[int, str, str]]:
    """(ILSVRC id, wnid, words) of classes, then of their ancestors; the order of ids is not that of the wnids."""
    order = np.random.default_rng(7).permutation(num_classes)
    wnids = [f"n{1440764 + 1009 * int(i):08d}" for i in order] + [f"n{100000 + i:08d}" for i in range(num_ancestors)]
    return [(i + 1, wnid, f"thing {wnid[1:]}, Res {wnid}") for i, wnid in enumerate(wnids)]


def meta_mat(year: int, num_classes: int, num_ancestors: int) -> bytes:
    """meta.mat as MATLAB stores it in the kit: `synsets`, an N x 1 struct array, the classes first, then ancestors."""
    from scipy.io import savemat

    fields = [
        f"ILSVRC{year}_ID", "WNID", "words", "gloss", "num_children", "children", "wordnet_height", "num_train_images",
    ]  # fmt: skip
    rows = np.empty((num_classes + num_ancestors, 1), [(field, object) for field in fields])
    for id_, wnid, words in synsets(num_classes, num_ancestors):
        is_class = id_ <= num_classes
        children = np.zeros((1, 0), np.uint16) if is_class else np.array([[1, 2]], np.uint16)
        height, images = (0, 1300) if is_class else (3, 0)
        rows[id_ - 1, 0] = (
            np.array([[id_]], np.uint16), wnid, words, f"what {wnid} is", np.array([[children.size]], np.uint8),
            children, np.array([[height]], np.uint8), np.array([[images]], np.uint16),
        )  # fmt: skip
    file = io.BytesIO()
    contents = {"synsets": rows}
    if year == 2010:
        contents["cost_matrix"] = np.zeros((num_classes, num_classes), np.uint8)
    savemat(file, contents, do_compression=True)
    return file.getvalue()


def devkit(year: int, val_ids: list[int], num_classes: int, num_ancestors: int) -> bytes:
    """The kit's .tar.gz with the two files that matter and one that does not."""
    return kit_with(meta_mat(year, num_classes, num_ancestors), val_ids, year)


def kit_with(meta: bytes, val_ids=(1,), year: int = 2012) -> bytes:
    root = "ILSVRC2012_devkit_t12" if year == 2012 else "devkit-1.0"
    files = {
        f"{root}/readme.txt": b"read me",
        f"{root}/data/meta.mat": meta,
        f"{root}/data/ILSVRC{year}_validation_ground_truth.txt": "".join(f"{i}\n" for i in val_ids).encode(),
    }
    return gzipped(tar_bytes(files, folders=True))


def truth(num_classes: int, each: int, seed: int = 3) -> list[int]:
    """As many ILSVRC ids of every class, in no order; of the 1,000 of a published kit, the first are as in 2012."""
    ids = np.random.default_rng(seed).permutation(np.repeat(np.arange(1, num_classes + 1), each)).tolist()
    for place, id_ in enumerate((490, 361, 171, 822) if num_classes == 1000 else ()):
        other = ids.index(id_, place)
        ids[place], ids[other] = id_, ids[place]
    return ids


def ilsvrc(
    folder: Path, year: int = 2012, classes: int = 6, images: int = 3, num_classes: int = 1000, num_ancestors: int = 860
) -> dict[str, int]:
    """An ILSVRC set with the first `classes` of `num_classes` to train on, and 12 images in each other split.

    Returns the ILSVRC id of every image. The kit of 1,000 classes has all labels that were published.
    """
    ids, seed = {}, 0
    class_tars = {}
    for id_, wnid, _ in synsets(num_classes, num_ancestors)[:classes]:
        members = {}
        for i in range(images):
            members[f"{wnid}_{3 * i + 1}.JPEG"] = jpeg(seed := seed + 1)
            ids[f"{wnid}/{wnid}_{3 * i + 1}.JPEG"] = id_
        class_tars[f"{wnid}.tar"] = tar_bytes(members)
    class_tars = dict(sorted(class_tars.items()))
    val_ids, test_ids = (
        truth(num_classes, each, seed=each) for each in ((50, 150) if num_classes == 1000 else (12 // num_classes,) * 2)
    )
    flat = {}
    for split, of_split in (("val", val_ids), ("test", test_ids)):
        names = [f"ILSVRC{year}_{split}_{i + 1:08d}.JPEG" for i in range(12)]
        flat[split] = {name: jpeg(seed := seed + 1) for name in reversed(names)}  # the archive is in no order
        ids |= dict(zip(names, of_split[:12], strict=True))
    kit = devkit(year, val_ids, num_classes, num_ancestors)
    if year == 2012:
        files = {
            "ILSVRC2012_img_train.tar": tar_bytes(class_tars),
            "ILSVRC2012_img_val.tar": tar_bytes(flat["val"]),
            "ILSVRC2012_devkit_t12.tar.gz": kit,
        }
        ids = {key: id_ for key, id_ in ids.items() if "_test_" not in key}
    else:
        files = {
            "ILSVRC2010_images_train.tar": tar_bytes(class_tars),
            "ILSVRC2010_images_val.tar": tar_bytes({f"val/{name}": data for name, data in flat["val"].items()}),
            "ILSVRC2010_images_test.tar": tar_bytes({f"test/{name}": data for name, data in flat["test"].items()}),
            "ILSVRC2010_test_ground_truth.txt": "".join(f"{i}\n" for i in test_ids).encode(),
            "ILSVRC2010_devkit-1.0.tar.gz": kit,
        }
    write_files(folder, files)
    return ids


def kaggle(folder: Path, wnids=("n01440764", "n02089867"), images: int = 2) -> Path:
    """ILSVRC/Data/CLS-LOC/{train/WNID,val,test} and the LOC_ files."""
    root = "ILSVRC/Data/CLS-LOC"
    files = {f"{root}/train/{wnid}/{wnid}_{i}.JPEG": jpeg(i) for wnid in wnids for i in range(images)}
    files |= {f"{root}/val/ILSVRC2012_val_{i:08d}.JPEG": jpeg(50 + i) for i in range(1, 4)}
    files |= {f"{root}/test/ILSVRC2012_test_{i:08d}.JPEG": jpeg(90 + i) for i in range(1, 3)}
    lines = [f"ILSVRC2012_val_{i:08d},{wnids[i % len(wnids)]} 85 1 499 272 {wnids[0]} 1 2 3 4 " for i in range(1, 4)]
    files["LOC_val_solution.csv"] = "\n".join(["ImageId,PredictionString", *lines, ""]).encode()
    files["LOC_synset_mapping.txt"] = "".join(f"{wnid} thing {wnid[-2:]}, other\n" for wnid in wnids).encode()
    return write_files(folder, files)


def tiny_imagenet(root: str = "tiny-imagenet-200/") -> tuple[dict[str, bytes], dict[str, dict[bytes, str]]]:
    """The files of a Tiny ImageNet as downloaded; and by split, the class of each image with a label."""
    wnids, files, truth = ("n02124075", "n04067472", "n01443537"), {}, {"train": {}, "val": {}}
    for i, wnid in enumerate(wnids * 3):
        data = files[f"{root}train/{wnid}/images/{wnid}_{i}.JPEG"] = jpeg(i, 64, 64)
        files[f"{root}train/{wnid}/{wnid}_boxes.txt"] = f"{wnid}_{i}.JPEG\t0\t10\t63\t58\n".encode()
        truth["train"][data] = wnid
    lines = []
    for i in range(4):
        data = files[f"{root}val/images/val_{i}.JPEG"] = jpeg(20 + i, 64, 64)
        truth["val"][data] = wnids[-i % 3]
        lines.append(f"val_{i}.JPEG\t{wnids[-i % 3]}\t0\t32\t44\t62\n")
    files[f"{root}val/val_annotations.txt"] = "".join(lines).encode()
    files |= {f"{root}test/images/test_{i}.JPEG": jpeg(30 + i, 64, 64) for i in range(5)}
    files[f"{root}wnids.txt"] = "\n".join(wnids).encode()
    titles = ("n00001740\tentity", "n01443537\tgoldfish, Carassius auratus", "n02124075\tEgyptian cat")
    files[f"{root}words.txt"] = "\n".join(titles).encode()
    return files, truth


def webdataset(folder: Path, shards: Mapping[str, Mapping[str, Mapping[str, str]]]) -> dict[str, bytes]:
    """Shards of samples: file name -> key -> ending -> text; each sample gets an image of its own, key -> image."""
    images, seed = {}, 0
    for name, samples in shards.items():
        members = {}
        for key, texts in samples.items():
            images[f"{name.removesuffix('.tar')}/{key}.jpg"] = members[f"{key}.jpg"] = jpeg(seed := seed + 1)
            members |= {f"{key}.{kind}": text.encode() for kind, text in texts.items()}
        write_files(folder, {name: tar_bytes(members)})
    return images


def huggingface(
    folder: Path,
    labels: Mapping[str, list[int]],
    names=("cat", "dog"),
    row_group: int = 3,
    column: str = "image",
    first: int = 0,
) -> Path:
    """Parquet files as `datasets` writes them: file name -> labels; every image is different, from `first` on."""
    info = {"info": {"features": {column: {"_type": "Image"}, "label": {"names": list(names), "_type": "ClassLabel"}}}}
    seed = first
    folder.mkdir(parents=True, exist_ok=True)
    for name, values in labels.items():
        images = [{"bytes": jpeg(seed + i), "path": f"{i}.jpg"} for i in range(len(values))]
        seed += len(values)
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        table = pa.table({column: pa.array(images, kind), "label": pa.array(values, pa.int64())})
        table = table.replace_schema_metadata({"huggingface": json.dumps(info)} if names else {})
        pq.write_table(table, folder / name, row_group_size=row_group)
    return folder


class _Python2Pickler(pickle._Pickler):
    """Writes text and bytes alike as the strings of Python 2."""

    def _save_string(self, text: str | bytes) -> None:
        data = text.encode() if isinstance(text, str) else text
        self.write(pickle.BINSTRING + struct.pack("<i", len(data)) + data)
        self.memoize(text)

    dispatch = pickle._Pickler.dispatch | {str: _save_string, bytes: _save_string}


def python2_pickle(value) -> bytes:
    file = io.BytesIO()
    _Python2Pickler(file, protocol=2).dump(value)
    return file.getvalue().replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


def cifar_binary_files(rows: int = 4, classes=("airplane", "bird", "cat")) -> dict[str, bytes]:
    """The files of cifar-10-batches-bin, with the images and labels of `cifar_files`."""
    files = {"cifar-10-batches-bin/batches.meta.txt": "\n".join([*classes, "", ""]).encode()}
    for path, data in cifar_files(rows, classes).items():
        batch = pickle.loads(data, encoding="bytes")
        if b"data" in batch:
            records = [
                bytes([label]) + image.tobytes() for label, image in zip(batch[b"labels"], batch[b"data"], strict=True)
            ]
            files[f"{path.replace('batches-py', 'batches-bin')}.bin"] = b"".join(records)
    return files


def cifar_files(rows: int = 4, classes=("airplane", "bird", "cat")) -> dict[str, bytes]:
    """The files of cifar-10-batches-py: pickles of protocol 2, as Python 2 wrote them."""
    random, files = np.random.default_rng(0), {}
    for name in [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]:
        batch = {
            b"data": random.integers(0, 256, (rows, 3072), dtype=np.uint8),
            b"labels": [int(label) for label in random.integers(0, len(classes), rows)],
            b"filenames": [b"%d.png" % i for i in range(rows)],
        }
        files[f"cifar-10-batches-py/{name}"] = python2_pickle(batch)
    meta = {b"label_names": [name.encode() for name in classes], b"num_vis": 3072}
    return files | {"cifar-10-batches-py/batches.meta": python2_pickle(meta)}
