"""What all who answer share: the release behind a model's name, and the log that every answer enters before it leaves."""

from __future__ import annotations

import logging
from datetime import datetime
from http import HTTPStatus
from typing import Any

from llm_assets.serving.answers import Answers, answered
from llm_assets.serving.engines import BESIDE, models_of
from llm_assets.serving.errors import ApiError
from llm_assets.serving.reconciler import Deployment, Reconciler
from llm_assets.serving.request_log import RequestLog, RequestLogError

logger = logging.getLogger(__name__)

NOTHING = "none; materialize a chain's endpoint"


class Desk:
    """Looks deployments up, and keeps answers."""

    def __init__(self, reconciler: Reconciler, log: RequestLog, answers: Answers) -> None:
        self._reconciler, self._log, self._answers = reconciler, log, answers

    def deployment(self, model: str) -> Deployment:
        """The stable release of the chain that a model's name begins with. Raises ``ApiError`` where none is served, or not by that name."""
        chain = model.partition(BESIDE)[0]
        deployment = self._reconciler.live.get(chain)
        if deployment and model in models_of(chain, deployment.engine):
            return deployment
        status = self._reconciler.status()
        if chain in status and not deployment:
            reason = status[chain]["error"] or "its release is being loaded"
            raise ApiError(HTTPStatus.SERVICE_UNAVAILABLE, f"model {chain} is not served yet: {reason}", "model")
        live = self._reconciler.live
        known = [name for one in status for name in (models_of(one, live[one].engine) if one in live else [one])]
        raise ApiError(HTTPStatus.NOT_FOUND, f"no model {model}; the models here: {', '.join(known) or NOTHING}", "model")

    def loaded(self, chain: str, release: str | None) -> Deployment:
        """The deployment that serves a chain, or that of a release of it, which may be one on trial. Raises ``ApiError`` for another."""
        serving = self.deployment(chain)
        loaded = [serving, *([self._reconciler.candidates[chain]] if chain in self._reconciler.candidates else [])]
        for deployment in loaded:
            if release in (None, deployment.desired.release):
                return deployment
        names = ", ".join(deployment.desired.release for deployment in loaded)
        raise ApiError(HTTPStatus.NOT_FOUND, f"{chain} does not serve {release} now; it serves {names}", "release")

    def share_on_trial(self, deployment: Deployment) -> float | None:
        """Percent of the requests that the newer one of a chain's two releases answers; None for the other one."""
        chain = deployment.desired.chain
        if self._reconciler.candidates.get(chain) is not deployment:
            return None
        rollout = self._reconciler.rollouts.get(chain)
        return rollout.share if rollout else 0.0

    def models(self) -> dict[str, Any]:
        """OpenAI's list of models, with each one's release and labels; an adapter is a model whose ``parent`` is its chain's, as vLLM has it."""
        served = [(name, chain, live) for chain, live in sorted(self._reconciler.live.items()) for name in models_of(chain, live.engine)]
        listed = [{"id": name, "parent": None if name == chain else chain, **_described(live)} for name, chain, live in served]
        return {"object": "list", "data": listed}

    def keep(self, line: dict[str, Any]) -> None:
        """Keep a line of the request log. Raises ``ApiError`` where it cannot be, for the answer must not go out then."""
        try:
            self._log.write(line)
        except RequestLogError as error:
            logger.error("%s", error)
            message = "the request could not be recorded, so it is not answered; the gateway's log says why"
            raise ApiError(HTTPStatus.SERVICE_UNAVAILABLE, message) from error
        self._answers.remember(line["id"], line["chain"], answered(line))


def _described(live: Deployment) -> dict[str, Any]:
    created = int(datetime.fromisoformat(live.desired.at).timestamp())
    return {"object": "model", "owned_by": "llm_assets", "created": created, "release": live.desired.release, **live.engine.described()}
