"""What forgetting a document would do, and what a search found afterwards, in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from llm_assets.audit.certificate import Certificate
from llm_assets.audit.forget import Plan

NAMED = 5  # documents of a plan that are named


def plan_lines(plan: Plan) -> Iterator[str]:
    """The plan, a line each."""
    more = f" and {len(plan.documents) - NAMED} more" if len(plan.documents) > NAMED else ""
    if plan.documents:
        yield f"document{'s' * (len(plan.documents) > 1)} {', '.join(plan.documents[:NAMED])}{more}"
    if further := plan.texts - len(set(plan.documents)):
        yield f"and {further} text{'s' * (further > 1)} that no document has" if plan.documents else "a text that no document has"
    yield from (f"purge {row.link} {row.fingerprint}: it holds the text" for row in plan.purge)
    yield from (f"stays until it is retired: release {one.release} ({one.standing}) learned from it" for one in plan.releases)
    chains = sorted({one.chain for one in plan.releases if one.standing == "champion"})
    again = "; ".join(f"llm-assets run {chain}" for chain in chains)
    yield f"to be made again: about {plan.seconds:,.0f} s, as it took before" + (f" ({again})" if again else "")
    yield "and what the service, its tools and abandoned work recorded of it is taken out where it stands"
    yield from (f"out of reach: {place}" for place in plan.out_of_reach)
    if plan.repeats:
        yield f"documents that repeat it stay: {', '.join(plan.repeats)}"


def certificate_lines(certificate: Certificate) -> Iterator[str]:
    """What was done and what the search found, a line each."""
    yield from (f"cleaned {one}" for one in certificate.cleaned)
    yield from (f"NOT done: {one}" for one in certificate.failed)
    sizes = f"{certificate.searched_files:,} files, {certificate.searched_bytes / 1e6:,.1f} MB, {certificate.searched_tokens:,} tokens decoded"
    yield f"searched {sizes}: {', '.join(f'{place} {files:,}' for place, files in certificate.places.items())}"
    for path in certificate.found:
        yield f"holds the text: {path}" + (" (of a model to be retired)" if path in certificate.listed else "")
    yield from (f"not searched: {one}" for one in certificate.unread)
    yield from (f"out of reach: {one}" for one in certificate.out_of_reach)
    yield from (f"to be retired: {release}" for release in certificate.to_retire)
    yield "nothing else holds the text" if certificate.is_clean else "the text is NOT gone"


def matching_lines(documents: int, records: int, samples: Sequence[str]) -> Iterator[str]:
    """What a phrase matched, a line each, with masked samples."""
    yield f"{documents:,} documents and {records:,} further texts of the service hold it" + (", such as" if samples else "")
    yield from (f"  {sample}" for sample in samples)
