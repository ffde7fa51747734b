from __future__ import annotations

import json
from pathlib import Path

import pytest

from llm_assets.serving.request_log import RequestLog, RequestLogError


def test_a_line_cut_off_stays_alone(tmp_path: Path) -> None:
    log = RequestLog(tmp_path)
    log.write("tiny", "classify-1", "tiny-1", ["good"])
    log.close()
    (path,) = (tmp_path / "tiny").iterdir()
    with path.open("ab") as file:
        file.write(b'{"id": "cut')
    log.write("tiny", "classify-2", "tiny-1", ["good"])
    log.close()
    first, cut, second = path.read_text().splitlines()
    assert json.loads(first)["id"] == "classify-1" and cut == '{"id": "cut' and json.loads(second)["id"] == "classify-2"


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    (tmp_path / "tiny").symlink_to("/dev")
    with pytest.raises(RequestLogError, match="cannot be written"):
        RequestLog(tmp_path / "tiny" / "full").write("tiny", "classify-1", "tiny-1", ["good"])
