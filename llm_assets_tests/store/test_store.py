from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import fsspec
import pytest

from llm_assets.store.files import DiskFullError
from llm_assets.store.fingerprint import Recipe
from llm_assets.store.manifest import MANIFEST, OLDEST_FORMAT, STORE_FORMAT, ArtifactError, Manifest
from llm_assets.store.store import Store
from llm_assets.store.verdict import RefusedError, Verdict

from .conftest import manifest_of, writes

RECIPE = Recipe("tokens", 1, {"context": 8})


def test_made_once_then_reused(store: Store) -> None:
    first, reused_first = store.make(RECIPE, writes(RECIPE, a__txt="一"))
    second, reused_second = store.make(RECIPE, lambda directory, scratch: pytest.fail("made twice"))
    assert (reused_first, reused_second) == (False, True)
    assert first == second
    assert first.path("a.txt").read_text(encoding="utf-8") == "一"
    assert not store.work(RECIPE.fingerprint).exists()


def test_without_a_manifest_there_is_no_artifact(store: Store) -> None:
    artifact, _ = store.make(RECIPE, writes(RECIPE, a__txt="one"))
    (artifact.directory / MANIFEST).unlink()
    assert store.find("tokens", RECIPE.fingerprint) is None
    again, reused = store.make(RECIPE, writes(RECIPE, b__txt="two"))
    assert not reused
    assert sorted(again.manifest.files) == ["b.txt"]
    assert not (again.directory / "a.txt").exists()


def test_a_failed_build_leaves_nothing_but_its_scratch(store: Store) -> None:
    def fails(directory: Path, scratch: Path) -> Manifest:
        (directory / "half.txt").write_text("half")
        (scratch / "checkpoint").write_text("step 3")
        raise RuntimeError("killed")

    def resumes(directory: Path, scratch: Path) -> Manifest:
        assert (scratch / "checkpoint").read_text() == "step 3"
        assert list(directory.iterdir()) == []
        return manifest_of(RECIPE, directory)

    with pytest.raises(RuntimeError, match="killed"):
        store.make(RECIPE, fails)
    assert store.find("tokens", RECIPE.fingerprint) is None
    store.make(RECIPE, resumes)


def test_full_disk_commits_nothing_and_says_so(store: Store) -> None:
    def fills_the_disk(directory: Path, scratch: Path) -> Manifest:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(DiskFullError, match=r"disk full.*llm-assets gc"):
        store.make(RECIPE, fills_the_disk)
    assert store.find("tokens", RECIPE.fingerprint) is None
    store.make(RECIPE, writes(RECIPE, a__txt="room again"))


@pytest.mark.skipif(os.geteuid() != 0 or not Path("/proc/mounts").exists(), reason="mounting a small disk needs root on Linux")
def test_a_really_full_disk(tmp_path: Path) -> None:
    mount = tmp_path / "small"
    mount.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(mount)], check=False, capture_output=True).returncode:
        pytest.skip("this machine does not let us mount")
    try:
        store = Store(mount)
        small = Recipe("small", 1, {})
        store.make(small, writes(small, a__txt="fits"))
        with pytest.raises(DiskFullError):
            store.make(RECIPE, writes(RECIPE, big__txt="x" * 1_000_000))
        assert store.find("tokens", RECIPE.fingerprint) is None
        store.open("small", small.fingerprint).verify()
    finally:
        subprocess.run(["umount", str(mount)], check=True)


def test_a_cut_off_file_is_found_at_opening(store: Store) -> None:
    artifact, _ = store.make(RECIPE, writes(RECIPE, a__txt="whole"))
    artifact.path("a.txt").write_text("wh")
    with pytest.raises(ArtifactError, match=r"a\.txt has 2 bytes, its manifest says 5.*--discard"):
        store.open("tokens", RECIPE.fingerprint)


def test_a_flipped_bit_is_found_by_verify(store: Store) -> None:
    artifact, _ = store.make(RECIPE, writes(RECIPE, a__txt="whole"))
    content = bytearray(artifact.path("a.txt").read_bytes())
    content[2] ^= 1
    artifact.path("a.txt").write_bytes(content)
    opened = store.open("tokens", RECIPE.fingerprint)
    with pytest.raises(ArtifactError, match=r"a\.txt does not have the hash"):
        opened.verify()


def test_a_damaged_manifest_is_an_error_that_names_it(store: Store) -> None:
    artifact, _ = store.make(RECIPE, writes(RECIPE, a__txt="x"))
    (artifact.directory / MANIFEST).write_text("{")
    with pytest.raises(ArtifactError, match=r"manifest\.json is damaged"):
        store.find("tokens", RECIPE.fingerprint)


@pytest.mark.parametrize("length", [0, 1, 40, 400])
def test_a_cut_off_manifest_is_an_error_that_names_it(store: Store, length: int) -> None:
    path = store.make(RECIPE, writes(RECIPE, a__txt="x"))[0].directory / MANIFEST
    path.write_text(path.read_text()[:length])
    with pytest.raises(ArtifactError, match=r"manifest\.json is damaged .*; restore it or discard the artifact and run again"):
        store.find("tokens", RECIPE.fingerprint)
    assert list(store.manifests()) == []  # and it stops nothing else


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (STORE_FORMAT + 1, f"has store format {STORE_FORMAT + 1}; this release reads {STORE_FORMAT}: upgrade llm_assets"),
        (OLDEST_FORMAT - 1, "which this release reads no more: open it with the one that wrote it, or make it again"),
        (None, "is damaged"),
        ("1", "is damaged"),
    ],
)
def test_a_store_of_another_format_is_refused_with_the_reason(store: Store, written: object, said: str) -> None:
    path = store.make(RECIPE, writes(RECIPE, a__txt="x"))[0].directory / MANIFEST
    path.write_text(json.dumps({**json.loads(path.read_text()), "store_format": written}))
    with pytest.raises(ArtifactError, match=f"manifest.json .*{said}"):
        store.find("tokens", RECIPE.fingerprint)


def test_verdicts_are_enforced(store: Store) -> None:
    artifact, _ = store.make(RECIPE, writes(RECIPE, a__txt="x"))
    with pytest.raises(RefusedError, match="never checked"):
        store.refuse_failed(artifact)
    store.judge(artifact, [Verdict(check="warns", passed=False, blocking=False, description="meh")])
    store.refuse_failed(artifact)
    store.judge(artifact, [Verdict(check="blocks", passed=False, description="3 rows lost")])
    with pytest.raises(RefusedError, match="blocks: 3 rows lost"):
        store.refuse_failed(artifact)


RACE = """
import sys, time
from pathlib import Path
from llm_assets.store.fingerprint import Recipe
from llm_assets.store.store import Store
from llm_assets_tests.store.conftest import manifest_of
recipe, home = Recipe("tokens", 1, {"context": 8}), Path(sys.argv[1])
def build(directory, scratch):
    (home / f"built-{sys.argv[2]}").touch()
    (directory / "a.txt").write_text("one")
    time.sleep(float(sys.argv[3]))
    return manifest_of(recipe, directory)
print(Store(home).make(recipe, build)[1])
"""


def _race(home: Path, name: str, seconds: float) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", textwrap.dedent(RACE), str(home), name, str(seconds)], stdout=subprocess.PIPE, text=True)


def test_two_processes_make_it_once(tmp_path: Path) -> None:
    both = [_race(tmp_path, "a", 1), _race(tmp_path, "b", 1)]
    printed = sorted(process.communicate(timeout=60)[0].strip() for process in both)
    assert printed == ["False", "True"]
    assert len(list(tmp_path.glob("built-*"))) == 1


def test_sigkill_of_the_maker_frees_the_lock(tmp_path: Path) -> None:
    victim = _race(tmp_path, "victim", 60)
    while not (tmp_path / "built-victim").exists():
        time.sleep(0.05)
    assert Store(tmp_path).is_being_made(RECIPE.fingerprint)
    victim.send_signal(signal.SIGKILL)
    victim.communicate()
    assert Store(tmp_path).find("tokens", RECIPE.fingerprint) is None
    printed = _race(tmp_path, "heir", 0).communicate(timeout=60)[0]
    assert printed.strip() == "False"
    Store(tmp_path).open("tokens", RECIPE.fingerprint).verify()


@pytest.fixture
def s3_url(monkeypatch: pytest.MonkeyPatch) -> str:
    """A bucket on a local S3 server."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_ENDPOINT_URL": f"http://{host}:{port}"}.items():
        monkeypatch.setenv(name, value)
    fsspec.filesystem("s3", skip_instance_cache=True).mkdir("chain")
    yield "s3://chain/artifacts"
    server.stop()


@pytest.mark.parametrize("kind", ["memory", "s3"])
def test_a_remote_root_behaves_like_a_local_one(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    root = request.getfixturevalue("s3_url") if kind == "s3" else f"memory://{tmp_path.name}"
    store = Store(tmp_path / "here", root)
    made, reused = store.make(RECIPE, writes(RECIPE, a__txt="远方"))
    assert not reused
    store.judge(made, [Verdict(check="fine", passed=True, description="ok")])

    elsewhere = Store(tmp_path / "there", root)
    opened, reused = elsewhere.make(RECIPE, lambda directory, scratch: pytest.fail("made twice"))
    assert reused
    assert opened.path("a.txt").read_text(encoding="utf-8") == "远方"
    elsewhere.refuse_failed(opened)
    assert [manifest.fingerprint for manifest in elsewhere.manifests()] == [RECIPE.fingerprint]

    opened.path("a.txt").write_text("cut")
    assert elsewhere.open("tokens", RECIPE.fingerprint).path("a.txt").read_text(encoding="utf-8") == "远方"
    elsewhere.remove("tokens", RECIPE.fingerprint)
    assert store.find("tokens", RECIPE.fingerprint) is None
