"""What forgetting a document would do, and what a search found afterwards, in words."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from rich.text import Text
from rich.tree import Tree

from llm_assets.audit.certificate import Certificate, erasure_id
from llm_assets.audit.forget import Plan, tombstones
from llm_assets.audit.words.reply import Reply
from llm_assets.store.verdict import Verdict

NAMED = 5  # documents of a plan that are named
UNDONE = "nothing was done: this is the plan alone"


def forgotten(plans: Sequence[Plan], reason: str, done: tuple[Certificate, Path] | None = None) -> Reply:
    """What was asked, the plan, and where it was ``done`` what came of it: of the texts no more than their salted hashes.

    ``reason`` is as records keep it.
    """
    stones = tombstones(plans[0].store.home)
    parts: list[Tree | str] = [f"asked for: {reason}", _tree("plan", [line for plan in plans for line in plan_lines(plan, stones.hash)])]
    figures: dict[str, int | float] = {
        "documents": len({document for plan in plans for document in plan.documents}),
        "purge": sum(len(plan.purge) for plan in plans),
        "models": sum(len(plan.learners) for plan in plans),
        "releases": len({one.release for plan in plans for one in plan.releases}),
        "seconds_to_make_again": sum(plan.seconds for plan in plans),
    }
    said, is_clean = UNDONE, False
    if done:
        certificate, path = done
        said, is_clean = "; ".join([*failures(certificate), verdict(certificate)]), certificate.is_clean
        parts += [
            _tree("purged", certificate.purged),
            _tree(f"search of {certificate.at[:16].replace('T', ' ')} UTC", list(certificate_lines(certificate))),
            f"certificate: {path.relative_to(plans[0].store.home)}",
        ]
        figures |= {
            "purged": len(certificate.purged),
            "searched_files": certificate.searched_files,
            "searched_bytes": certificate.searched_bytes,
            "searched_tokens": certificate.searched_tokens,
            "found": len(certificate.found),
            "to_retire": len(certificate.to_retire),
        }
    else:
        parts.append(UNDONE)
    return Reply(
        "forget",
        erasure_id({stones.hash(one) for plan in plans for one in plan.stones}),
        parts,
        figures,
        Verdict(check="gone", passed=is_clean, blocking=done is not None, description=said),
    )


def plan_lines(plan: Plan, called: Callable[[str], str] = str) -> Iterator[str]:
    """The plan, a line each; ``called`` says what a doc_id of a text to be forgotten is called."""
    more = f" and {len(plan.documents) - NAMED} more" if len(plan.documents) > NAMED else ""
    if plan.documents:
        yield f"document{'s' * (len(plan.documents) > 1)} {', '.join(map(called, plan.documents[:NAMED]))}{more}"
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
    sizes = f"{certificate.searched_files:,} files, {certificate.searched_bytes / 1e6:,.1f} MB, {certificate.searched_tokens:,} tokens decoded"
    yield f"searched {sizes}: {', '.join(f'{place} {files:,}' for place, files in certificate.places.items())}"
    yield from (f"holds the text: {path} (of a model to be retired)" for path in certificate.listed)
    yield from failures(certificate)
    yield from (f"out of reach: {one}" for one in certificate.out_of_reach)
    yield from (f"to be retired: {release}" for release in certificate.to_retire)
    yield verdict(certificate)


def failures(certificate: Certificate) -> Iterator[str]:
    """Why a certificate is not clean, a line each."""
    yield from (f"NOT done: {one}" for one in certificate.failed)
    yield from (f"holds the text: {path}" for path in certificate.found if path not in certificate.listed)
    yield from (f"not searched: {one}" for one in certificate.unread)


def verdict(certificate: Certificate) -> str:
    """The outcome in one line."""
    return "nothing else holds the text" if certificate.is_clean else "the text is NOT gone"


def matching_lines(documents: int, records: int, samples: Sequence[str]) -> Iterator[str]:
    """What a phrase matched, a line each, with masked samples."""
    yield f"{documents:,} documents and {records:,} further texts of the service hold it" + (", such as" if samples else "")
    yield from (f"  {sample}" for sample in samples)


def _tree(title: str, lines: Sequence[str]) -> Tree:
    tree = Tree(Text(title))
    for line in lines:
        tree.add(Text(line))
    return tree
