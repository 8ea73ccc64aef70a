from __future__ import annotations

import socket
from pathlib import Path

import pytest

from launch.config.hub import hub_cache, hub_endpoint, is_hub_cached, is_hub_offline, is_reachable
from launch.config.sources import HubName

NAME = HubName("owner/name")


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        ({"HF_HUB_CACHE": "/a", "HF_HOME": "/b"}, "/a"),
        ({"HF_HOME": "/b", "XDG_CACHE_HOME": "/c"}, "/b/hub"),
        ({"XDG_CACHE_HOME": "/c"}, "/c/huggingface/hub"),
    ],
)
def test_the_cache_is_where_the_hub_s_client_looks(environment: dict[str, str], folder: str) -> None:
    assert hub_cache(environment) == Path(folder)


@pytest.mark.parametrize(
    ("kind", "files", "is_cached"),
    [
        ("models", ["config.json", "model.safetensors"], True),
        ("models", ["config.json", "pytorch_model.bin"], True),
        ("models", ["config.json", "tokenizer.json"], False),
        ("models", ["model.safetensors"], False),
        ("models", [], False),
        ("datasets", ["data/train.parquet"], True),
        ("datasets", [], False),
    ],
)
def test_a_model_needs_configuration_and_weights_a_data_set_any_file(kind, files: list[str], is_cached: bool, tmp_path: Path) -> None:
    snapshot = tmp_path / f"{kind}--owner--name/snapshots/0123"
    snapshot.mkdir(parents=True)
    for file in files:
        (snapshot / file).parent.mkdir(exist_ok=True)
        (snapshot / file).write_text("")
    assert is_hub_cached(NAME, kind, {"HF_HUB_CACHE": str(tmp_path)}) == is_cached


def test_a_link_to_a_blob_that_is_gone_is_no_file(tmp_path: Path) -> None:
    snapshot = tmp_path / "datasets--owner--name/snapshots/0123"
    snapshot.mkdir(parents=True)
    (snapshot / "train.parquet").symlink_to("../../blobs/gone")
    assert not is_hub_cached(NAME, "datasets", {"HF_HUB_CACHE": str(tmp_path)})


def test_the_hub_is_switched_off_by_either_variable() -> None:
    assert is_hub_offline({"HF_HUB_OFFLINE": "1"})
    assert is_hub_offline({"TRANSFORMERS_OFFLINE": "yes"})
    assert not is_hub_offline({"HF_HUB_OFFLINE": "0"})


def test_reachable_is_who_accepts_a_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/path"
        assert is_reachable(url)
    assert not is_reachable(url)
    assert hub_endpoint({"HF_ENDPOINT": f"{url}/"}) == url
