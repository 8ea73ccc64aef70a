"""The wheel alone, without extras, in an environment of its own and far from the checkout."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from launch.cli import VERBS

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[2]
VERSION = importlib.metadata.version("fullrank")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Builds from the tracked files alone, so that nothing lying about gets in."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, source / name)
    uv = find_uv()
    build = [uv, "build", "--quiet", "--wheel"] if uv else [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
    subprocess.run([*build, "--out-dir" if uv else "--wheel-dir", str(out), str(source)], check=True)
    (built,) = out.glob("fullrank-*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the bin folder of a fresh environment that has the wheel and its plain requirements."""
    folder = tmp_path_factory.mktemp("environment")
    uv = find_uv()
    venv.create(folder, with_pip=not uv)
    python = str(folder / "bin" / "python")
    install = [uv, "pip", "install", "--quiet", "--python", python] if uv else [python, "-m", "pip", "install", "--quiet"]
    subprocess.run([*install, "--constraint", str(ROOT / "constraints.txt"), str(wheel)], check=True)
    return folder / "bin"


def test_the_wheel_holds_packages_configurations_and_templates_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {"launch", "trainers", next(n for n in names if n.endswith("METADATA")).split("/")[0]}
    shipped = {str(path.relative_to(ROOT)) for path in (ROOT / "configs").rglob("*.*") if path.suffix in (".yaml", ".json")}
    assert {f"launch/{name}" for name in shipped} <= set(names)


def test_a_plain_install_is_light(installed: Path) -> None:
    listed = run(
        installed / "python", "-c", "import importlib.metadata as m; print(*sorted(d.name.lower() for d in m.distributions()))", cwd=installed
    )
    assert {"torch", "numpy", "transformers", "accelerate", "wandb"}.isdisjoint(listed.split())
    assert len(listed.split()) < 20


@pytest.mark.parametrize("experiment", sorted(path.stem for path in (ROOT / "configs" / "experiments").glob("*.yaml")))
def test_every_shipped_experiment_plans_from_any_directory_and_says_what_a_start_lacks(installed: Path, tmp_path: Path, experiment: str) -> None:
    ended = fullrank(installed, "plan", experiment, "--json", cwd=tmp_path)
    plan = json.loads(ended.stdout)
    assert plan["world_size"] == 1
    assert plan["global_batch_size"] == plan["micro_batch_size"] * plan["gradient_accumulation_steps"]
    wants_yours = any(f"{key}: there is no" in ended.stderr for key in ("data.source", "model.weights"))  # a folder, or an earlier run
    assert ended.returncode == (2 if wants_yours else 3)
    assert list(tmp_path.iterdir()) == []
    assert "torch, transformers, accelerate, datasets not installed" in ended.stderr


def test_every_verb_helps_without_the_training_side(installed: Path, tmp_path: Path) -> None:
    listed = fullrank(installed, "--help", cwd=tmp_path).stdout
    for verb in VERBS:
        assert f"\n  {verb} " in listed
        assert fullrank(installed, verb, "--help", cwd=tmp_path).returncode == 0, verb
    assert fullrank(installed, "--version", cwd=tmp_path).stdout == f"fullrank {VERSION}\n"


@pytest.mark.parametrize("words", [["check"], ["schema"], ["schema", "strategy"], ["status"]], ids=" ".join)
def test_a_verb_that_needs_no_training_side_works(installed: Path, tmp_path: Path, words: list[str]) -> None:
    ended = fullrank(installed, *words, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout or words == ["status"]


@pytest.mark.parametrize("words", [["run", "quickstart"], ["fetch", "quickstart"], ["check", "quickstart"]], ids=" ".join)
def test_a_verb_that_needs_the_training_side_names_the_extra_and_ends_with_3(installed: Path, tmp_path: Path, words: list[str]) -> None:
    ended = fullrank(installed, *words, cwd=tmp_path)
    said = ended.stdout + ended.stderr
    assert (ended.returncode, said.count("pip install '.[train]' in the folder of fullrank's sources")) == (3, 1)
    assert "torch, transformers, accelerate, datasets not installed" in said
    assert "Traceback" not in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("verb", ["report", "resume", "logs"])
def test_a_verb_about_a_run_says_that_there_is_none(installed: Path, tmp_path: Path, verb: str) -> None:
    ended = fullrank(installed, verb, "nothing", cwd=tmp_path)
    assert (ended.returncode, "Traceback" in ended.stderr) == (2, False), ended.stderr


def fullrank(installed: Path, *words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV", "SLURM_", "NCCL_"))}
    environment |= {"HF_HUB_OFFLINE": "0", "XDG_CACHE_HOME": str(cwd.parent / "cache")}
    return subprocess.run([str(installed / "fullrank"), *words], cwd=cwd, env=environment, capture_output=True, text=True)


def run(*command: str | Path, cwd: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    return subprocess.run([str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True, check=True).stdout


def find_uv() -> str | None:
    beside = Path(sys.executable).with_name("uv")
    return str(beside) if beside.is_file() else shutil.which("uv")
