"""What forgetting a document would do, and what a search found afterwards, in words."""

from __future__ import annotations

from collections.abc import Iterator

from llm_assets.audit.forget import Certificate, Plan


def plan_lines(plan: Plan) -> Iterator[str]:
    """The plan, a line each."""
    yield f"document {plan.doc_id}"
    yield from (f"purge {row.link} {row.fingerprint}: it holds the text" for row in plan.purge)
    yield from (f"stays until it is retired: release {one.release} ({one.standing}) learned from it" for one in plan.releases)
    chains = sorted({one.chain for one in plan.releases if one.standing == "champion"})
    again = "; ".join(f"llm-assets run {chain}" for chain in chains)
    yield f"to be made again: about {plan.seconds:,.0f} s, as it took before" + (f" ({again})" if again else "")
    yield from (f"out of reach: {place}" for place in plan.out_of_reach)
    if plan.repeats:
        yield f"documents that repeat it stay: {', '.join(plan.repeats)}"


def certificate_lines(certificate: Certificate) -> Iterator[str]:
    """What the search found, a line each."""
    sizes = f"{certificate.searched_files:,} files, {certificate.searched_bytes / 1e6:,.1f} MB, {certificate.searched_tokens:,} tokens decoded"
    yield f"searched {sizes}"
    for path in certificate.found:
        yield f"holds the text: {path}" + (" (of a model to be retired)" if path in certificate.listed else "")
    yield from (f"not searched: {one}" for one in certificate.unread)
    yield from (f"to be retired: {release}" for release in certificate.to_retire)
    yield "nothing else holds the text" if certificate.is_clean else "the text is NOT gone"
