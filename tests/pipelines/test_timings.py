import pytest

from pipelines.timings import BatchTiming, Timings, verdict


def timings(waiting_s, reading_s, decoding_s, computing_s) -> Timings:
    total = Timings(computing_s=computing_s)
    total.add(100, BatchTiming(waiting_s, reading_s, decoding_s))
    return total


@pytest.mark.parametrize(
    ("total", "encoding", "words"),
    [
        (timings(0.1, 0.0, 0.1, 9.9), "jpeg", ["compute-bound", "1% of the time", "10 images/s"]),
        (timings(5.0, 0.5, 4.5, 5.0), "jpeg", ["input-bound", "50%", "loader.threads or use raw shards"]),
        (timings(5.0, 4.0, 1.0, 5.0), "jpeg", ["storage-bound", "faster or nearer disk"]),
        (Timings(), "jpeg", ["no batch yet"]),
    ],
)
def test_the_verdict_is_one_line_with_the_way_out(total, encoding, words):
    line = verdict(total, encoding)
    assert "\n" not in line
    assert all(word in line for word in words), line


def test_raw_shards_are_not_told_to_use_raw_shards():
    assert verdict(timings(5.0, 0.5, 4.5, 5.0), "raw").endswith("raise loader.threads")
