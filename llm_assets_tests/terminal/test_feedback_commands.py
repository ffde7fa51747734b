"""`llm-assets feedback`, in this process, over votes of two clients."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from llm_assets.cli import app
from llm_assets.corpus.batches import batch_folder, read_batches
from llm_assets.operation.feedback_batch import FeedbackBatchConfig, feedback_batch
from llm_assets.operation.withdrawal import WithdrawalError
from llm_assets.terminal.settings import UsageError
from llm_assets_tests.operation.released import office
from llm_assets_tests.operation.traffic import line, vote, write_log


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LLM_ASSETS_HOME", str(tmp_path))
    monkeypatch.delenv("LLM_ASSETS_PRESET", raising=False)
    write_log(tmp_path, [line(n, f"第{n}间房很吵") for n in range(3)], chain="reviews")
    write_log(tmp_path, [vote(n, label="negative", client="ann" if n else "flood") for n in range(3)], chain="reviews", kind="feedback")
    feedback_batch(office(tmp_path, "feedback_batch", "reviews"), FeedbackBatchConfig(minimum=1, client_share=1))
    return tmp_path


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["feedback", *arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_a_dry_run_shows_what_yes_then_withdraws_and_the_list_tells_of_it(home: Path) -> None:
    asked = ("withdraw", "reviews", "--client", "flood", "--reason", "a script", "--by", "Ada")
    said = run(*asked)
    assert "1 votes (flood 1)" in said and "which keeps 2: negative 1" in said and said.endswith("nothing was done; --yes does it\n")
    assert len(read_batches(batch_folder(home, "reviews"))) == 3
    done = run(*asked, "--yes")
    assert "1 votes and 1 labelled texts no longer count" in done and "llm-assets retrain reviews" in done
    assert len(read_batches(batch_folder(home, "reviews"))) == 2
    listed = run("list", "reviews")
    assert "2 texts" in listed and "2 votes" in listed and "Ada withdrew 1 votes and 1 texts: a script" in listed and "flood" not in listed


def test_what_cannot_be_meant_is_said(home: Path) -> None:
    with pytest.raises(UsageError, match="yesterday is no time"):
        run("withdraw", "reviews", "--since", "yesterday", "--reason", "wrong")
    with pytest.raises(WithdrawalError, match="say what is wrong"):
        run("withdraw", "reviews", "--reason", "wrong")
