"""Both formats give back what was written, are read by others, and name a damaged row."""

import io
import struct

import google_crc32c
import numpy as np
import pyarrow.parquet as pq
import pytest

from pipelines.formats import parquet, tfrecord
from pipelines.formats.rows import DamagedRow, Row, Shared
from pipelines.images import decode_jpeg, encode_jpeg

SIZE = 16
CODECS = pytest.mark.parametrize("codec", [parquet, tfrecord], ids=["parquet", "tfrecord"])
ENCODINGS = pytest.mark.parametrize("encoding", ["jpeg", "raw"])


def pixels(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)


def rows(count: int, encoding: str = "jpeg") -> list[Row]:
    """Keys of all lengths, and labels, ids and sides up to the largest."""
    return [
        Row(
            id=(1 << 40) + i if i == 2 else i * 3,
            key="naïve/" + "k" * (i * 50),
            label=-1 if i == 1 else i * 1000,
            image=encode_jpeg(pixels(i), 90) if encoding == "jpeg" else pixels(i).tobytes(),
            width=300 + i,
            height=(1 << 31) - 1 if i == 3 else 200,
            format="png" if i % 2 else "jpeg",
        )
        for i in range(count)
    ]


def written(codec, rows: list[Row], encoding: str = "jpeg") -> bytes:
    file = io.BytesIO()
    codec.write(file, rows, Shared("train", encoding, SIZE, ("cat", "dog")))
    return file.getvalue()


@CODECS
@ENCODINGS
@pytest.mark.parametrize("count", [0, 1, 7, 600])
def test_rows_read_are_the_rows_written(codec, encoding, count):
    stored = [row._replace(key=row.key[:100]) for row in rows(count, encoding)]
    back = codec.read(memoryview(written(codec, stored, encoding)))
    assert len(back) == count
    columns = (back.ids, back.keys, back.labels, back.images, back.widths, back.heights, back.formats)
    for number, values in enumerate(zip(*columns, strict=True)):
        id, key, label, image, width, height, format = values
        assert (id, key, label, image.tobytes(), width, height, format) == stored[number]
        assert image.shape == ((SIZE, SIZE, 3) if encoding == "raw" else (len(stored[number].image),))
    assert (back.ids.dtype, back.labels.dtype, back.widths.dtype) == (np.int64, np.int32, np.int32)


@CODECS
@ENCODINGS
def test_images_are_views_of_the_file(codec, encoding):
    back = codec.read(memoryview(written(codec, rows(5, encoding), encoding)))
    assert not any(image.flags.owndata or image.flags.writeable for image in back.images)


@CODECS
def test_writing_twice_gives_the_same_bytes(codec):
    assert written(codec, rows(300)) == written(codec, rows(300))


def test_nothing_in_parquet_is_compressed():
    group = pq.read_metadata(io.BytesIO(written(parquet, rows(4)))).row_group(0)
    columns = [group.column(i) for i in range(group.num_columns)]
    assert {column.compression for column in columns} == {"UNCOMPRESSED"}
    assert "image.bytes" in {column.path_in_schema for column in columns}


def test_records_have_the_bytes_of_a_tf_example():
    """Length, masked CRC, Example, masked CRC; two features spelt out; the CRC of "123456789" is that of RFC 3720."""
    data = written(tfrecord, [Row(5, "k", 7, b"IMAGE", 3, 2, "jpeg")])
    length = struct.unpack("<Q", data[:8])[0]
    assert len(data) == 8 + 4 + length + 4
    assert b"\n\x0dimage/encoded\x12\x09\n\x07\n\x05IMAGE" in data
    assert b"\n\x11image/class/label\x12\x05\x1a\x03\n\x01\x07" in data
    expected = ((0xE3069283 >> 15 | 0xE3069283 << 17) + 0xA282EAD8) & 0xFFFFFFFF
    assert tfrecord._masked_crc(b"123456789") == expected


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (b"image/id", b"image/ix", "row 2 has other features"),
        (b"image/id\x12\x0a\x1a", b"image/id\x12\x0a\x0a", "row 2 has a feature of another kind"),
        (b"\x0dimage/encoded\x12", b"\x7fimage/encoded\x12", "row 2 has other features"),
    ],
)
def test_an_example_of_another_layout_is_no_row(old, new, words):
    """Its checksum may be right: it was written by others."""
    data = written(tfrecord, rows(5))
    third = int(tfrecord.index(memoryview(data)).split()[4])
    assert data.count(old, third) >= 1
    with pytest.raises(DamagedRow, match=words):
        tfrecord.read(memoryview(data[:third] + data[third:].replace(old, new, 1)))


@ENCODINGS
def test_protobuf_reads_the_examples(encoding):
    """The reference implementation of protocol buffers, with the message types of TensorFlow."""
    example_type = tf_example_type()
    stored = rows(5, encoding)
    data = memoryview(written(tfrecord, stored, encoding))
    for row, line in zip(stored, tfrecord.index(data).splitlines(), strict=True):
        offset, size = map(int, line.split())
        example = example_type.FromString(bytes(data[offset + 12 : offset + size - 4]))
        feature = example.features.feature
        assert feature["image/encoded"].bytes_list.value[:] == [row.image]
        assert feature["image/class/label"].int64_list.value[:] == [row.label]
        assert feature["image/filename"].bytes_list.value[:] == [row.key.encode()]
        assert feature["image/height"].int64_list.value[:] == [SIZE]
        assert feature["image/orig_height"].int64_list.value[:] == [row.height]
        assert feature["image/format"].bytes_list.value[:] == [b"JPEG" if encoding == "jpeg" else b"raw"]


def tf_example_type():
    """tf.train.Example, declared here because TensorFlow is not installed."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="example.proto", package="tf", syntax="proto3")

    def message(name: str, parent=None, **fields) -> descriptor_pb2.DescriptorProto:
        declared = (parent.nested_type if parent else file.message_type).add(name=name)
        for field_name, (number, kind, label, type_name) in fields.items():
            declared.field.add(name=field_name, number=number, type=kind, label=label, type_name=type_name)
        return declared

    one, many = field.LABEL_OPTIONAL, field.LABEL_REPEATED
    message("BytesList", value=(1, field.TYPE_BYTES, many, None))
    message("Int64List", value=(1, field.TYPE_INT64, many, None))
    message(
        "Feature",
        bytes_list=(1, field.TYPE_MESSAGE, one, ".tf.BytesList"),
        int64_list=(3, field.TYPE_MESSAGE, one, ".tf.Int64List"),
    )
    features = message("Features", feature=(1, field.TYPE_MESSAGE, many, ".tf.Features.FeatureEntry"))
    entry = message(
        "FeatureEntry",
        features,
        key=(1, field.TYPE_STRING, one, None),
        value=(2, field.TYPE_MESSAGE, one, ".tf.Feature"),
    )
    entry.options.map_entry = True
    message("Example", features=(1, field.TYPE_MESSAGE, one, ".tf.Features"))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("tf.Example"))


@pytest.mark.slow
@ENCODINGS
def test_dali_reads_tfrecord_with_our_index(encoding, tmp_path):
    from nvidia.dali import fn, pipeline_def, types
    from nvidia.dali import tfrecord as dali_tfrecord

    stored = rows(6, encoding)
    path, index_path = tmp_path / "a.tfrecord", tmp_path / "a.tfrecord.idx"
    path.write_bytes(written(tfrecord, stored, encoding))
    index_path.write_text(tfrecord.index(memoryview(path.read_bytes())))

    @pipeline_def(batch_size=len(stored), num_threads=1, device_id=None)
    def pipeline():
        read = fn.readers.tfrecord(
            path=[str(path)],
            index_path=[str(index_path)],
            features={
                "image/encoded": dali_tfrecord.FixedLenFeature((), dali_tfrecord.string, ""),
                "image/class/label": dali_tfrecord.FixedLenFeature([1], dali_tfrecord.int64, -2),
            },
        )
        images = read["image/encoded"]
        if encoding == "jpeg":
            return fn.decoders.image(images, device="cpu", output_type=types.RGB), read["image/class/label"]
        return fn.reshape(images, shape=[SIZE, SIZE, 3]), read["image/class/label"]

    built = pipeline()
    built.build()
    images, labels = built.run()
    assert [int(labels.at(i)[0]) for i in range(len(stored))] == [row.label for row in stored]
    for i in range(len(stored)):
        expected = decode_jpeg(stored[i].image) if encoding == "jpeg" else pixels(i)
        assert np.abs(np.asarray(images.at(i)).astype(int) - expected).max() <= 3


@CODECS
@ENCODINGS
def test_any_changed_byte_of_an_image_names_its_row(codec, encoding):
    stored = rows(300, encoding)
    data = written(codec, stored, encoding)
    assert codec.first_damage(memoryview(data)) is None
    for number in (0, 4, 255, 256, 299):
        damaged = bytearray(data)
        damaged[data.index(stored[number].image) + len(stored[number].image) // 2] ^= 1
        assert codec.first_damage(memoryview(bytes(damaged))) == f"row {number} fails its checksum"


def test_a_truncated_tfrecord_names_its_row():
    data = written(tfrecord, rows(5))
    starts = [int(line.split()[0]) for line in tfrecord.index(memoryview(data)).splitlines()]
    for length in range(1, len(data)):
        if length not in starts:  # a whole number of records is well-formed; the manifest knows how many there are
            row = sum(start < length for start in starts) - 1
            assert tfrecord.first_damage(memoryview(data[:length])) == f"row {row} is cut off"


def test_of_two_damages_the_first_is_named():
    stored = rows(5)
    data = written(tfrecord, stored)
    damaged = bytearray(data[:-20])
    damaged[data.index(stored[1].image) + 9] ^= 1
    assert tfrecord.first_damage(memoryview(bytes(damaged))) == "row 1 fails its checksum"


@pytest.mark.parametrize("count", [0, 1, 3, 200])
def test_all_lengths_get_the_checksum_that_each_has(count):
    numbers_N = np.random.default_rng(0).integers(0, 1 << 63, count).astype(np.uint64)
    expected = [google_crc32c.value(int(number).to_bytes(8, "little")) for number in numbers_N]
    assert tfrecord._crc_of_words(numbers_N).tolist() == expected


def test_a_changed_length_in_a_tfrecord_names_its_row():
    data = bytearray(written(tfrecord, rows(5)))
    starts = [int(line.split()[0]) for line in tfrecord.index(memoryview(bytes(data))).splitlines()]
    data[starts[3] + 5] ^= 1
    assert tfrecord.first_damage(memoryview(bytes(data))) == "row 3 fails the checksum of its length"


def test_a_truncated_parquet_says_that_its_footer_is_gone():
    data = written(parquet, rows(5))
    assert "footer cannot be read" in parquet.first_damage(memoryview(data[:-1]))
