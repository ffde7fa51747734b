"""Which licences text may have: settled before anything of it is read."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

from pydantic import Field

from llm_assets.corpus.archives import SourceError
from llm_assets.corpus.obligations import Use, terms_of
from llm_assets.corpus.sources import SourceBase
from llm_assets.store.strict import Strict


class LicensePolicy(Strict):
    """Patterns over the licences that sources state, such as MIT, CC-BY-* or *-NC-*; upper and lower case count alike."""

    allow: list[str] | None = Field(None, min_length=1, description="only these; none: any that is not forbidden")
    forbid: list[str] = Field(default_factory=list, description="never these, whatever allow says")
    use: Use | None = Field(
        None, description="what the model is for: a licence that does not permit it is refused, an unknown one unless allow names it; none: not asked"
    )

    def refuse(self, sources: Iterable[SourceBase]) -> None:
        """Raise ``SourceError`` naming the first source whose licence the policy does not admit."""
        for source in sources:
            if pattern := _matching(source.license, self.forbid):
                why, key = f"licenses.forbid names {pattern}", "licenses.forbid"
            elif self.allow is not None and not _matching(source.license, self.allow):
                why, key = f"licenses.allow names only {', '.join(self.allow)}", "licenses.allow"
            elif forbidding := self._against_use(source.license):
                why, key = f"licenses.use is {self.use}, and {forbidding}", "licenses.use"
            else:
                continue
            raise SourceError(
                f"source {source.name}: its licence {source.license!r} is not admitted ({why}); nothing of it was read. "
                f"Leave the source out, or change raw_corpus.{key}"
            )

    def _against_use(self, licence: str) -> str | None:
        """Which of a licence's terms do not permit the use; an unknown licence permits what the policy's owner vouches for in ``allow``."""
        if self.use is None:
            return None
        vouched = self.allow is not None  # it got as far as here
        return next((str(one) for one in terms_of(licence) if self.use not in one.uses and not (vouched and not one.is_known)), None)


def _matching(licence: str, patterns: Iterable[str]) -> str | None:
    return next((pattern for pattern in patterns if fnmatchcase(licence.casefold(), pattern.casefold())), None)
