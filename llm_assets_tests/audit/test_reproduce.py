from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from llm_assets.audit import reproduce as module
from llm_assets.audit.index import Index
from llm_assets.audit.reproduce import NotReproducibleError, Reproduction, reproduce
from llm_assets.audit.words.reproduce import summary
from llm_assets.links.chain import LINKS
from llm_assets.links.link import Bench, Link, Made, Section
from llm_assets.links.making import make
from llm_assets.store.artifact import Artifact
from llm_assets.store.store import Store
from llm_assets_tests.corpus.material import no_launch

from .conftest import rewrite
from .material import copied_chain


@pytest.fixture
def clean(store: Store) -> Artifact:
    """A clean corpus that the present code made, with nothing uncommitted."""
    made = copied_chain(store)["clean_corpus"]
    return changed(store, made, code={**made.manifest.code, "dirty": False})


def changed(store: Store, artifact: Artifact, **changes: object) -> Artifact:
    rewrite(artifact, **changes)
    return store.open(artifact.link, artifact.fingerprint)


def again(index: Index, artifact: Artifact, folder: Path) -> Reproduction:
    index.refresh()
    return reproduce(index, (artifact.link, artifact.fingerprint), folder, no_launch)[0]


def test_data_comes_out_with_the_same_bytes(clean: Artifact, index: Index, tmp_path: Path) -> None:
    found = again(index, clean, tmp_path / "clean")
    assert found.equal and found.files["documents.parquet"] and not any(name.startswith("plots/") for name in found.files)
    assert (tmp_path / "clean" / "artifacts" / "clean_corpus" / clean.fingerprint / "manifest.json").is_file()
    assert summary(found)[-1] == "it is the same"


def test_other_bytes_are_named(clean: Artifact, store: Store, index: Index, tmp_path: Path) -> None:
    files = dict(clean.manifest.files)
    files["rejects.parquet"] = files["documents.parquet"]
    spoiled = changed_without_sizes(store, clean, files)
    found = again(index, spoiled, tmp_path / "clean")
    assert not found.equal and [name for name, equal in found.files.items() if not equal] == ["rejects.parquet"]
    assert "not rejects.parquet" in summary(found)[1] and summary(found)[-1] == "it is NOT the same"


def changed_without_sizes(store: Store, artifact: Artifact, files: dict) -> Artifact:
    """As if the first making had written another file."""
    artifact.path("rejects.parquet").write_bytes(artifact.path("documents.parquet").read_bytes())
    return changed(store, artifact, files=files)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ({"dirty": True}, "uncommitted changes"),
        ({"hash": "another", "commit": "c0ffee"}, r"code of hash another made it, this code has \w+; its commit is c0ffee: run there"),
    ],
)
def test_other_code_is_refused_with_the_reason(clean: Artifact, store: Store, index: Index, tmp_path: Path, code: dict, said: str) -> None:
    with pytest.raises(NotReproducibleError, match=f"clean_corpus {clean.fingerprint} cannot be made again: .*{said}"):
        again(index, changed(store, clean, code={**clean.manifest.code, **code}), tmp_path / "clean")
    assert not (tmp_path / "clean").exists()


def test_another_version_is_refused(clean: Artifact, store: Store, index: Index, tmp_path: Path) -> None:
    with pytest.raises(NotReproducibleError, match=f"version 1 of clean_corpus made it, this code is version {LINKS['clean_corpus'].version}"):
        again(index, changed(store, clean, recipe={**clean.manifest.recipe, "version": 1}), tmp_path / "clean")


def test_a_missing_input_is_refused(clean: Artifact, store: Store, index: Index, tmp_path: Path) -> None:
    screened = clean.manifest.inputs["screened_corpus"].fingerprint
    store.remove("screened_corpus", screened, "gc")
    with pytest.raises(NotReproducibleError, match=f"its input screened_corpus {screened} is removed on .*: gc"):
        again(index, clean, tmp_path / "clean")


def test_an_optional_link_that_it_was_not_made_from_is_not_asked_for(clean: Artifact, index: Index, tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    link = replace(LINKS["clean_corpus"], inputs=(*LINKS["clean_corpus"].inputs, "aligned_model"))
    monkeypatch.setattr(module, "link_of", lambda *_: link)
    assert again(index, clean, tmp_path / "clean").equal


def test_a_changed_source_is_refused(clean: Artifact, store: Store, index: Index, tmp_path: Path) -> None:
    name = clean.manifest.inputs["screened_corpus"].fingerprint
    screened = store.open("screened_corpus", name)
    code = {**screened.manifest.code, "dirty": False}
    recipe = {**screened.manifest.recipe, "observed": {"my_rule": "hash"}}
    with pytest.raises(NotReproducibleError, match=r"its recipe would be another now: observed\.my_rule: hash -> absent"):
        again(index, changed(store, screened, code=code, recipe=recipe), tmp_path / "clean")


class Config(Section):
    """A link of the test's own."""


def trained(loss: Callable[[], float]) -> Link:
    def learn(bench: Bench, config: Config) -> Made:
        value = loss()
        (bench.directory / "model.safetensors").write_text(str(value))
        return Made({"loss": value, "tokens_per_second": value * 1000})

    learn.__module__ = "llm_assets.links.compute"  # the file whose code is hashed
    return Link("pretrained_checkpoint", 1, learn, Config, (), "model", "data_scientist", (), trained=True)


@pytest.mark.parametrize(("second", "equal"), [(2.0, True), (2.015, True), (2.5, False)])
def test_a_trained_link_agrees_within_the_tolerance(
    store: Store, index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, second: float, equal: bool
) -> None:
    losses = iter((2.0, second))
    link = trained(lambda: next(losses))
    monkeypatch.setattr(module, "link_of", lambda name, variant: link)
    first = make(store, link, Config(), {}, seed=1, launch=no_launch).artifact
    found = again(index, changed(store, first, code={**first.manifest.code, "dirty": False}), tmp_path / "again")
    assert (found.trained, found.equal, found.files) == (True, equal, {"model.safetensors": second == 2.0})
    assert [(one["name"], one["within"]) for one in found.figures] == [("loss", equal)]
    assert ("loss 2.0 -> 2.5" in "\n".join(summary(found))) == (not equal)


def test_how_the_work_was_laid_out_is_chosen_so_that_the_batch_is_the_same() -> None:
    from llm_assets.links.pretrained_checkpoint import PretrainedCheckpointConfig

    recipe = PretrainedCheckpointConfig(processes=2, micro_batch=8, accumulation=2).recipe()
    link = LINKS["pretrained_checkpoint"]
    for size, processes in ((2, 2), (3, 1)):
        manifest = type("M", (), {"recipe": {"config": recipe}, "metrics": {"world_size": size}, "fingerprint": "f"})
        config = module._config(link, manifest)  # type: ignore[arg-type]
        assert config.recipe() == recipe and config.processes == processes  # type: ignore[attr-defined]
    manifest.recipe = {"config": {**recipe, "from_pretrained": {"asset": ["reviews", "pretrained_checkpoint"]}}}
    with pytest.raises(NotReproducibleError, match="its config names another asset"):
        module._config(replace(link), manifest)  # type: ignore[arg-type]
