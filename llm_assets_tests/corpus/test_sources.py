from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import TypeAdapter, ValidationError

from llm_assets.corpus.archives import SourceError
from llm_assets.corpus.documents import document_schema, domains
from llm_assets.corpus.formats import strip_tags
from llm_assets.corpus.reading import read as read_pieces
from llm_assets.corpus.reading import smallest
from llm_assets.corpus.sources import Source, ignored_files, observe, passed_over_pages
from llm_assets.store.home import cache_root
from llm_assets_tests.corpus.site import Answer, Site, article, feed

ROWS = [{"text": "很好", "label": "positive", "id": 1}, {"text": "很差\n真的", "label": "negative", "id": 2}]


def source(**fields: Any) -> Source:
    return TypeAdapter(Source).validate_python({"name": "mine", "license": "CC0-1.0", "language": "zh", **fields})


def read(mine: Source, cache: Path, limit: int | None = None) -> pa.Table:
    """All documents of a source in one table."""
    return pa.concat_tables([document_schema().empty_table(), *(piece.documents for piece in read_pieces(mine, cache, limit))])


def rows(table: pa.Table, *columns: str) -> list[tuple[Any, ...]]:
    return list(zip(*(table[column].to_pylist() for column in columns), strict=True))


def write(path: Path) -> None:
    """The rows in the format of the suffix."""
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    elif path.suffix == ".csv":
        path.write_text('text,label,id\n很好,positive,1\n"很差\n真的",negative,2\n', encoding="utf-8")
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_every_format_gives_the_same_documents(tmp_path: Path, suffix: str) -> None:
    write(tmp_path / f"a.{suffix}")
    table = read(source(kind="files", path=str(tmp_path / "*"), columns={"label": "label", "id": "id"}), tmp_path)
    assert table.schema == document_schema()
    assert rows(table, "text", "label", "id", "license") == [("很好", "positive", "1", "CC0-1.0"), ("很差\n真的", "negative", "2", "CC0-1.0")]


def test_lines_keep_their_numbers_and_domains(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("\ufeff一\r\n\r\n二\u2028二\n三".encode())
    ranges = [{"name": "front", "first_line": 1, "last_line": 2}, {"name": "back", "first_line": 3, "last_line": 3}]
    table = read(source(kind="files", path=str(tmp_path / "a.txt"), label="x", metadata={"year": "1998"}, domains=ranges), tmp_path)
    assert rows(table, "line", "text", "label") == [(1, "一", "x"), (3, "二\u2028二", "x"), (4, "三", "x")]
    assert domains(table["metadata"].to_pylist()) == ["front", "back", None]
    assert json.loads(table["metadata"][0].as_py())["year"] == "1998"


def test_tags_are_stripped() -> None:
    assert strip_tags("迈向/v  充满/v  希望/n  的/u  [中国/ns  政府/n]nt  １/m  //w") == "迈向充满希望的中国政府１/"


def test_a_limit_is_a_sample_by_hash_that_keeps_duplicates_together(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("".join(f"文{number}\n" for number in range(50)) * 2, encoding="utf-8")
    table = read(source(kind="files", path=str(tmp_path / "a.txt")), tmp_path, limit=10)
    assert len(table) == 20 and len(set(table["doc_id"].to_pylist())) == 10
    doc_ids = table["doc_id"].to_pylist()
    assert smallest(iter([doc_ids[::-1]]), 5) == smallest(iter([doc_ids[:7], doc_ids[7:]]), 5) == sorted(set(doc_ids))[:5]
    assert max(table["line"].to_pylist()[:10]) > 10  # no head


def test_a_local_data_set_is_read_with_datasets(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    write(folder / "train.jsonl")
    mine = source(kind="huggingface", path=str(folder), columns={"label": "label"})
    assert rows(read(mine, tmp_path), "text", "label", "member") == [("很好", "positive", "train"), ("很差\n真的", "negative", "train")]
    before = observe(mine)
    assert before["files"]["train.jsonl"]["size"] == (folder / "train.jsonl").stat().st_size
    (folder / "train.jsonl").write_text(json.dumps(ROWS[0]), encoding="utf-8")
    assert observe(mine) != before


def test_a_data_set_of_the_hub_is_read_at_the_observed_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commits, asked = iter("ab"), []
    monkeypatch.setattr("huggingface_hub.HfApi.repo_info", lambda *_, **__: SimpleNamespace(sha=next(commits) * 40))
    monkeypatch.setattr("datasets.load_dataset", lambda *_, **named: asked.append(named["revision"]) or ROWS)
    mine = source(kind="huggingface", path="some/moving-set", revision="main")
    assert observe(mine) == {"revision": "a" * 40}
    assert len(read(mine, tmp_path)) == 2 and asked == ["a" * 40]


def test_a_data_set_folder_does_not_depend_on_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_ASSETS_HOME", str(tmp_path / "home"))
    (tmp_path / "home" / "set").mkdir(parents=True)
    (tmp_path / "here" / "set").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    write(tmp_path / "home" / "set" / "train.jsonl")
    mine = source(kind="huggingface", path="set")
    assert list(observe(mine)["files"]) == ["train.jsonl"] and len(read(mine, tmp_path)) == 2
    (tmp_path / "here" / "other").mkdir()
    with pytest.raises(SourceError, match=r"here/other hides the hub's other; name that folder by its full path"):
        read(source(kind="huggingface", path="other", revision="a" * 40), tmp_path)


def test_a_pinned_revision_is_not_asked_for() -> None:
    assert observe(source(kind="huggingface", path="some/set", revision="a" * 40)) == {"revision": "a" * 40}


def test_an_upstream_asset_is_read_from_the_path_it_states(tmp_path: Path) -> None:
    write(tmp_path / "part.parquet")
    mine = source(kind="asset", key=["warehouse", "reviews"], path=str(tmp_path), columns={"label": "label"})
    assert len(read(mine, tmp_path)) == 2
    assert list(observe(mine)["files"]) == ["part.parquet"]
    with pytest.raises(SourceError, match="warehouse/reviews states no `path`"):
        observe(source(kind="asset", key=["warehouse", "reviews"]))
    with pytest.raises(SourceError, match="materialize warehouse/reviews again"):
        observe(source(kind="asset", key=["warehouse", "reviews"], path=str(tmp_path / "gone")))


def test_files_do_not_depend_on_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("home", "project/here"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "project" / "dagster.yaml").touch()
    (tmp_path / "project" / "here" / "a.txt").write_text("这里\n")
    monkeypatch.setenv("LLM_ASSETS_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "project" / "here")
    mine = source(kind="files", path="*.txt")
    with pytest.raises(SourceError, match="no file matches"):
        observe(mine)
    for root in ("project", "home"):
        (tmp_path / root / "a.txt").write_text(f"{root}\n")
        assert read(mine, tmp_path)["text"].to_pylist() == [root]


def test_an_inbox_passes_over_what_it_cannot_read_and_counts_it(tmp_path: Path) -> None:
    for name in (".DS_Store", "README.md", "scan.docx", "a.txt", ".hidden.txt"):
        (tmp_path / name).write_text("一\n")
    inbox, strict, stated = (source(kind="files", path=str(tmp_path / "*.*"), **more) for more in ({"required": False}, {}, {"format": "lines"}))
    assert len(read(inbox, tmp_path)) == 1
    assert [Path(name).name for name in observe(inbox)["files"]] == ["a.txt"]
    assert [Path(name).name for name in ignored_files(inbox)] == ["README.md", "scan.docx"]
    assert observe(inbox)["ignored"] == ignored_files(inbox)
    with pytest.raises(SourceError, match=r"README\.md has no known suffix"):
        read(strict, tmp_path)
    assert len(read(stated, tmp_path)) == 3 and ignored_files(strict) == ignored_files(stated) == []
    assert len(read(source(kind="files", path=str(tmp_path / ".hidden.txt")), tmp_path)) == 1


@pytest.mark.parametrize(("name", "content"), [
    ("a.jsonl", '{"text": "一", "label": "x"}\n{"text": "二"}\n'), ("a.csv", "text,label\n一,x\n二,\n"), ("a.csv", "label,text\nx,一\n,二\n"),
])  # fmt: skip
def test_documents_may_be_partly_labelled(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    mine = source(kind="files", path=str(tmp_path / name), columns={"label": "label"})
    assert rows(read(mine, tmp_path), "text", "label") == [("一", "x"), ("二", None)]


def test_files_are_observed_by_hash_and_a_vanished_one_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_ASSETS_HOME", str(tmp_path))
    (tmp_path / "inbox").mkdir()
    mine, optional = (source(kind="files", path="inbox/*.txt", required=required) for required in (True, False))
    with pytest.raises(SourceError, match=r"source mine: no file matches inbox/\*\.txt; restore it"):
        observe(mine)
    assert observe(optional) == {"files": {}} and len(read(optional, tmp_path)) == 0
    (tmp_path / "inbox" / "a.txt").write_text("一\n")
    before = observe(mine)
    assert list(before["files"]) == ["inbox/a.txt"]
    (tmp_path / "inbox" / "a.txt").write_text("二\n")
    assert observe(mine) != before


@pytest.mark.parametrize(("name", "content", "reason"), [
    ("a.jsonl", b'{"text": "ok"}\n["no"]\n', "line 2 holds a list, not an object"),
    ("a.jsonl", b'{"body": "ok"}\n', "line 1 has no column text; it has body"),
    ("a.jsonl", b'{"text": 3}\n', "line 1: column text holds int"),
    ("a.txt", b"\xff\xff", "line 1 is not in utf-8-sig; state the source's `encoding`"),
    ("a.jsonl", b'{"text": "ok"}\n{"text": \n', "line 2 is no JSON .*mend it, or set the source's `on_error: reject`"),
    ("a.csv", b"body\nok\n", "it has no column text; it has body"),
    ("a.csv", b"text,label\nok\n", "line 2 has 1 fields, the header 2"),
    ("a.parquet", b"PAR1", "it is no whole Parquet file"),
    ("a.xlsx", b"PK", "it is no whole XLSX file"),
    ("a.zip", b"PK", "it is no whole zip archive"),
    ("a.jsonl.gz", b"no", "is damaged or cut off"),
    ("a.docx", b"", "no known suffix"),
])  # fmt: skip
def test_what_cannot_be_read_is_named(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError, match=rf"source mine: .*{name}.*{reason}"):
        read(source(kind="files", path=str(tmp_path / name)), tmp_path)


def test_a_lone_surrogate_does_not_stop_a_corpus(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "坏\\ud800字"}\n')
    assert read(source(kind="files", path=str(tmp_path / "a.jsonl")), tmp_path)["text"].to_pylist() == ["坏?字"]


def test_pages_of_the_web_are_read_as_files_of_their_format(site: Site) -> None:
    pytest.importorskip("trafilatura")
    page = site.put("/page", article("The quick brown fox jumps over the lazy dog."))
    plain, lines = site.put("/notes.txt?as=html", "一\n二", "text/html"), site.put("/rows", '{"text": "三"}\n', "application/x-ndjson")
    site.answers["/old.txt"] = Answer("déjà vu".encode("latin-1"), headers={"Content-Type": "text/plain; charset=ISO-8859-1"})
    mine = source(kind="http", urls=[page, plain, lines, site.url("/old.txt")], delay=0)
    found = rows(read(mine, cache_root()), "member", "line", "text")
    assert [row for row in found if row[0] != page] == [(plain, 1, "一"), (plain, 2, "二"), (site.url("/old.txt"), 1, "déjà vu"), (lines, 1, "三")]
    assert "quick brown fox" in next(text for member, _, text in found if member == page)
    site.put("/odd", "x", "image/png")
    with pytest.raises(SourceError, match=r"source mine: http.*/odd has no known suffix and image/png; charset=utf-8; state the source's `format`"):
        read(source(kind="http", urls=[site.url("/odd")], delay=0), cache_root())


def test_pages_are_observed_by_hash_and_read_as_observed(site: Site) -> None:
    a, b = site.put("/a.txt", "一"), site.put("/b.txt", "二")
    news = site.put("/feed", feed(a, b, site.url("/gone")), "application/rss+xml")
    mine = source(kind="http", urls=[a], feeds=[news], delay=0, refresh_hours=0)
    before = observe(mine)
    assert before == {
        "pages": {a: hashlib.sha256("一".encode()).hexdigest(), b: hashlib.sha256("二".encode()).hexdigest()},
        "passed_over": {"gone": 1},
    }
    site.put("/b.txt", "三")
    assert read(mine, cache_root())["text"].to_pylist() == ["一", "二"] and passed_over_pages(mine, cache_root()) == {"gone": 1}
    after = observe(mine)
    assert after != before and read(mine, cache_root())["text"].to_pylist() == ["一", "三"]
    shutil.rmtree(cache_root())
    with pytest.raises(SourceError, match=rf"source mine: {a} was replaced in the cache by another run; run again"):
        read(mine, cache_root())
    del site.answers["/a.txt"]
    with pytest.raises(SourceError, match=rf"source mine: {a} has gone \(status 404\); leave it out"):
        observe(mine)


@pytest.mark.parametrize("wrong", [
    {}, {"urls": ["https://a.example/", "ftp://a.example/"]}, {"urls": ["a.example"]}, {"feeds": ["https://a.example/"], "include": "("},
    {"urls": ["https://a.example/", "https://b.example/"], "maximum_pages": 1}, {"urls": ["https://a.example/"], "delay": float("nan")},
])  # fmt: skip
def test_a_wrong_source_of_pages_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        source(kind="http", **wrong)


@pytest.mark.parametrize("key", ["urls", "feeds", "sitemaps"])
def test_a_password_in_an_address_is_refused_and_not_repeated(key: str) -> None:
    with pytest.raises(ValidationError, match=r"https://a.example/b is stated with a user name or password.*leave them out") as caught:
        source(kind="http", **{key: ["https://me:s3cr3t@a.example/b"]})
    assert "s3cr3t" not in str(caught.value)


@pytest.mark.parametrize("wrong", [
    {"kind": "web"}, {"kind": "files", "path": "a", "colums": {}}, {"kind": "files", "path": "a", "label": "x", "columns": {"label": "y"}},
    {"kind": "pypi", "package": "a", "version": "1", "sha256": "short", "member": "b"}, {"kind": "files", "path": "a", "limit": 0},
])  # fmt: skip
def test_a_wrong_source_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        source(**wrong)
