"""Great Expectations' own report (Data Docs) of a judged suite, as one page that needs nothing from outside.

The library's page loads scripts and styles from four hosts and links to a project folder that we do not keep, so its
sections are rendered alone and put into a frame with a style of ours.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from great_expectations.core.expectation_validation_result import ExpectationValidationResult

RUN_INFO = "Run Info"  # the library's section of versions, times and identifiers: the manifest has the truth of those
LINK = re.compile(r"<a [^>]*>|</a>")
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem; color: #222; max-width: 60rem }
table { border-collapse: collapse; width: 100% } th, td { border-bottom: 1px solid #ddd; padding: .3rem .8rem; text-align: left }
h5 { font-size: 1.1rem; margin: 2rem 0 .3rem } h6 { font-size: 1rem; margin: 1rem 0 .3rem }
.badge { font-family: monospace; background: #eee; padding: 0 .3rem }
.text-success::before { content: "\\2714"; color: #17803d } .text-danger::before { content: "\\2718"; color: #b91c1c }
"""


def page(name: str, outcomes: list[ExpectationValidationResult], rows: int, broken: Mapping[str, Mapping[str, Any]]) -> str:
    """The report as an HTML document: every expectation in words with its outcome, and the doc_ids of rows that break one.

    The outcomes hold booleans only (the result format asked for), so no value of the table can be in the page.
    """
    from great_expectations.core.expectation_validation_result import ExpectationSuiteValidationResult
    from great_expectations.render.renderer.page_renderer import ValidationResultsPageRenderer
    from great_expectations.render.view.view import DefaultJinjaSectionView
    from great_expectations.validator.validation_statistics import calc_validation_statistics

    statistics: dict[str, Any] = {**calc_validation_statistics(outcomes)._asdict()}
    meta = {"batch_spec": {"data_asset_name": name}}
    result = ExpectationSuiteValidationResult(statistics.pop("success"), outcomes, name, statistics=statistics, meta=meta)
    document = ValidationResultsPageRenderer(run_info_at_end=True).render(result).to_json_dict()
    sections = [section for section in document["sections"] if section["section_name"] != RUN_INFO]
    view: Any = DefaultJinjaSectionView()
    shown = "".join(view.render({"section": section, "section_loop": {"index": number}}) for number, section in enumerate(sections, 1))
    title = html.escape(f"Expectations of {name}")
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{STYLE}</style><body>'
        f"<h1>{title}</h1><p>Judged over {rows:,} rows.</p>{LINK.sub('', shown)}{_broken_rows(broken)}</body></html>\n"
    )


def _broken_rows(broken: Mapping[str, Mapping[str, Any]]) -> str:
    """What the library's report leaves out for want of values: how many rows break each expectation, and the first of them."""
    if not broken:
        return ""
    lines = ((name, found["rows"], ", ".join(found["doc_ids"])) for name, found in broken.items())
    body = "".join("<tr>" + "".join(f"<td>{html.escape(str(value))}</td>" for value in line) + "</tr>" for line in lines)
    return f"<h5>Rows that break an expectation</h5><table><tr><th>expectation</th><th>rows</th><th>doc_id of the first</th></tr>{body}</table>"
