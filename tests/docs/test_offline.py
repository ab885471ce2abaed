"""Pages that load something from elsewhere are told from pages that only link there."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.offline import remote_loads


@pytest.mark.parametrize(
    "body",
    [
        '<script src="https://cdn.example/x.js"></script>',
        '<link rel="stylesheet" href="//fonts.example/x.css">',
        '<img src="http://example.org/badge.svg">',
        "<style>@import 'https://fonts.example/x.css';</style>",
        "<style>@font-face { src: url(https://fonts.example/x.woff2) }</style>",
    ],
)
def test_a_remote_load_is_seen(tmp_path: Path, body: str) -> None:
    (tmp_path / "index.html").write_text(f"<html>{body}</html>", encoding="utf-8")
    assert len(list(remote_loads(tmp_path))) == 1


@pytest.mark.parametrize(
    "body",
    ['<a href="https://example.org">there</a>', '<script src="_static/x.js"></script>',
     '<link rel="canonical" href="https://example.org">', '<img src="data:image/png;base64,AA==">'],
)  # fmt: skip
def test_a_link_is_no_load(tmp_path: Path, body: str) -> None:
    (tmp_path / "index.html").write_text(f"<html>{body}</html>", encoding="utf-8")
    assert not list(remote_loads(tmp_path))
