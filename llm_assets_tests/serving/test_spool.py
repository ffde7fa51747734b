from __future__ import annotations

import errno
import mmap
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_assets.serving import spool
from llm_assets.serving.memory import own_folder
from llm_assets.serving.spool import Backlog, Spool, SpoolError, abandoned, gone, pending, place


def everything(backlog: Backlog, most: int = 100) -> list[bytes]:
    found = list[bytes]()
    while lines := backlog.read(most):
        found += lines
    return found


@given(
    st.lists(st.binary(max_size=300).map(lambda data: b"+" + data.replace(b"\n", b"").replace(b"\0", b"")), max_size=60),
    st.integers(1, 400),
    st.data(),
)
def test_what_is_appended_is_read_in_order_whatever_the_pieces(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], most: int, data: st.DataObject
) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(spool, "SEGMENT", 500)
        writer = Spool(tmp_path_factory.mktemp("spool") / "logs")
        reader, found = Backlog(writer.folder), list[bytes]()
        for line in lines:
            writer.append(line + b"\n")
            if data.draw(st.booleans()):
                found += reader.read(most)
                reader.forget()
        found += everything(reader, most)
        assert found == lines and reader.position == writer.position
        reader.forget()
        assert len(list(writer.folder.glob("*.jsonl"))) == 1
        reader.remove()
        assert not writer.folder.exists()


def test_a_reader_that_begins_anew_begins_with_the_oldest_that_was_not_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "SEGMENT", 4)
    writer = Spool(tmp_path / "logs")
    for number in range(6):
        writer.append(b"%d\n" % number)  # two a segment
    first = Backlog(writer.folder)
    assert [first.read(2) for _ in range(3)] == [[b"0"], [b"1"], [b"2"]]
    first.forget()
    first.close()
    again = Backlog(writer.folder)
    assert again.position == writer.position - 8 and again.end() == writer.position
    assert everything(again) == [b"3", b"4", b"5"] and again.position == writer.position


def test_a_piece_cut_off_is_passed_over(tmp_path: Path) -> None:
    writer = Spool(tmp_path / "logs")
    writer.append(b"whole\nhal")
    assert everything(Backlog(writer.folder)) == [b"whole"]


def test_what_is_stored_but_for_its_end_is_no_line_yet(tmp_path: Path) -> None:
    writer = Spool(tmp_path / "logs")
    writer.append(b"1\n")
    reader = Backlog(writer.folder)
    assert everything(reader) == [b"1"] and writer._memory is not None
    writer._memory[2:5] = b"2 i"  # as far as it has come
    assert reader.read(100) == []
    writer._memory[2:5] = b"\0\0\n"  # stored in another order
    assert reader.read(100) == []
    writer.append(b"2 is there\n")
    assert everything(reader) == [b"2 is there"] and reader.position == writer.position


def test_a_line_longer_than_a_segment_has_one_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "SEGMENT", 8)
    writer = Spool(tmp_path / "logs")
    reader, lines = Backlog(writer.folder), [b"1" * 100, b"2", b"3" * 100, b"4"]
    for line in lines:
        writer.append(line + b"\n")
    assert everything(reader, 10) == lines and reader.position == writer.position


def test_a_full_memory_takes_all_of_a_piece_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(spool, "SEGMENT", 10)
    writer, reader = Spool(tmp_path / "logs"), None
    for lines in ([b"1", b"2"], [b"4"]):
        with monkeypatch.context() as patched:
            patched.setattr(mmap, "mmap", full)
            with pytest.raises(SpoolError, match="free memory"):
                writer.append(b"a long line\n")
            if reader:
                writer.append(b"3\n")  # the segment has room for it
        assert not list(writer.folder.glob("*.new"))
        reader = reader or Backlog(writer.folder)
        for line in lines:
            writer.append(line + b"\n")
    assert everything(reader) == [b"1", b"2", b"3", b"4"] and reader.position == writer.position


def test_a_spool_is_opened_where_no_memory_is_left_for_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = Spool(tmp_path / "logs")
    left.append(b"what fills it\n")
    left.close()
    monkeypatch.setattr(Spool, "_begin", lambda *_: pytest.fail("it asked for memory"))
    opened = Spool(tmp_path / "logs")
    [backlog] = abandoned(tmp_path / "logs")
    assert everything(backlog) == [b"what fills it"] and opened.folder.is_dir()


def test_only_what_nobody_holds_is_abandoned(tmp_path: Path) -> None:
    parent = tmp_path / "logs"
    living = Spool(parent)
    code = f"import os, pathlib; from llm_assets.serving.spool import Spool; Spool(pathlib.Path({str(parent)!r})).append(b'left\\n'); os._exit(9)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    [left] = abandoned(parent)
    assert left.folder != living.folder
    assert list(abandoned(parent)) == []  # it is read now
    assert everything(left) == [b"left"]
    left.remove()
    assert list(parent.iterdir()) == [living.folder]
    living.close()
    assert [backlog.folder for backlog in abandoned(parent)] == [living.folder]


def test_a_folder_without_segments_is_cleared_away_and_keeps_nobody_from_the_others(tmp_path: Path) -> None:
    left = Spool(tmp_path / "logs")
    left.append(b"left\n")
    left.close()
    broken = tmp_path / "logs" / "1-0"
    broken.mkdir()
    (broken / "lock").touch()
    [backlog] = abandoned(tmp_path / "logs")
    assert everything(backlog) == [b"left"] and not broken.exists()


def test_what_is_let_go_of_leaves_no_trace(tmp_path: Path) -> None:
    writer = Spool(tmp_path / "logs")
    writer.append(b"secret\n")
    reader = Backlog(writer.folder)
    [(segment, size)] = pending(writer.folder.parent).items()
    assert reader.read(100) == [b"secret"] and not gone(segment, size)
    writer.append(b"later\n")
    reader.forget()
    assert gone(segment, size) and pending(writer.folder.parent) and b"secret" not in segment.read_bytes()
    reader.close()
    again = Backlog(writer.folder)
    assert everything(again) == [b"later"] and again.position == writer.position
    again.forget()
    assert not pending(writer.folder.parent)


def test_it_stands_in_memory_by_the_folder_it_is_for(tmp_path: Path) -> None:
    folder = place(tmp_path)
    assert folder == place(tmp_path / ".." / tmp_path.name) and folder != place(tmp_path / "other")
    assert folder.parent == own_folder()
