"""What the embedded servers leave behind."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from hotpatch_portal.stack import embedded
from hotpatch_portal.stack.embedded import EmbeddedRedis, rotate, short_directory


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that every user of the machine may walk into."""
    directory = Path(tempfile.mkdtemp(prefix="hp-"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


def test_a_long_log_is_kept_once_and_begins_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "MAX_LOG_BYTES", 10)
    log = tmp_path / "server.log"
    rotate(log)  # there is none yet
    with log.open("a") as writer:
        for text in ("short", " and long", "er"):
            writer.write(text)
            writer.flush()
            rotate(log)
    assert (log.read_text(), log.with_suffix(".log.1").read_text()) == ("er", "short and long")


def test_starts_with_a_long_path_share_one_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    note = tmp_path / "note"
    first = short_directory("hp-pg-", note)
    assert short_directory("hp-pg-", note) == first
    first.chmod(0o755)  # another's, or changed: it is not trusted
    second = short_directory("hp-pg-", note)
    assert second != first
    note.write_text("/etc")
    assert short_directory("hp-pg-", note) not in {first, second, Path("/etc")}


def test_redis_with_a_long_path_leaves_no_directory_behind(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    deep = place / ("x" * 100)
    deep.mkdir()
    server = EmbeddedRedis(deep)
    server.start()
    assert server.directory.parent == place
    server.stop()
    assert [path.name for path in place.iterdir()] == [deep.name]
