"""The store keeps what was measured, whatever happens to its process, its file or its disk."""

import json
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from taut._files import cache_directory
from taut.cost import Store
from taut.errors import ArtefactError, StorageError, VersionError


@pytest.fixture
def path(tmp_path):
    return tmp_path / "cache" / "measurements.sqlite"


def child(code: str, *arguments: object) -> subprocess.Popen:
    program = "import sys\nfrom taut.cost import Store\n" + textwrap.dedent(code)
    return subprocess.Popen([sys.executable, "-c", program, *map(str, arguments)], stdout=subprocess.PIPE, text=True)


def test_what_was_appended_is_read_back_by_another_store(path):
    Store(path, host="h").append({"a": {"seconds": 1.5}, "b": {"seconds": 2.0, "op": "relu"}})
    assert Store(path, host="h").latest(["b", "a", "absent"]) == {
        "a": {"seconds": 1.5},
        "b": {"seconds": 2.0, "op": "relu"},
    }


def test_nothing_is_overwritten_and_the_newest_counts(path):
    store = Store(path, host="h")
    for seconds in (3.0, 1.0, 2.0):
        store.append({"a": {"seconds": seconds}})
    assert store.latest(["a"]) == {"a": {"seconds": 2.0}}
    assert [record["seconds"] for record in store.history("a")] == [3.0, 1.0, 2.0]


def test_hosts_do_not_see_each_other(path):
    Store(path, host="one").append({"a": {"seconds": 1.0}})
    assert Store(path, host="two").latest(["a"]) == {}


def test_a_batch_that_is_not_json_is_refused_whole(path):
    store = Store(path, host="h")
    with pytest.raises(ValueError, match="JSON"):
        store.append({"a": {"seconds": 1.0}, "b": {"seconds": float("nan")}})
    assert store.latest(["a", "b"]) == {}


def test_the_cache_directory_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("TAUT_CACHE", raising=False)
    assert cache_directory() == tmp_path / "xdg" / "taut"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # the XDG specification: ignore a relative path
    assert cache_directory() == Path.home() / ".cache" / "taut"
    monkeypatch.setenv("TAUT_CACHE", str(tmp_path / "own"))
    assert cache_directory() == tmp_path / "own"
    assert Store(host="h").path == tmp_path / "own" / "measurements.sqlite"


def test_threads_that_create_and_write_at_once_lose_nothing(path):
    start = threading.Barrier(8)
    failures = []

    def write(worker: int) -> None:
        start.wait()
        try:
            for index in range(5):
                Store(path, host="h").append({f"{worker}": {"index": index}})
        except Exception as error:  # a thread cannot raise into the test
            failures.append(error)

    threads = [threading.Thread(target=write, args=(worker,)) for worker in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    for worker in range(8):
        assert [record["index"] for record in Store(path, host="h").history(str(worker))] == list(range(5))


@pytest.mark.slow
def test_processes_that_create_and_write_at_once_lose_nothing(path):
    code = """
    for index in range(20):
        Store(sys.argv[1], host="h").append({sys.argv[2]: {"index": index}})
    """
    children = [child(code, path, worker) for worker in range(4)]
    for process in children:
        with process:
            assert process.wait() == 0
    for worker in range(4):
        assert [record["index"] for record in Store(path, host="h").history(str(worker))] == list(range(20))


@pytest.mark.slow
def test_a_killed_writer_leaves_every_acknowledged_measurement(path):
    code = """
    store = Store(sys.argv[1], host="h")
    for index in range(1_000_000):
        store.append({"a": {"index": index, "padding": "x" * 5000}})
        print(index, flush=True)
    """
    acknowledged = 0
    for _ in range(3):
        with child(code, path) as process:
            assert process.stdout is not None
            for _ in range(20):
                process.stdout.readline()
                acknowledged += 1
            process.send_signal(signal.SIGKILL)
            acknowledged += len(process.stdout.read().split())
    records = Store(path, host="h").history("a")
    assert acknowledged <= len(records) <= acknowledged + 3  # a write may be finished and not yet acknowledged
    assert not list(path.parent.glob("*.corrupt-*"))


@pytest.mark.parametrize("damage", ["garbage", "truncated", "row", "encoding"])
def test_a_corrupt_file_is_moved_aside_with_a_message(path, caplog, damage):
    store = Store(path, host="h")
    store.append({f"key {index}": {"seconds": 1.0, "padding": "x" * 500} for index in range(100)})
    content = path.read_bytes()
    if damage == "garbage":
        path.write_bytes(b"not a database at all" * 100)
    elif damage == "truncated":
        path.write_bytes(content[: len(content) // 2])
    else:
        path.write_bytes(content.replace(b'{"seconds"', b'{\x00seconds"' if damage == "row" else b'{\xff\xfeconds"'))
    damaged = path.read_bytes()

    assert store.latest([f"key {index}" for index in range(100)]) == {}
    (aside,) = (found for found in path.parent.glob("*.corrupt-*") if not found.name.endswith(("-wal", "-shm")))
    assert aside.read_bytes() == damaged
    assert str(aside) in caplog.text
    store.append({"a": {"seconds": 2.0}})
    assert store.latest(["a"]) == {"a": {"seconds": 2.0}}


def test_a_database_of_another_program_is_left_alone(path):
    path.parent.mkdir()
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE theirs (x)")
    connection.commit()
    connection.close()
    with pytest.raises(ArtefactError, match="another program"):
        Store(path, host="h").append({"a": {}})
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("theirs",)]
    connection.close()


def test_a_store_of_a_newer_version_is_refused(path):
    Store(path, host="h").append({"a": {}})
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(VersionError, match="newer taut"):
        Store(path, host="h").latest(["a"])


def test_a_directory_that_cannot_be_made_is_a_storage_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="could not be used") as raised:
        Store(tmp_path / "file" / "store.sqlite", host="h").append({"a": {}})
    assert "TAUT_CACHE" in str(raised.value)


def test_a_full_disk_is_a_storage_error_and_keeps_what_was_there(path):
    resource = pytest.importorskip("resource", reason="file size limits need a POSIX system")
    store = Store(path, host="h")
    store.append({"a": {"seconds": 1.0}})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, before[1]))
        with pytest.raises(StorageError, match="could not be used"):
            store.append({"b": {"padding": "x" * 1_000_000}})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert store.latest(["a", "b"]) == {"a": {"seconds": 1.0}}
    store.append({"b": {"seconds": 2.0}})
    assert store.latest(["b"]) == {"b": {"seconds": 2.0}}


def test_a_record_survives_unusual_keys_and_values(path):
    store = Store(path, host="h'; DROP TABLE measurements; --")
    record = {"text": "naïve ×\n\0", "nested": {"list": [1, 2.5, None, True]}}
    store.append({"key with 'quotes' and \u2028": record})
    assert store.latest(["key with 'quotes' and \u2028"]) == {
        "key with 'quotes' and \u2028": json.loads(json.dumps(record))
    }
