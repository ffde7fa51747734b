"""The gateway's own counters: how many questions it answered, and how many of them with an error of its own."""

from __future__ import annotations

import re
import urllib.error

from llm_assets.serving.loopback import open_url

COUNTER = "llm_assets_requests_total"  # serving/metrics.py names it; labels chain, release and status
LINE = re.compile(rf"^{COUNTER}\{{(?P<labels>[^}}]*)\}} (?P<value>\S+)$", re.MULTILINE)
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
SECONDS = 2


def answers_counted(url: str, chain: str) -> tuple[int, int] | None:
    """Answers with 5xx, and all answers, of a chain since its gateway at ``url`` started; None where it shows no counters."""
    try:
        with open_url(f"{url}/metrics", SECONDS) as response:
            text = response.read().decode()
    except (urllib.error.URLError, OSError, ValueError):
        return None
    errors = answers = 0
    for found in LINE.finditer(text):
        labels = dict(LABEL.findall(found["labels"]))
        if labels.get("chain") == chain:
            answers += int(float(found["value"]))
            errors += int(float(found["value"])) if labels.get("status", "").startswith("5") else 0
    return errors, answers
