from __future__ import annotations

import pytest

from launch.config.durations import parse_duration
from launch.config.errors import ConfigError
from launch.config.resolve import BatchArithmetic, resolve, resolve_batches, steps_per_epoch, total_steps

MULTITASK = "{kind: multitask, tasks: {a: {task: {kind: text_classification, text: x, label: y}}, b: {task: {kind: ner}}}}"


@pytest.mark.parametrize(
    ("arguments", "micro", "accumulation"),
    [
        ((32, 1, None), 32, 1),
        ((32, 2, None), 16, 1),
        ((32, 2, 4), 4, 4),
        ((1024, 2, None), 64, 8),
        ((96, 1, None), 48, 2),
        ((67, 1, None), 1, 67),
        ((8, 8, 1), 1, 1),
    ],
)
def test_global_batch_is_met_exactly(arguments, micro, accumulation):
    global_batch_size, world_size, _ = arguments
    found = resolve_batches(*arguments)
    assert found == BatchArithmetic(global_batch_size, micro, accumulation, world_size)
    assert micro * accumulation * world_size == global_batch_size


def test_uneven_split_names_the_nearest_possible_values():
    with pytest.raises(ConfigError) as caught:
        resolve_batches(32, 3, None)
    (problem,) = caught.value.problems
    assert (problem.what, problem.key) == ("32 samples do not split evenly over 3 processes", "train.global_batch_size")
    assert problem.allowed == "a multiple of 3, nearest 30 or 33; or 1, 2, 4, 8, 16, 32 processes"
    assert problem.fix == "train.global_batch_size=33"


def test_more_processes_than_samples_names_only_what_is_possible():
    with pytest.raises(ConfigError, match=r"nearest 4; or 1, 2 processes"):
        resolve_batches(2, 4, None)


def test_micro_batch_that_does_not_add_up_names_the_divisors():
    with pytest.raises(ConfigError) as caught:
        resolve_batches(32, 2, 5)
    (problem,) = caught.value.problems
    assert problem.what == "micro-batches of 5 do not add up to the 16 samples of a process (32 samples over 2 processes)"
    assert (problem.allowed, problem.fix) == ("a divisor of 16: 1, 2, 4, 8, 16", "train.micro_batch_size=4")


def test_last_smaller_batch_is_a_step():
    assert steps_per_epoch(100, 32) == 4
    assert total_steps(parse_duration("3 epochs", ("epochs",)), 100, 32) == 12


@pytest.mark.parametrize(
    ("overrides", "key", "what"),
    [
        (["evaluate.metric=bleu"], "evaluate.metric", "'bleu' is not a metric of text_classification"),
        (["evaluate.metric=accuracy", "evaluate.mode=min"], "evaluate.mode", "'min', but a better accuracy is the maximum"),
        (
            ["data.validation_fraction=0.1"],
            "data.validation_fraction",
            "the validation split is 'validation' (data.splits.validation) and cut from train, both",
        ),
        (["task.text=a", "task.label=a"], "task.label", "'a' is the column of the text too"),
        (["task.text=[a, b]", "task.label=b"], "task.label", "'b' is the column of the text too"),
        (["task.text=[a, a]"], "task.text", "'a' stands 2 times"),
        (["task.label_names=[no, yes, no]"], "task.label_names", "'no' stands 2 times"),
        (["data.columns=[text, label, text]"], "data.columns", "'text' stands 2 times"),
        (["data.splits.validation=null", "evaluate.early_stopping.patience=2"], "evaluate.early_stopping", "needs a validation split"),
        (["data.splits.validation=null", "schedule.name=plateau"], "schedule.name", "needs a validation split"),
        (["task.packing=true", "task.pooling=mean"], "task.packing", "reads the library's own head, and task.pooling puts another in its place"),
        (["optimizer.momentum=0.9"], "optimizer.momentum", "has no meaning for adamw"),
        (["optimizer.name=sgd", "optimizer.eps=1e-6"], "optimizer.eps", "has no meaning for sgd"),
        (["optimizer.name=sgd", "optimizer.nesterov=true"], "optimizer.nesterov", "needs a momentum"),
        (["schedule.decay=10 %"], "schedule.decay", "has no meaning for linear"),
        (
            ["model.lora={rank: 4}", "model.freeze=['bert.*']"],
            "model.freeze",
            "has no meaning beside model.lora, which freezes all but the adapters and the head",
        ),
        (
            ["model.lora={rank: 4}", "model.source=torchvision://resnet18"],
            "model.lora",
            "adapts a pretrained model of transformers, and this is torchvision://resnet18",
        ),
        (["train.unfreeze_at={1 epoch: ['*']}"], "train.unfreeze_at", "nothing is frozen that could thaw"),
        (
            ["model.freeze=['bert.*']", "train.unfreeze_at={1 epoch: ['bert.encoder.*', '*.bias', 'classifier.*']}"],
            "train.unfreeze_at",
            "'classifier.*' matches nothing that model.freeze freezes",
        ),
        (
            ["task={kind: question_answering, max_length: 40, stride: 30}"],
            "task.stride",
            "30 tokens that neighbouring windows share, of the 40 of a window",
        ),
        (
            [f"task={MULTITASK}", "task.tasks.b.data={source: x, splits: {validation: null}}"],
            "task.tasks.b.data",
            "b has no validation split, and a has one",
        ),
        ([f"task={MULTITASK}", "task.tasks.a.task.packing=true"], "task.tasks.a.task.packing", "has no meaning for a task that shares its encoder"),
        (["model.source=stages.mlm"], "model.source", "'stages.mlm' is the model of a pipeline's stage, which a pipeline's overrides alone name"),
        (
            ["model.freeze=['bert.*']", "train.duration=9 steps", "train.unfreeze_at={2 steps: ['bert.*'], 3 steps: ['bert.encoder.*']}"],
            "train.unfreeze_at",
            "'bert.encoder.*' has thawed before 3 steps",
        ),
        (["model.freeze=['*']"], "model.freeze", "'*' freezes every parameter: nothing is left to train"),
        (
            ["model.freeze=['bert.*']", "train.duration=2 epochs", "train.unfreeze_at={2 epochs: ['*']}"],
            "train.unfreeze_at",
            "2 epochs never comes: training ends after 2 epochs",
        ),
    ],
)
def test_setting_that_cannot_take_effect_is_refused(load, overrides, key, what):
    with pytest.raises(ConfigError) as caught:
        resolve(load(*overrides))
    assert (key, what) in [(problem.key, problem.what) for problem in caught.value.problems]


def test_a_broken_rule_of_a_mapping_is_where_the_mapping_was_set(load):
    typed = "train.unfreeze_at={1 epoch: ['*']}"
    with pytest.raises(ConfigError) as caught:
        resolve(load(typed))
    assert [problem.where for problem in caught.value.problems] == [typed]


def test_broken_rules_come_at_once(load):
    with pytest.raises(ConfigError) as caught:
        resolve(load("evaluate.metric=bleu", "optimizer.momentum=0.9"))
    assert [problem.key for problem in caught.value.problems] == ["evaluate.metric", "optimizer.momentum"]


def test_mode_follows_the_metric_and_the_loaded_experiment_does_not_change(load):
    loaded = load("evaluate.metric=accuracy")
    assert resolve(loaded).evaluate.mode == "max"
    assert resolve(loaded).tracking.wandb.project == "fullrank"
    assert (loaded.experiment.evaluate.mode, loaded.experiment.tracking.wandb.project) == ("min", None)
