"""What all who answer share: the release behind a model's name, and the log that every answer enters before it leaves."""

from __future__ import annotations

import logging
from datetime import datetime
from http import HTTPStatus
from typing import Any

from llm_assets.serving.answers import Answers, answered
from llm_assets.serving.errors import ApiError
from llm_assets.serving.reconciler import Deployment, Reconciler
from llm_assets.serving.request_log import RequestLog, RequestLogError

logger = logging.getLogger(__name__)


class Desk:
    """Looks deployments up, and keeps answers."""

    def __init__(self, reconciler: Reconciler, log: RequestLog, answers: Answers) -> None:
        self._reconciler, self._log, self._answers = reconciler, log, answers

    def deployment(self, chain: str) -> Deployment:
        """The stable release of a chain. Raises ``ApiError`` where none is served."""
        if deployment := self._reconciler.live.get(chain):
            return deployment
        status = self._reconciler.status()
        if chain in status:
            reason = status[chain]["error"] or "its release is being loaded"
            raise ApiError(HTTPStatus.SERVICE_UNAVAILABLE, f"model {chain} is not served yet: {reason}", "model")
        known = ", ".join(status) or "none; materialize a chain's endpoint"
        raise ApiError(HTTPStatus.NOT_FOUND, f"no model {chain}; the models here: {known}", "model")

    def loaded(self, chain: str, release: str | None) -> Deployment:
        """The deployment that serves a chain, or that of a release of it, which may be one on trial. Raises ``ApiError`` for another."""
        serving = self.deployment(chain)
        loaded = [serving, *([self._reconciler.candidates[chain]] if chain in self._reconciler.candidates else [])]
        for deployment in loaded:
            if release in (None, deployment.desired.release):
                return deployment
        names = ", ".join(deployment.desired.release for deployment in loaded)
        raise ApiError(HTTPStatus.NOT_FOUND, f"{chain} does not serve {release} now; it serves {names}", "release")

    def is_on_trial(self, deployment: Deployment) -> bool:
        """Whether it is the newer one of a chain's two releases."""
        return self._reconciler.candidates.get(deployment.desired.chain) is deployment

    def models(self) -> dict[str, Any]:
        """OpenAI's list of models, with each one's release and labels."""
        served = sorted(self._reconciler.live.items())
        return {"object": "list", "data": [{"id": chain, "object": "model", "owned_by": "llm_assets", **_described(live)} for chain, live in served]}

    async def keep(self, line: dict[str, Any]) -> None:
        """Put a line of the request log on the disk. Raises ``ApiError`` where it cannot be, for the answer must not go out then."""
        try:
            await self._log.write(line)
        except RequestLogError as error:
            logger.error("%s", error)
            message = "the request could not be recorded, so it is not answered; the gateway's log says why"
            raise ApiError(HTTPStatus.SERVICE_UNAVAILABLE, message) from error
        self._answers.remember(line["id"], line["chain"], answered(line))


def _described(live: Deployment) -> dict[str, Any]:
    created = int(datetime.fromisoformat(live.desired.at).timestamp())
    return {"created": created, "release": live.desired.release, **live.engine.described()}
