"""The pages are what the package holds."""

from __future__ import annotations

from fastapi.testclient import TestClient

from llm_assets.serving.routes import site


def test_the_pages_load_nothing_from_elsewhere(client: TestClient) -> None:
    """The files are those that the package holds, and name no other place."""
    found = {path: client.get(path) for path in site.FILES}
    assert {path.name for path in site.SITE.iterdir()} == set(site.FILES.values())
    assert all(response.status_code == 200 and "//" not in response.text.replace("// ", "") for response in found.values())
    assert "分类" in found["/ask.js"].text and "script-src 'self'" in found["/label"].headers["content-security-policy"]
