from __future__ import annotations

from pathlib import Path

from llm_assets.links.roles import ROLES
from llm_assets.operation.roles import ALL, as_markdown, links_of

PAGE = Path(__file__).resolve().parents[2] / "docs" / "roles.md"


def test_each_link_has_one_of_the_seven_roles_and_each_role_a_link_with_a_gate() -> None:
    assert len(ROLES) == 7 and {link.role for link in ALL} == set(ROLES)
    for role in ROLES:
        assert any(check.blocking for link in links_of(role) for check in link.checks), role


def test_the_page_is_what_the_definitions_say() -> None:
    assert PAGE.read_text(encoding="utf-8") == as_markdown()
    for link in ALL:
        assert f"`{link.name}`" in as_markdown()
