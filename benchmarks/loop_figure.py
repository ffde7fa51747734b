"""The experiment `loop` in one figure: runs, traffic, drift and accuracy over the same minutes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks.loop_story import BAD, NEW, WRONG, Story

BIN = 5.0  # seconds of traffic in one bar
SIZE = (11.0, 9.0)  # inches
TIMES = (0.1, 0.3, 1, 3, 10, 30)  # a threshold, marked at the axis
OUTCOMES = {"SUCCESS": "tab:green", "FAILURE": "tab:red"}
TOLD = {NEW: "hotels and computers come in", WRONG: "wrong votes come in", BAD: "a canary turns bad"}


def draw(story: Story, path: Path) -> None:
    """Write the figure as PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE, dpi=100, layout="tight")
    FigureCanvasAgg(figure)
    axes = figure.subplots(4, 1, sharex=True, height_ratios=(1.1, 1.6, 1.2, 1.6))
    clock = _Clock(story.runs[0].began)
    for draw_panel, panel in zip((_runs, _traffic, _drift, _accuracy), axes, strict=True):
        draw_panel(story, panel, clock)
        for name, at in story.marks.items():
            panel.axvline(clock(at), color="grey", linestyle=":", linewidth=1)
            if panel is axes[0]:
                panel.text(clock(at), 1.04, f" {TOLD[name]}", transform=panel.get_xaxis_transform(), fontsize=8, color="grey")
    axes[-1].set_xlabel("minutes since the policy sensor asked for the first run")
    figure.savefig(path)


class _Clock:
    """Minutes since the beginning."""

    def __init__(self, began: datetime) -> None:
        self._began = began

    def __call__(self, at: datetime) -> float:
        return (at - self._began).total_seconds() / 60

    def of(self, entry: Mapping[str, Any]) -> float:
        """Of a journal's entry."""
        return self(datetime.fromisoformat(entry["at"]))


def _runs(story: Story, axes: Any, clock: _Clock) -> None:
    end = max(at for at, _ in story.answers)
    for number, run in enumerate(story.runs):
        begin, width = clock(run.began), clock(run.ended or end) - clock(run.began)
        axes.barh(-number, width, left=begin, color=OUTCOMES.get(run.status, "grey"), height=0.8)
        reason = run.reason if len(run.reason) < 70 else f"{run.reason[:69]}…"
        is_left = begin < clock(end) / 2
        axes.text(begin if is_left else begin + width, -number - 0.02, f" {reason} ", fontsize=7, va="center", ha="left" if is_left else "right")
    axes.set_yticks([-number for number in range(len(story.runs))], [f"run {number + 1}" for number in range(len(story.runs))])
    axes.set_title("Runs that the policy sensor asked for (green: released, red: stopped by a gate)", fontsize=9, loc="left", pad=18)


def _traffic(story: Story, axes: Any, clock: _Clock) -> None:
    releases = list(dict.fromkeys(release for _, release in story.answers))
    counts = {release: Counter(int(clock(at) * 60 // BIN) for at, by in story.answers if by == release) for release in releases}
    places = sorted({place for found in counts.values() for place in found})
    bottom = dict.fromkeys(places, 0.0)
    for release, found in counts.items():
        heights = [found[place] / BIN for place in places]
        axes.bar(
            [(place + 0.5) * BIN / 60 for place in places], heights, BIN / 60, bottom=[bottom[place] for place in places], label=f"{release} answers"
        )
        bottom = {place: bottom[place] + height for place, height in zip(places, heights, strict=True)}
    for event in story.events:
        if event["kind"] == "rollback":
            axes.axvline(clock.of(event), color="tab:red", linewidth=1.5, label="rolled back by the gateway")
    axes.set_yscale("symlog", linthresh=10)
    axes.set_ylabel("requests a second")
    axes.legend(fontsize=7, loc="upper right")


def _drift(story: Story, axes: Any, clock: _Clock) -> None:
    by_feature: dict[str, list[tuple[float, float]]] = {}
    for look in story.looks:
        for name, figures in look["record"]["features"].items():
            by_feature.setdefault(name, []).append((clock.of(look), figures["value"] / max(figures["threshold"], 1e-9)))
    for name, points in by_feature.items():
        axes.plot(*zip(*points, strict=True), marker=".", label=name)
    axes.axhline(1.0, color="black", linewidth=1)
    for event in story.events:
        if event["kind"] == "alert" and event.get("rule") == "drift":
            axes.axvline(clock.of(event), color="tab:red", linewidth=1.5, label="alert")
    axes.set_yscale("log")
    axes.set_yticks(TIMES, [f"{times:g}" for times in TIMES])
    axes.minorticks_off()
    axes.set_ylabel("drift / threshold")
    axes.legend(fontsize=7, loc="upper left", ncols=4)


def _accuracy(story: Story, axes: Any, clock: _Clock) -> None:
    points = [(clock.of(gate), story.judged[gate["record"]["quantized_model"]], gate) for gate in story.gates if _was_judged(story, gate)]
    end = clock(max(at for at, _ in story.answers))
    kept = [(at, judged.accuracies) for at, judged, gate in points if gate["record"]["quantized_model"] in story.released.values()]
    for which, (name, colour) in enumerate((("books, the chain's frozen test set", "tab:blue"), ("hotels and computers, held out", "tab:orange"))):
        steps = [at for at, _ in kept]
        axes.step([*steps, end], [*(both[which] for _, both in kept), kept[-1][1][which]], where="post", color=colour, label=name)
        for at, judged, gate in points:
            is_released = gate["record"]["quantized_model"] in story.released.values()
            axes.plot([at], [judged.accuracies[which]], marker="o" if is_released else "x", color=colour, markersize=7)
            axes.annotate(f"{judged.accuracies[which]:.3f}", (at, judged.accuracies[which]), (4, 4), textcoords="offset points", fontsize=7)
    axes.plot([], [], "kx", label="a candidate that the gate blocked")
    axes.set_ylim(0, 1)
    axes.set_ylabel("accuracy of what is released")
    axes.legend(fontsize=7, loc="lower left")


def _was_judged(story: Story, gate: Mapping[str, Any]) -> bool:
    return gate["record"]["quantized_model"] in story.judged
