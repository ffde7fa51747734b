"""The loop closed: drift, retraining from use, a gate that blocks, a canary that goes back, by the sensors of a running service."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import chain, cycle, islice
from pathlib import Path
from typing import Any

from benchmarks import loop_story as story
from benchmarks.gateways import release as planted
from benchmarks.gateways import until
from benchmarks.loop_client import Answered, Client
from benchmarks.loop_figure import draw
from benchmarks.loop_project import CHAIN, Place, changes, environment, services, write_project
from benchmarks.loop_texts import Review, Sizes, Texts, texts_of
from benchmarks.result import Result
from llm_assets.serving.events import read_events
from llm_assets.serving.state import gateway_state
from llm_assets.store.journal import Journal

SEED = 17
SIZES = {
    "tiny": Sizes(learnt=2400, control=200, votes=300, wrong_votes=600, wrong_books=500, held_out=300),
    "demo": Sizes(learnt=3200, control=200, votes=500, wrong_votes=2000, wrong_books=300, held_out=2000),
}
PACE = 4  # requests a second while something is waited for
LOOK, RUN = 300.0, 1800.0  # seconds that a look of the watching schedule, which ticks each minute, and a run of the chain may take
FRESH = 15.0  # seconds since a look: voting takes less than the 45 that are left to the next
AFTER = 5.0  # seconds for which the service is asked after its canary went back


def loop(preset: str, home: Path) -> Result:
    """Accuracy gained on hotel and computer reviews by a service that learned book reviews, meets them, and trains itself; one figure.

    A project with one chain, that of `reviews` on book reviews alone, under Dagster's daemon with every sensor on, and the gateway. Book
    reviews never seen are asked first, then hotel and computer reviews, with their labels as delayed feedback; the sensors do the rest.
    Then wrong votes come in, whose candidate the gate must block, and last a release that answers the opposite of what was approved, as
    a canary. All that is told is read from journals, request log and Dagster's runs. Figure and logs stand in --home, which must hold no
    experiment yet. `--preset demo` is the experiment, about ten minutes; `tiny` only goes through its motions, too small to hold.
    """
    if preset not in SIZES:
        raise ValueError(f"loop has sizes for the presets {' and '.join(SIZES)}, none for {preset}: choose one of these")
    place, sizes = Place(home.resolve() / "loop"), SIZES[preset]
    texts = texts_of(sizes, SEED)
    write_project(place, preset, sizes, texts.learnt)
    variables = environment(place, preset)
    os.environ.update(variables)
    with services(place, variables):
        until(lambda: gateway_state(place.home), LOOK)
        client = Client(place.home, CHAIN)
        try:
            _Experiment(place, client, texts, sizes).run()
        finally:
            client.close()
            story.notes(place.folder).append({"failed": client.failed})
    told = story.read(place.folder, place.home, CHAIN, runs())
    claims = story.claims(told)
    for claim in claims:
        print(f"{'yes' if claim.holds else 'NO':<5}{claim.says}")
    draw(told, place.folder / "loop.png")
    print(f"figure: {place.folder / 'loop.png'}")
    target = f"at least {100 * story.GAIN:g}, at most {100 * story.LOSS:g} lost on books, and every line above"
    return Result("loop", round(100 * story.gain(told), 2), "points gained on the new kind", target, all(claim.holds for claim in claims))


def runs() -> list[story.Run]:
    """The runs of the whole chain in the experiment's Dagster instance, oldest first."""
    import dagster as dg

    from llm_assets.components.llm_chain.runs import REASON_TAG

    with dg.DagsterInstance.get() as instance:
        records = instance.get_run_records(dg.RunsFilter(job_name=CHAIN), ascending=True)
    return [
        story.Run(
            reason=record.dagster_run.tags.get(REASON_TAG, ""),
            began=record.create_timestamp.astimezone(UTC),
            ended=datetime.fromtimestamp(record.end_time, UTC) if record.end_time else None,
            status=record.dagster_run.status.value,
        )
        for record in records
    ]


class _Experiment:
    """What is done from outside, step by step; in between the service is left to itself, and asked by passers-by at a steady pace."""

    def __init__(self, place: Place, client: Client, texts: Texts, sizes: Sizes) -> None:
        self._place, self._home, self._client, self._texts, self._sizes = place, place.home, client, texts, sizes
        self._notes = story.notes(place.folder)
        self._passers = cycle(texts.passers)
        self._began = time.monotonic()

    def run(self) -> None:
        """All of it."""
        self._say("the policy sensor starts the first run")
        self._wait(lambda: self._succeeded(1), RUN)
        self._wait(lambda: self._serves(1), LOOK)
        self._judge_newest()
        self._say("book reviews that the model has not seen")
        self._client.ask(self._texts.control)
        self._wait(lambda: any(look["record"]["texts"] >= len(self._texts.control) for look in self._entries("drift")), LOOK)
        self._meet_the_new_kind()
        self._be_misled()
        self._turn_a_canary()

    def _meet_the_new_kind(self) -> None:
        self._mark(story.NEW)
        coming = iter(self._texts.voted)
        answered = self._ask(chain(coming, self._passers), lambda: any(event["kind"] == "drift" for event in read_events(self._home, CHAIN)), LOOK)
        answered += self._client.ask(list(coming))
        self._vote(answered)
        self._meanwhile(lambda: self._succeeded(2), RUN)
        self._judge_newest()
        self._meanwhile(lambda: self._serves(2), LOOK)

    def _be_misled(self) -> None:
        self._mark(story.WRONG)
        self._vote(self._client.ask(self._texts.misled))
        self._meanwhile(lambda: len(runs()) > 2 and runs()[2].ended is not None, RUN)
        self._judge_newest()

    def _turn_a_canary(self) -> None:
        """A release whose labels are turned around behind the gate: it loads and passes the probe, and answers the opposite."""
        from llm_assets.links.endpoint import EndpointConfig
        from llm_assets.operation.champion import released
        from llm_assets.serving.releases import champion, next_number, release_journal
        from llm_assets.serving.state import newest_rollout, proven, write_desired

        journal, good = release_journal(self._home, CHAIN), released(self._home, CHAIN)
        assert good is not None
        expected = (champion(journal) or {})["gate"]["disagreement"]  # what the gate predicted of the model that the bad one is a copy of
        plan = EndpointConfig.model_validate(changes(self._sizes)["endpoint"]).plan(expected)
        stable = proven(self._home, CHAIN)
        self._mark(story.BAD)
        bad = planted(self._home, next_number(journal), good.model.directory, turned=True, chain=CHAIN)
        write_desired(self._home, CHAIN, bad, stable, plan)
        self._meanwhile(lambda: (rollout := newest_rollout(self._home, CHAIN)) is not None and rollout.is_over, LOOK)
        last = time.monotonic() + AFTER
        self._meanwhile(lambda: time.monotonic() > last, LOOK)

    def _ask(self, reviews: Iterator[Review], done: Callable[[], bool], seconds: float) -> list[Answered]:
        """Ask at the pace until something is done; what was answered. Raises ``TimeoutError`` when it takes longer than so many seconds."""
        found: list[Answered] = []
        deadline = time.monotonic() + seconds
        while not done():
            if time.monotonic() > deadline:
                raise TimeoutError(f"not done after {seconds:g} s: {self._home / 'logs'} and the runs in {self._home / 'dagster'} tell more")
            began = time.monotonic()
            found += self._client.ask(list(islice(reviews, PACE)))
            time.sleep(max(0.0, began + 1 - time.monotonic()))
        return found

    def _meanwhile(self, done: Callable[[], bool], seconds: float) -> None:
        self._ask(self._passers, done, seconds)

    def _wait(self, done: Callable[[], bool], seconds: float) -> None:
        self._ask(iter(()), done, seconds)

    def _vote(self, answered: Sequence[Answered]) -> None:
        """Vote just after the schedule has looked for votes, so that its next look finds all of them."""
        self._meanwhile(lambda: time.time() - datetime.fromisoformat(self._entries("feedback_batch")[-1]["at"]).timestamp() < FRESH, LOOK)
        self._say(f"{self._client.vote(answered)} votes")

    def _judge_newest(self) -> None:
        """Note what the newest model that a scorecard judged says of the frozen test set, and of the held-out reviews of the new kind."""
        from llm_assets.evaluation import predictions
        from llm_assets.links.quantized_model import QUANTIZED
        from llm_assets.operation.champion import opened
        from llm_assets.serving.engine import OnnxClassifier

        fingerprint = self._entries("scorecard")[-1]["record"]["quantized_model"]
        model = opened(self._home / "artifacts" / "quantized_model" / fingerprint)
        engine = OnnxClassifier(model.directory)
        answers = engine.classify([review.text for review in self._texts.held_out])
        given = [engine.labels[max(range(len(row)), key=row.__getitem__)] for row in answers]
        new = {str(index): float(said == review.label) for index, (said, review) in enumerate(zip(given, self._texts.held_out, strict=True))}
        old = predictions.merit(predictions.read(model, QUANTIZED, "test"))
        self._notes.append({"judged": fingerprint, "old": old, "new": new})
        self._say("accuracy on books {:.4f}, on the new kind {:.4f}".format(*story.Judged(old, new).accuracies))

    def _succeeded(self, number: int) -> bool:
        """Whether the run of this number has ended well. Raises ``RuntimeError`` when it ended otherwise: nothing stands on it then."""
        found = runs()
        if len(found) < number or found[number - 1].ended is None:
            return False
        if found[number - 1].status != "SUCCESS":
            raise RuntimeError(f"run {number} of the chain ended as {found[number - 1].status}: `llm-assets doctor`, or its events in Dagster")
        return True

    def _serves(self, number: int) -> bool:
        served = (gateway_state(self._home) or {}).get("chains", {}).get(CHAIN, {})
        return (served.get("live"), served.get("state")) == (f"{CHAIN}-{number}", "full")

    def _entries(self, act: str) -> list[dict[str, Any]]:
        """What an act in service, or of the chain, has written so far; of looks for drift those that judged."""
        entries = Journal(self._home / "journal" / CHAIN / f"{act}.jsonl").entries()
        return [entry for entry in entries if entry["record"].get("judged", True)]

    def _mark(self, name: str) -> None:
        self._notes.append({"mark": name})
        self._say(name)

    def _say(self, what: str) -> None:
        print(f"{time.monotonic() - self._began:>6.0f} s  {what}", flush=True)
