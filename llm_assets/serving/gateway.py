"""The gateway: what the routes share, and the loop that keeps to the releases that are desired."""

from __future__ import annotations

import asyncio
import gc
import logging
from pathlib import Path
from typing import Any

from llm_assets.serving.answers import Answers
from llm_assets.serving.classifications import Classifications
from llm_assets.serving.completions import Completions
from llm_assets.serving.desk import Desk
from llm_assets.serving.feedback import Feedback
from llm_assets.serving.metrics import Metrics
from llm_assets.serving.pulse import Pulse
from llm_assets.serving.reconciler import Reconciler
from llm_assets.serving.request_log import RequestLog, log_folder
from llm_assets.serving.router import Router
from llm_assets.serving.state import gateway_state_path
from llm_assets.store.files import write_json

logger = logging.getLogger(__name__)

POLL = 0.1  # seconds between two looks at the desired folder: a rollback by hand takes effect within a second


class Gateway:
    """The parts of one gateway, from ``run`` to ``close``: what answers, what is said of its answers, and what is told of both."""

    def __init__(self, home: Path, address: dict[str, Any] | None = None) -> None:
        self.reconciler = Reconciler(home)
        self.metrics = Metrics()
        self.pulse = Pulse(self.metrics)
        self.answers = Answers(home)
        self.feedback = Feedback(home)
        self._home, self._address = home, address
        self._router = Router(home, self.reconciler)
        self._log = RequestLog(log_folder(home), self.metrics.log_group.observe)
        self.desk = Desk(self.reconciler, self._log, self.answers)
        self.classifications = Classifications(self.desk, self._router, self.metrics)
        self.completions = Completions(self.desk, self._router, self.metrics)
        self._written: dict[str, Any] | None = None
        self._frozen = False

    async def run(self) -> None:
        """Reconcile, and end what waits too long, until cancelled."""
        await asyncio.gather(self._recall(), self.classifications.watch(), self.completions.watch(), self._follow())

    async def close(self) -> None:
        """Close the log and the feedback, end the engines, and take back the state file."""
        await self.completions.close()
        await self._log.close()
        self._router.close()
        await self.feedback.close()
        self.classifications.close()
        await asyncio.to_thread(self.reconciler.close)
        if self._address:
            gateway_state_path(self._home).unlink(missing_ok=True)

    async def _recall(self) -> None:
        """Know what was answered before, also what a gateway that was killed has yet to find its place in the log."""
        if self._address:
            await self._log.start()
        await asyncio.to_thread(self.answers.load)

    async def _follow(self) -> None:
        while True:
            try:
                await asyncio.to_thread(self._reconcile)
            except OSError:
                logger.exception("the desired releases could not be compared; trying again")
            await asyncio.sleep(POLL)

    def _reconcile(self) -> None:
        self.reconciler.step()
        self._router.step()
        self.pulse.look()
        state = {**(self._address or {}), "chains": self.reconciler.status()}
        if self._address and state != self._written:
            write_json(gateway_state_path(self._home), state)
            self._written = state
        if self._address and self.reconciler.ready and not self._frozen:  # the count of frozen objects would walk through them each time
            self._frozen = True
            gc.collect()
            gc.freeze()  # modules and the like stay: looking through them for garbage stopped every request for 150 ms, every few seconds
