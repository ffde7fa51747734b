"""Energy that the machine's processors used, by their own counters (RAPL: Running Average Power Limit).

Linux shows them as zones of its power capping framework, those of Intel's and of AMD's processors under the same name
(Documentation/power/powercap). Since 2020 root alone may read them (CVE-2020-8694), and a virtual machine has none.
"""

from __future__ import annotations

from pathlib import Path

POWERCAP = Path("/sys/class/powercap")


class EnergyCounter:
    """Joules of all processor packages since it was made, whatever ran on them; None where no counter can be read.

    A counter starts again at 0 after some 200,000 joules, so ``read`` wants to be called at least every quarter of an hour.
    """

    def __init__(self, folder: Path = POWERCAP) -> None:
        packages = [zone for zone in folder.glob("intel-rapl:*") if _text(zone, "name").startswith("package")]  # others are parts of one, or hold all
        self._last = {zone: count for zone in packages if (count := _microjoules(zone, "energy_uj")) is not None}
        self._joules = 0.0 if self._last else None

    def read(self) -> float | None:
        """Joules so far."""
        for zone, last in self._last.items():
            if (count := _microjoules(zone, "energy_uj")) is None:
                self._joules = None  # a part of the sum is none
            elif self._joules is not None:
                started_again = count < last
                self._joules += (count - last + (started_again and (_microjoules(zone, "max_energy_range_uj") or 0))) / 1e6
                self._last[zone] = count
        return self._joules


def _microjoules(zone: Path, name: str) -> int | None:
    text = _text(zone, name)
    return int(text) if text.isdigit() else None


def _text(zone: Path, name: str) -> str:
    try:
        return (zone / name).read_text().strip()
    except OSError:
        return ""
