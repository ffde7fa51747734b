"""Dagster's graph against the store: nothing on a sound one, and each way of tampering named."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest

from llm_assets.audit.agreement import Agreement, compare
from llm_assets.audit.current import ENTRY, FINGERPRINT
from llm_assets.audit.index import Index
from llm_assets.components.llm_chain.lineage_check import lineage_checks
from llm_assets.components.llm_chain.resources import ChainResource, resource_key
from llm_assets.components.llm_chain.spec import ChainSpec
from llm_assets.links.link import Acted
from llm_assets.links.making import act
from llm_assets.store.artifact import Artifact
from llm_assets.store.journal import now
from llm_assets.store.store import Store
from llm_assets.store.verdict import Verdict

from .conftest import rewrite
from .material import commit


class Scene:
    """Raw corpus, tokens and a released model of a chain, in a store and in Dagster's event log."""

    def __init__(self, home: Path, instance: dg.DagsterInstance) -> None:
        self.store, self.instance = Store(home), instance
        self.events: dict[str, tuple[str, int]] = {}  # link -> data version, storage id
        self.raw = self._made("raw_corpus")
        self.tokens = self._made("tokens", self.raw)
        self.model = self._made("quantized_model", self.tokens)
        record = {"release": "reviews-1", "number": 1, "quantized_model": self.model.fingerprint, "files": {}}
        link = SimpleNamespace(name="release", checks=(), make=lambda office, config, **inputs: Acted(record, "reviews-1"))
        inputs: Any = {"quantized_model": self.model}
        entry, _ = act(self.store, link, None, inputs, chain="reviews", run_id="run", trial=False)  # type: ignore[arg-type]
        self.told("release", "reviews-1", ["quantized_model"], {ENTRY: entry["at"]})

    def _made(self, link: str, *inputs: Artifact) -> Artifact:
        made = commit(self.store, link, {"a.txt": link.encode()}, *inputs, started=now())
        self.store.judge(made, [Verdict(check="fine", passed=True, description="ok")])
        self.told(link, made.data_version, [one.link for one in inputs], {FINGERPRINT: made.fingerprint})
        return made

    def told(self, link: str, version: str, inputs: list[str], metadata: dict[str, Any], **tags: str) -> None:
        """A materialization as the steps of a chain state it."""
        stated = {"dagster/data_version": version}
        for name in inputs:
            stated[f"dagster/input_data_version/reviews/{name}"], pointer = self.events[name]
            stated[f"dagster/input_event_pointer/reviews/{name}"] = str(pointer)
        stated |= {f"dagster/input_data_version/reviews/{name}": value for name, value in tags.items()}
        self.instance.report_runless_asset_event(dg.AssetMaterialization(["reviews", link], metadata=metadata, tags=stated))
        record = self.instance.fetch_materializations(dg.AssetKey(["reviews", link]), limit=1).records[0]
        self.events[link] = (version, record.storage_id)

    def compare(self) -> Agreement:
        index = Index(self.store)
        index.refresh()
        try:
            return compare(self.instance, index, "reviews", "release")
        finally:
            index.close()


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield Scene(tmp_path, instance)


def test_a_sound_chain_agrees_all_the_way_up(scene: Scene) -> None:
    assert scene.compare() == Agreement(4, [])


def test_a_reused_artifact_agrees_too(scene: Scene) -> None:
    scene.told("raw_corpus", scene.raw.data_version, [], {FINGERPRINT: scene.raw.fingerprint})
    scene.told("tokens", scene.tokens.data_version, ["raw_corpus"], {FINGERPRINT: scene.tokens.fingerprint})
    assert scene.compare() == Agreement(4, [])


def other_input(scene: Scene) -> None:
    (entry,) = scene.tokens.manifest.inputs.values()
    rewrite(scene.tokens, inputs={"raw_corpus": entry.model_copy(update={"data_version": "other"})})


def gone_artifact(scene: Scene) -> None:
    shutil.rmtree(scene.raw.directory)


def other_version(scene: Scene) -> None:
    rewrite(scene.raw, data_version="other")


def edited_manifest(scene: Scene) -> None:
    rewrite(scene.model, metrics={"accuracy": 1.0})


def _edit_journal(scene: Scene, edit: Callable[[dict[str, Any]], object]) -> None:
    path = scene.store.journal("reviews", "release").path
    entry = json.loads(path.read_text())
    edit(entry)
    path.write_text(json.dumps(entry) + "\n")


def edited_journal(scene: Scene) -> None:
    _edit_journal(scene, lambda entry: entry["record"].update(approved_by="somebody"))


def lost_journal(scene: Scene) -> None:
    scene.store.journal("reviews", "release").path.write_text("")


def other_model_in_journal(scene: Scene) -> None:
    _edit_journal(scene, lambda entry: entry["inputs"].update(quantized_model="f" * 24))


def cut_ledger(scene: Scene) -> None:
    path = scene.store.ledger.path
    lines = [line for line in path.read_text().splitlines() if scene.model.fingerprint not in line]
    path.write_text("\n".join(lines) + "\n")


def told_otherwise(scene: Scene) -> None:
    """Somebody reports a materialization by hand: this artifact, made from another corpus."""
    scene.told("tokens", scene.tokens.data_version, ["raw_corpus"], {FINGERPRINT: scene.tokens.fingerprint}, raw_corpus="another")
    _release_again(scene)


def told_without_input(scene: Scene) -> None:
    scene.told("tokens", scene.tokens.data_version, [], {FINGERPRINT: scene.tokens.fingerprint})
    _release_again(scene)


def wiped(scene: Scene) -> None:
    scene.instance.wipe_assets([dg.AssetKey(["reviews", "raw_corpus"])])


def _release_again(scene: Scene) -> None:
    scene.told("quantized_model", scene.model.data_version, ["tokens"], {FINGERPRINT: scene.model.fingerprint})
    at = scene.store.journal("reviews", "release").newest()
    assert at
    scene.told("release", "reviews-1", ["quantized_model"], {ENTRY: at["at"]})


@pytest.mark.parametrize(
    ("tamper", "said"),
    [
        (other_input, r"its manifest says that it was made from reviews/raw_corpus other, Dagster's event log says "),
        (gone_artifact, r"raw_corpus .*the store has neither it nor a record of its removal"),
        (other_version, r"raw_corpus .*Dagster's event log has data version .*, its manifest other"),
        (edited_manifest, r"quantized_model .*its manifest is not the one that was committed"),
        (edited_journal, r"its entry in .*release.jsonl is not as it was written"),
        (lost_journal, r"reviews/release of .*release.jsonl has not"),
        (other_model_in_journal, r"made from reviews/quantized_model \(no artifact f+\)"),
        (cut_ledger, r"quantized_model .*the ledger, kept since .*, has it not"),
        (told_otherwise, r"reviews/tokens read reviews/raw_corpus another from Dagster's event"),
        (told_without_input, r"its manifest says that it was made from reviews/raw_corpus .*Dagster's event log says nothing of it"),
        (wiped, r"reviews/tokens read reviews/raw_corpus .*no such event is there any more"),
    ],
)
def test_whatever_was_tampered_with_is_named(scene: Scene, tamper: Callable[[Scene], None], said: str) -> None:
    tamper(scene)
    breaks = scene.compare().breaks
    assert any(re.search(said, sentence) for sentence in breaks), breaks


def test_what_was_never_made_is_said_so(scene: Scene) -> None:
    index = Index(scene.store)
    assert compare(scene.instance, index, "other", "release").breaks == [
        "Dagster's event log has no materialization of other/release: materialize it"
    ]
    index.close()


def test_the_check_of_a_chain_passes_and_fails_and_names_its_role(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_ASSETS_HOME", str(scene.store.home))
    source = {"kind": "files", "name": "mine", "path": "a.txt", "license": "MIT"}
    spec = ChainSpec.model_validate({"name": "reviews", "raw_corpus": {"sources": [source]}, "roles": {"product_manager": "owners"}})
    check = lineage_checks(spec)[0]
    (declared,) = check.check_specs
    assert (declared.key.to_user_string(), declared.blocking, declared.metadata["role"]) == ("reviews/release:lineage", True, "owners")

    def result() -> dg.AssetCheckResult:
        context = dg.build_asset_check_context(instance=scene.instance, resources={resource_key("reviews"): ChainResource()})
        found = check(context)
        assert isinstance(found, dg.AssetCheckResult)
        return found

    assert result().passed and result().description == "Dagster and the store agree on 4 materializations"
    gone_artifact(scene)
    assert not result().passed and "neither it nor a record" in str(result().description)
