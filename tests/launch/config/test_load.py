from __future__ import annotations

from pathlib import Path

import pytest

from launch.config.errors import ConfigError
from launch.config.experiment import Experiment
from launch.config.known_keys import NAMES_ELSEWHERE, dotted_keys
from launch.config.load import Origin, find_shipped, flatten, load_experiment, shipped_configs
from launch.config.resolve import resolve
from launch.config.yaml_files import load_yaml, parse_scalar


def problems(experiment_file: Path, *overrides: str, text: str | None = None) -> list[str]:
    if text is not None:
        experiment_file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_experiment(str(experiment_file), overrides)
    return [str(problem).replace(str(experiment_file), "tiny.yaml") for problem in caught.value.problems]


def replaced(experiment_file: Path, old: str, new: str) -> str:
    text = experiment_file.read_text()
    assert old in text
    return text.replace(old, new)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3e-4", 3e-4),
        ("1E5", 1e5),
        (".5", 0.5),
        ("5.", 5.0),
        ("no", "no"),
        ("on", "on"),
        ("true", True),
        ("04:00:00", "04:00:00"),
        ("010", 10),
        ("0o10", 8),
        ("0x10", 16),
        ("2026-01-01", "2026-01-01"),
        ("null", None),
        ("~", None),
        ("", None),
        (".inf", float("inf")),
        ("1_000", "1_000"),
        ("[a, 1]", ["a", 1]),
        ("{a: no}", {"a": "no"}),
    ],
)
def test_scalars_follow_yaml_1_2(text, value):
    found = parse_scalar(text)
    assert (found, type(found)) == (value, type(value))


def test_every_shipped_experiment_loads_and_resolves():
    paths = sorted((shipped_configs() / "experiments").glob("*.yaml"))
    assert paths
    for path in paths:
        loaded = load_experiment(path.stem)
        assert loaded.experiment.name == path.stem
        resolve(loaded)


def test_unknown_key_names_the_nearest_and_its_line(experiment_file):
    text = replaced(experiment_file, "global_batch_size", "global_batchsize")
    found = problems(experiment_file, text=text)
    assert found[0].splitlines()[0] == "tiny.yaml:9: train.global_batch_size: the key is missing"
    assert found[1].splitlines()[0] == "tiny.yaml:11: train.global_batchsize: unknown key; did you mean 'global_batch_size'?"


def test_missing_block_names_its_keys(experiment_file):
    text = replaced(experiment_file, "optimizer: {lr: 1e-4}", "")
    what, allowed = problems(experiment_file, text=text)[0].splitlines()
    assert what == "tiny.yaml: optimizer: the key is missing"
    assert allowed.startswith("    allowed: a block of keys: name, lr, weight_decay, ")


def test_key_that_stands_twice_names_both_lines(experiment_file):
    text = experiment_file.read_text() + "seed: 1\nseed: 2\n"
    assert problems(experiment_file, text=text)[0].splitlines()[0] == "tiny.yaml:14: seed: the key stands twice, first in line 13"


def test_all_problems_come_at_once(experiment_file):
    text = replaced(experiment_file, "lr: 1e-4", "lr: fast, momentun: 0.9").replace("2 epochs", "2")
    found = problems(experiment_file, "seed=-1", text=text)
    assert found[0].startswith("'seed=-1': input should be greater")
    assert [line.splitlines()[0].split(": ")[1] for line in found[1:]] == ["train.duration", "optimizer.lr", "optimizer.momentun"]


def test_wrong_type_shows_the_value_and_what_is_meant(experiment_file):
    found = problems(experiment_file, "train.global_batch_size=many")
    assert found == [
        "'train.global_batch_size=many': input should be a valid integer, not 'many'\n    allowed: a whole number above 0 and at most 1000000000"
    ]


@pytest.mark.parametrize(
    ("override", "allowed"),
    [
        ("optimizer.lr=-1", "a number above 0"),
        ("model.dropout=2", "a number at least 0 and below 1, or null"),
        ("data.limit=0", "a whole number above 0, or null"),
        ("data.encoding=[1]", "Character encoding of text files."),
        ("name=-a/b", "letters, digits, '.', '_' and '-', beginning with a letter or a digit"),
    ],
)
def test_what_is_allowed_are_the_bounds_or_the_form_or_the_meaning(experiment_file, override, allowed):
    (found,) = problems(experiment_file, override)
    assert found.endswith(f"\n    allowed: {allowed}")


@pytest.mark.parametrize("encoding", ["latin-9000", "base64"])
def test_encoding_that_there_is_not_is_refused_before_any_file_is_opened(experiment_file, encoding):
    (found,) = problems(experiment_file, f"data.encoding={encoding}")
    assert f"there is no encoding {encoding!r}" in found


@pytest.mark.parametrize("character", ["\x01", "\udcff"])
def test_character_that_yaml_cannot_hold_is_one_problem(experiment_file, character):
    override = f"model.source=a{character}b"
    assert problems(experiment_file, override) == [
        f"{override!r}: holds {character!r}, a character that cannot stand in a YAML file",
    ]


@pytest.mark.parametrize("digits", ["9" * 5000, "0x" + "f" * 5000])
def test_number_of_thousands_of_digits_is_one_problem_with_its_place(experiment_file, digits):
    (override,) = problems(experiment_file, f"seed={digits}")
    assert override.startswith(f"'seed={digits[:99]}")
    assert ": input should be a valid integer, not '" in override
    (line,) = problems(experiment_file, text=experiment_file.read_text() + f"seed: {digits}\n")
    assert line == f"tiny.yaml:13: not valid YAML: '{digits[:56]}... cannot be read as int"


def test_value_that_its_yaml_tag_cannot_read_names_its_line(experiment_file):
    text = experiment_file.read_text() + "seed: !!bool abc\n"
    assert problems(experiment_file, text=text) == ["tiny.yaml:13: not valid YAML: 'abc' cannot be read as bool"]


@pytest.mark.parametrize("value", ["!!binary aGVsbG8=", "!!timestamp 2020-01-01", "!!set {a, b}", "!mine [1]"])
def test_yaml_tag_of_what_no_key_takes_is_refused_with_its_line(experiment_file, value):
    text = experiment_file.read_text() + f"seed: {value}\n"
    tag = value.partition(" ")[0]
    assert problems(experiment_file, text=text) == [f"tiny.yaml:13: not valid YAML: the tag {tag} makes what no key takes: delete it"]


def test_word_that_is_not_possible_names_the_nearest(experiment_file):
    found = problems(experiment_file, "optimizer.name=adamx")
    assert found[0].startswith("'optimizer.name=adamx': 'adamx' is not possible; did you mean 'adam")


@pytest.mark.parametrize("name", ["AdamW", "ADAMW"])
def test_word_that_only_its_case_tells_apart_is_the_nearest(experiment_file, name):
    assert "did you mean 'adamw'?" in problems(experiment_file, f"optimizer.name={name}")[0]


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("lr", "'optimizer.lr'"),
        ("train.lr", "'optimizer.lr'"),
        ("train.learning_rate", "'optimizer.lr'"),
        ("train.epochs", "'train.duration'"),
        ("train.num_train_epochs", "'train.duration'"),
        ("batch_size", "'train.global_batch_size'"),
        ("train.per_device_train_batch_size", "'train.global_batch_size'"),
        ("train.every", "'evaluate.every' or 'checkpoint.every'"),
        ("wandb", "'tracking.wandb'"),
        ("optimizer.LR", "'lr'"),
    ],
)
def test_key_of_another_block_or_tool_names_where_it_is(experiment_file, key, meant):
    (problem,) = problems(experiment_file, f"{key}=3")
    assert problem.splitlines()[0] == f"'{key}=3': unknown key; did you mean {meant}?"


def test_names_of_other_tools_lead_to_keys_that_there_are():
    assert set(NAMES_ELSEWHERE.values()) <= set(dotted_keys(Experiment))
    assert not set(NAMES_ELSEWHERE) & set(Experiment.model_fields)


@pytest.mark.parametrize(
    ("override", "fix"),
    [
        ("model.freeze=[*]", """'model.freeze=["*"]': what begins with * needs quotes"""),
        ("model.freeze=[bert.*, *.bias]", """'model.freeze=[bert.*, "*.bias"]': what begins with * needs quotes"""),
        ("train.unfreeze_at={1 epoch: [*]}", """'train.unfreeze_at={1 epoch: ["*"]}': what begins with * needs quotes"""),
        ("model.freeze=*", None),
        ("model.freeze=[a", None),
    ],
)
def test_star_in_a_typed_list_is_told_to_need_quotes(experiment_file, override, fix):
    with pytest.raises(ConfigError) as caught:
        load_experiment(str(experiment_file), [override])
    assert caught.value.problems[0].fix == fix
    if fix:
        load_experiment(str(experiment_file), [fix.split("'")[1]])


def test_key_below_a_name_that_a_person_chooses_is_no_hint():
    with pytest.raises(ConfigError) as caught:
        load_experiment("ner", ["task.packing=true"])
    assert str(caught.value).splitlines()[0] == "'task.packing=true': unknown key"
    assert "task.tasks" in set(dotted_keys(Experiment))
    assert not [key for key in dotted_keys(Experiment) if key.startswith("task.tasks.")]


def test_name_that_many_blocks_have_is_no_hint(experiment_file):
    assert problems(experiment_file, "train.name=x")[0].splitlines()[0] == "'train.name=x': unknown key"


@pytest.mark.parametrize("value", [".inf", ".nan", "1e400"])
def test_number_must_be_finite(experiment_file, value):
    assert f"'optimizer.lr={value}': input should be a finite number" in problems(experiment_file, f"optimizer.lr={value}")[0]


def test_override_that_is_no_assignment_is_refused(experiment_file):
    assert problems(experiment_file, "fast") == ["'fast': is not of the form KEY=VALUE\n    try: e.g. optimizer.lr=3e-5"]


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("optimizer.lr=3e-5", "optimizer.lr", 3e-5),
        ("data.splits.test=null", "data.splits.test", None),
        ("data.splits.train=no", "data.splits.train", "no"),
        ("name=007", "name", "007"),
        ("model.source=a=b/c", "model.source", "a=b/c"),
        ("task.text=[a, b]", "task.text", ["a", "b"]),
        ("model.freeze=[bert.*]", "model.freeze", ["bert.*"]),
        ("train.gradient_clip_norm=null", "train.gradient_clip_norm", None),
        ("tracking.tensorboard=true", "tracking.tensorboard", True),
    ],
)
def test_override_is_typed_by_its_field(experiment_file, override, key, value):
    loaded = load_experiment(str(experiment_file), [override])
    assert flatten(loaded.experiment.model_dump())[key] == value
    assert loaded.origins[key] == Origin("override", override)


def test_later_override_wins(experiment_file):
    loaded = load_experiment(str(experiment_file), ["seed=1", "seed=2"])
    assert (loaded.experiment.seed, loaded.origins["seed"]) == (2, Origin("override", "seed=2"))


def test_origins_name_file_and_line(experiment_file):
    origins = load_experiment(str(experiment_file)).origins
    assert origins["train.global_batch_size"] == Origin("experiment", f"{experiment_file}:11")
    assert origins["optimizer.betas"] == Origin("default")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ("# bert_sst2: every va", "the file holds nothing but comments"),
        ("- a\n", "tiny.yaml:1: the file is not a block of 'key: value' lines"),
        ("a: [1\n", "tiny.yaml:2: not valid YAML"),
        ("a: !!python/object:os.system x\n", "not valid YAML: the tag !!python/object:os.system makes what no key takes"),
        ("a:\t- b\n", "not valid YAML"),
        ("a: x\0y\n", "tiny.yaml: not valid YAML: unacceptable character #x0000"),
        ("a: [*.bias]\n", "quotes around what begins with *"),
        ("a: &a [*a]\n", "tiny.yaml: a value contains itself, or is nested too deeply"),
        ("a: " + "[" * 3000, "tiny.yaml: a value contains itself, or is nested too deeply"),
    ],
)
def test_file_that_is_no_experiment_says_why(experiment_file, text, message):
    assert message in problems(experiment_file, text=text)[0]


def test_binary_file_is_refused(tmp_path):
    (tmp_path / "x.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_yaml(tmp_path / "x.yaml")


def test_missing_file_and_unknown_shipped_name_differ():
    with pytest.raises(ConfigError, match=r"^no/such\.yaml: no such file"):
        find_shipped("no/such.yaml", "experiments")
    with pytest.raises(ConfigError, match="there is no shipped experiment 'quickstat'; did you mean 'quickstart'"):
        find_shipped("quickstat", "experiments")
    with pytest.raises(
        ConfigError, match=r"^\./my/train\.py: is a Python script, not an experiment\n    try: fullrank run --script \./my/train\.py$"
    ):
        find_shipped("./my/train.py", "experiments")
    with pytest.raises(ConfigError, match="is a folder, not a file"):
        find_shipped("./", "experiments")


def test_glue_task_that_is_none_is_one_problem_without_its_columns():
    with pytest.raises(ConfigError) as caught:
        load_experiment("glue", ["task.name=sst3"])
    assert [(problem.key, problem.what) for problem in caught.value.problems] == [("task.name", "'sst3' is not possible; did you mean 'sst2'?")]
