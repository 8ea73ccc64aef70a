from __future__ import annotations

from pathlib import Path

import pytest

from launch.config.errors import ConfigError, StateError
from launch.config.sources import HubName, LocalPath, PackageFile, cache_root, find_source, parse_source

DIGEST = "ab" * 32


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("bert-base", HubName("bert-base")),
        ("google-bert/bert-base-uncased", HubName("google-bert/bert-base-uncased")),
        ("nyu-mll/glue:sst2", HubName("nyu-mll/glue", "sst2")),
        ("/data/x", LocalPath(Path("/data/x"))),
        (f"pypi://a-b==1.0/c/d.tar.gz/e.txt#sha256={DIGEST.upper()}", PackageFile("a-b", "1.0", "c/d.tar.gz/e.txt", DIGEST)),
        (f"pypi://a==1.0#sha256={DIGEST}", PackageFile("a", "1.0", "", DIGEST)),
    ],
)
def test_a_source_says_what_it_is(text: str, expected: object) -> None:
    assert parse_source(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pypi://a/b", "is not complete"),
        ("pypi://a==1.0/b", "has no checksum"),
        ("pypi://a==1.0/b#sha256=abc", "has no checksum"),
        (f"pypi://a==1.0/../b#sha256={DIGEST}", "climbs out of the archive"),
        ("a/b/c", "'a/b/c' is not a hub name, and no such path is there"),
    ],
)
def test_what_is_no_source_names_the_key_and_the_forms(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"data.source: .*{message}"):
        parse_source(text, "data.source")


def test_a_path_that_exists_needs_no_slash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    assert parse_source("data") == LocalPath(tmp_path / "data")


def test_a_run_means_its_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "runs/bert/20260101-000000-abcdef"
    (run / "model").mkdir(parents=True)
    (run / "resolved.yaml").touch()
    monkeypatch.chdir(tmp_path)
    expected = LocalPath(run / "model")
    assert [find_source(name, "model.source") for name in (f"runs/bert/{run.name}", f"runs/{run.name}", "runs/latest", str(run))] == [expected] * 4
    with pytest.raises(StateError, match="there is no run 'other'"):
        find_source("runs/other", "model.source")


def test_a_run_without_a_model_says_so(tmp_path: Path) -> None:
    (tmp_path / "resolved.yaml").touch()
    with pytest.raises(ConfigError, match=r"model.source: the run .* has no finished model"):
        find_source(str(tmp_path), "model.source")


def test_the_cache_is_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("FULLRANK_CACHE", raising=False)
    assert cache_root() == tmp_path / "fullrank"
    monkeypatch.setenv("FULLRANK_CACHE", str(tmp_path / "other"))
    assert cache_root() == tmp_path / "other"
