"""Every kind of damage on a small store, each found and named, and none in a clean one."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import pytest

from llm_assets.audit import witnesses
from llm_assets.audit.current import ENTRY, FINGERPRINT
from llm_assets.audit.index import Index
from llm_assets.audit.verify import KINDS, Report, verify_all
from llm_assets.links.making import act
from llm_assets.links.sources import PACKAGE, code_hash, git_state
from llm_assets.store.artifact import Artifact
from llm_assets.store.manifest import MANIFEST, FileEntry, InputEntry, Manifest, describe_files
from llm_assets.store.store import Store
from llm_assets.store.verdict import VERDICTS, Verdict
from llm_assets.tracking.record import TRACKING, record_of
from llm_assets.tracking.tracker import Tracker

from .conftest import answer, break_manifest, flip, rewrite
from .material import commit

COMMIT = "0" * 40


class Scene:
    """A raw corpus, tokens and a released model, with a journal, a ledger, MLflow runs and Dagster's event log."""

    def __init__(self, store: Store, instance: dg.DagsterInstance) -> None:
        self.store, self.instance = store, instance
        run = instance.create_run_for_job(dg.define_asset_job("j").resolve(asset_graph=dg.Definitions(assets=[_asset]).resolve_asset_graph())).run_id
        self.raw = commit(store, "raw_corpus", {"a.txt": b"text"}, dagster_run_id=run, code={"hash": "h", "commit": COMMIT, "dirty": False})
        self.tokens = commit(store, "tokens", {"a.txt": b"numbers"}, self.raw, dagster_run_id=run)
        self.model = commit(store, "quantized_model", {"model.onnx": b"weights"}, self.tokens, dagster_run_id=run)
        self.tracker = Tracker(store.home)
        for made in (self.raw, self.tokens, self.model):
            store.judge(made, [Verdict(check="fine", passed=True, description="ok")])
            instance.report_runless_asset_event(
                dg.AssetMaterialization(
                    ["reviews", made.link], metadata={FINGERPRINT: made.fingerprint}, tags={"dagster/data_version": made.data_version}
                )
            )
        sent = self.tracker.send(record_of("reviews", self.model))
        store.write_sidecar("quantized_model", self.model.fingerprint, TRACKING, {"run_id": sent.run_id, "url": sent.url})
        files = {name: entry.sha256 for name, entry in self.model.manifest.files.items()}
        record = {"release": "reviews-1", "number": 1, "quantized_model": self.model.fingerprint, "files": files}
        link = SimpleNamespace(name="release", checks=(), make=lambda office, config: _acted(record))
        entry, _ = act(store, link, None, {}, chain="reviews", run_id=run, trial=False)  # type: ignore[arg-type]
        instance.report_runless_asset_event(dg.AssetMaterialization(["reviews", "release"], metadata={ENTRY: entry["at"]}))
        answer(store, "reviews-1", "classify-1")

    def verify(self, only: object = None) -> Report:
        index = Index(self.store)
        index.refresh()
        try:
            return verify_all([index], self.instance, [self.tracker], only)  # type: ignore[arg-type]
        finally:
            index.close()

    def journal(self) -> Path:
        return self.store.journal("reviews", "release").path

    def manifest(self, artifact: Artifact) -> Path:
        return artifact.directory / MANIFEST


def _acted(record: dict[str, object]) -> object:
    from llm_assets.links.link import Acted

    return Acted(record, "reviews-1")


@dg.asset
def _asset() -> None: ...


@pytest.fixture(scope="module")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield Scene(Store(tmp_path_factory.mktemp("scene")), instance)


@pytest.fixture
def scene(made_once: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    """A copy of the scene that may be damaged."""
    home = tmp_path / "home"
    shutil.copytree(made_once.store.home, home)
    copy = Scene.__new__(Scene)
    copy.store, copy.instance, copy.tracker = Store(home), made_once.instance, Tracker(home)
    copy.raw, copy.tokens, copy.model = (copy.store.open(one.link, one.fingerprint) for one in (made_once.raw, made_once.tokens, made_once.model))
    monkeypatch.setattr(witnesses, "code_hashes", {COMMIT: {"raw_corpus": "h"}}.get)
    return copy


def test_a_clean_store_has_none(scene: Scene) -> None:
    report = scene.verify()
    assert (report.damages, report.notes, report.artifacts) == ([], [], 3)


def flipped_bit(scene: Scene) -> None:
    path = scene.tokens.path("a.txt")
    path.write_bytes(flip(path.read_bytes()))


def missing_file(scene: Scene) -> None:
    scene.tokens.path("a.txt").unlink()


def cut_off_manifest(scene: Scene) -> None:
    path = scene.manifest(scene.tokens)
    path.write_bytes(path.read_bytes()[:300])


def exchanged_manifest(scene: Scene) -> None:
    shutil.copy(scene.manifest(scene.raw), scene.manifest(scene.tokens))


def edited_recipe(scene: Scene) -> None:
    rewrite(scene.tokens, recipe={**scene.tokens.manifest.recipe, "seed": 18})


def edited_files(scene: Scene) -> None:
    """A data file and its hash in the manifest, both."""
    scene.tokens.path("a.txt").write_bytes(b"other numbers")
    rewrite(scene.tokens, files=describe_files(scene.tokens.directory).copy() | {})


def swapped_weights(scene: Scene) -> None:
    """The released weights, and a manifest that agrees: its data version is the recipe's, which stays true."""
    scene.model.path("model.onnx").write_bytes(b"other weights")
    files = {"model.onnx": FileEntry(**describe_files(scene.model.directory)["model.onnx"].model_dump())}
    rewrite(scene.model, files=files)


def edited_metrics(scene: Scene) -> None:
    rewrite(scene.model, metrics={"accuracy": 0.99})


def edited_verdict(scene: Scene) -> None:
    path = scene.model.directory / VERDICTS
    path.write_text(path.read_text().replace("ok", "excellent"))


def lost_input(scene: Scene) -> None:
    shutil.rmtree(scene.raw.directory)


def exchanged_input(scene: Scene) -> None:
    inputs = {"tokens": InputEntry(link="tokens", fingerprint=scene.tokens.fingerprint, data_version="another")}
    rewrite(scene.model, inputs=inputs, recipe={**scene.model.manifest.recipe, "inputs": {"tokens": "another"}})


def cycle(scene: Scene) -> None:
    entry = InputEntry(link="quantized_model", fingerprint=scene.model.fingerprint, data_version=scene.model.data_version)
    rewrite(scene.raw, inputs={"quantized_model": entry})


def lost_model(scene: Scene) -> None:
    shutil.rmtree(scene.model.directory)


def edited_journal(scene: Scene) -> None:
    path = scene.journal()
    path.write_text(path.read_text().replace('"number": 1', '"number": 2'))


def damaged_journal(scene: Scene) -> None:
    path = scene.journal()
    path.write_text("{\n" + path.read_text())


def lost_entry(scene: Scene) -> None:
    scene.journal().write_text("")


def edited_ledger(scene: Scene) -> None:
    path = scene.store.ledger.path
    path.write_text(path.read_text().replace('"event": "judged"', '"event": "made"', 1))


def shortened_ledger(scene: Scene) -> None:
    path = scene.store.ledger.path
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))


def unknown_materialization(scene: Scene) -> None:
    """What a run made, removed by hand, its lines in the ledger too."""
    shutil.rmtree(scene.model.directory)
    scene.journal().unlink()
    scene.store.ledger.path.unlink()


def lost_dagster_run(scene: Scene) -> None:
    rewrite(scene.raw, dagster_run_id="never-ran")


def lost_mlflow_run(scene: Scene) -> None:
    tracking = scene.store.read_sidecar("quantized_model", scene.model.fingerprint, TRACKING)
    scene.tracker._client().delete_run(tracking["run_id"])  # type: ignore[index]


def other_code(scene: Scene) -> None:
    rewrite(scene.raw, code={"hash": "another", "commit": COMMIT, "dirty": False})


DAMAGES: list[tuple[Callable[[Scene], None], str, str]] = [
    (flipped_bit, "bytes", "a.txt does not have the hash its manifest records"),
    (missing_file, "bytes", "a.txt is missing"),
    (cut_off_manifest, "manifest", "manifest.json is damaged"),
    (exchanged_manifest, "place", "its manifest is that of raw_corpus"),
    (edited_recipe, "recipe", "the manifest was changed by hand"),
    (edited_files, "data_version", "its files make"),
    (swapped_weights, "release", "model.onnx of quantized_model .* is not the file that was released"),
    (edited_metrics, "sealed", "its manifest is not the one that was committed"),
    (edited_verdict, "sealed", "its verdicts are not those that its checks gave"),
    (lost_input, "input", "is not in the store, and no record says that it was removed"),
    (lost_input, "gone", "was committed, and is neither there nor recorded as removed"),
    (exchanged_input, "input", "and had another when it was used"),
    (cycle, "cycle", "name each other"),
    (lost_model, "release", "its model .* is not in the store"),
    (edited_journal, "journal", "line 1 of .*release.jsonl is not as it was written"),
    (damaged_journal, "journal", "line 1 of .*release.jsonl cannot be read"),
    (lost_entry, "journal", "has lost its entry of"),
    (edited_ledger, "ledger", "names another hash than that of the line before"),
    (shortened_ledger, "ledger", "line 1 of .* names another hash"),
    (unknown_materialization, "dagster", "the store has neither it nor a record of its removal"),
    (unknown_materialization, "journal", "Dagster's event log has run .*, the journal has not"),
    (lost_dagster_run, "dagster", "Dagster has no run never-ran"),
    (lost_mlflow_run, "mlflow", "MLflow has no run"),
    (other_code, "code", "the code of commit 000000000000 has hash h, its manifest says another"),
]


@pytest.mark.parametrize(("damage", "kind", "said"), DAMAGES, ids=[f"{damage.__name__}-{kind}" for damage, kind, _ in DAMAGES])
def test_every_kind_of_damage_is_found_and_named(scene: Scene, damage: Callable[[Scene], None], kind: str, said: str) -> None:
    damage(scene)
    found = [one.reason for one in scene.verify().damages if one.kind == kind]
    assert any(re.search(said, reason) for reason in found), found


def test_every_kind_has_a_test_and_a_meaning() -> None:
    assert {kind for _, kind, _ in DAMAGES} == set(KINDS)
    page = (PACKAGE.parent / "docs" / "audit.md").read_text(encoding="utf-8")
    assert [f"| `{kind}` | {meaning} |" in page for kind, meaning in KINDS.items()] == [True] * len(KINDS)


def test_what_was_removed_on_the_record_is_no_damage(scene: Scene) -> None:
    scene.store.remove("raw_corpus", scene.raw.fingerprint, "gc")
    assert scene.verify().damages == []


def test_one_release_is_verified_by_itself(scene: Scene) -> None:
    stranger = commit(scene.store, "tokens", {"a.txt": b"stranger"})
    break_manifest(stranger)
    names = {(one.link, one.fingerprint) for one in (scene.raw, scene.tokens, scene.model)}
    assert scene.verify(names).damages == [] and [damage.kind for damage in scene.verify().damages] == ["manifest", "sealed"]
    flipped_bit(scene)
    assert "bytes" in [damage.kind for damage in scene.verify(names).damages]


def test_what_the_ledger_never_had_is_damage_here_and_a_note_where_it_was_not_kept(scene: Scene) -> None:
    scene.store.ledger.path.unlink()
    report = scene.verify()
    assert report.damages == [] and report.notes == [
        "3 artifacts were made before the ledger was kept or by another data root: nothing vouches for their manifests"
    ]
    folder = scene.store.home / "artifacts" / "tokens" / ("f" * 24)
    commit(scene.store, "tokens", {"a.txt": b"begins the ledger"})
    shutil.copytree(scene.tokens.directory, folder)
    forged = Manifest.read((folder / MANIFEST).read_bytes(), "").model_copy(update={"started": "2027-01-01T00:00:00+00:00"})
    (folder / MANIFEST).write_text(forged.model_dump_json())
    assert "sealed" in [damage.kind for damage in scene.verify().damages]


def test_a_silent_mlflow_is_noted_and_no_damage(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tracker, "missing", lambda self, runs: (_ for _ in ()).throw(ConnectionError("down")))
    report = scene.verify()
    assert report.damages == [] and report.notes == ["MLflow did not answer, so its runs were not compared (ConnectionError)"]


def test_the_code_of_a_commit_is_hashed_by_its_own_sources() -> None:
    hashes = witnesses.code_hashes("HEAD")
    assert hashes and len(hashes["raw_corpus"]) == 24 and witnesses.code_hashes(COMMIT) is None
    if not git_state()["dirty"]:
        assert hashes["raw_corpus"] == code_hash("llm_assets.links.raw_corpus")
    assert PACKAGE.name == "llm_assets" and json.dumps(dict(hashes))
