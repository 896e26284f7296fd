"""An object store that fails for a while is waited for, longer than pyarrow itself does; one that refuses is not."""

import os

import pytest

from pipelines.patience import patient
from pipelines.storage import Folder
from tests.s3_gate import gate_before

pytestmark = pytest.mark.slow
PYARROW_TRIES = 31  # requests, in 6 s
CONTENT = b"0123456789"


@pytest.fixture
def server(s3_server):
    with gate_before(s3_server) as server:
        yield server


@pytest.fixture
def folder(server, s3_folder) -> Folder:
    """A folder with one file, behind the gate."""
    Folder.at(s3_folder).write("a", CONTENT)
    return Folder.at(s3_folder.replace(server.behind, server.address))


@pytest.mark.parametrize("trouble", [500, 503, 429, "reset"])
def test_what_passes_is_waited_for(server, folder, trouble):
    server.failures, server.trouble = PYARROW_TRIES + 2, trouble
    assert folder.read("a") == CONTENT
    assert server.requests > PYARROW_TRIES


@pytest.mark.parametrize("trouble", [503, "reset"])
def test_a_read_in_the_middle_of_a_file_is_begun_again(server, folder, trouble):
    with folder.open("a") as file:
        server.reset()
        server.failures, server.trouble = PYARROW_TRIES + 2, trouble
        assert file.read(4) == CONTENT[:4]
        assert file.read_at(3, 5) == CONTENT[5:8]
        assert file.read() == CONTENT[4:]
    assert server.requests > PYARROW_TRIES


def test_a_process_keeps_its_connection_whatever_it_reads(server, folder):
    names = [f"class {number}/50% off #{number}?.jpg" for number in range(10)]
    for name in names:
        folder.write(name, name)
    server.reset()
    for name in names:
        assert folder.read(name) == name.encode()
        assert folder.child(name.split("/")[0]).read(name.split("/")[1]) == name.encode()
    assert server.connections <= 1
    assert server.methods == {"HEAD": 20, "GET": 20}
    assert folder.where(names[0]).endswith(f"prefix/{names[0]}")
    assert sorted(entry.name for entry in folder.files(recursive=True)) == ["a", *sorted(names)]


def test_an_upload_is_begun_again(server, folder):
    server.failures, server.trouble = PYARROW_TRIES + 2, 503
    folder.write("b", CONTENT)
    assert folder.read("b") == CONTENT


def test_the_store_says_no_only_once(server, folder):
    server.failures, server.trouble = 100, 403
    with pytest.raises(OSError, match="ACCESS_DENIED"):
        folder.read("a")
    assert server.requests <= 2


def test_errors_that_do_not_pass_are_raised_at_once():
    asked = []

    def operation():
        asked.append(1)
        raise OSError("AWS Error NETWORK_CONNECTION: curlCode: 7, Couldn't connect to server")

    with pytest.raises(OSError, match="curlCode: 7"):
        patient(operation)
    with pytest.raises(FileNotFoundError):
        patient(os.stat, "/no/such/file")
    assert len(asked) == 1
