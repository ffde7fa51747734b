from __future__ import annotations

from pathlib import Path

import pytest

from llm_assets.links import meter
from llm_assets.links.energy import EnergyCounter
from llm_assets.links.meter import Meter


def show(folder: Path, zone: str, microjoules: int, most: int = 1_000_000_000, name: str = "package-0") -> None:
    """What the kernel shows of a zone."""
    (folder / zone).mkdir(parents=True, exist_ok=True)
    (folder / zone / "name").write_text(f"{name}\n")
    (folder / zone / "energy_uj").write_text(f"{microjoules}\n")
    (folder / zone / "max_energy_range_uj").write_text(f"{most}\n")


def test_the_joules_of_all_packages_are_added_and_those_of_their_parts_and_of_the_whole_are_not(tmp_path: Path) -> None:
    zones = {"intel-rapl:0": "package-0", "intel-rapl:1": "package-1", "intel-rapl:0:0": "core", "intel-rapl:2": "psys"}
    for zone, name in zones.items():
        show(tmp_path, zone, 5_000_000, name=name)
    counter = EnergyCounter(tmp_path)
    assert counter.read() == 0
    show(tmp_path, "intel-rapl:0", 7_500_000)
    show(tmp_path, "intel-rapl:1", 6_000_000)
    for zone in ("intel-rapl:0:0", "intel-rapl:2"):
        show(tmp_path, zone, 900_000_000, name=zones[zone])
    assert counter.read() == pytest.approx(3.5)
    assert counter.read() == pytest.approx(3.5)


def test_a_counter_that_started_again_at_0_goes_on(tmp_path: Path) -> None:
    show(tmp_path, "intel-rapl:0", 9_000_000, most=10_000_000)
    counter = EnergyCounter(tmp_path)
    show(tmp_path, "intel-rapl:0", 500_000, most=10_000_000)
    assert counter.read() == pytest.approx(1.5)


def test_without_counters_or_the_right_to_read_them_nothing_is_stated(tmp_path: Path) -> None:
    assert EnergyCounter(tmp_path / "none").read() is None
    show(tmp_path, "intel-rapl:0", 1)
    counter = EnergyCounter(tmp_path)
    (tmp_path / "intel-rapl:0" / "energy_uj").unlink()
    assert counter.read() is None
    show(tmp_path, "intel-rapl:0", 2)
    assert counter.read() is None  # what passed meanwhile is not known


def test_a_meter_says_what_was_used_while_it_was_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    show(tmp_path, "intel-rapl:0", 1_000_000)
    monkeypatch.setattr(meter, "EnergyCounter", lambda: EnergyCounter(tmp_path))
    with Meter() as used:
        show(tmp_path, "intel-rapl:0", 4_000_000)
    assert used.energy_joules == pytest.approx(3.0) and used.peak_memory_bytes > 0
