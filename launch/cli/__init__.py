"""The command line: one module a verb, each imported only when it is asked for."""

from __future__ import annotations

import contextlib
import importlib
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from launch.cli.output import lost_output

VERBS: dict[str, str] = {
    "run": "Train an experiment on this machine.",
    "submit": "Train an experiment on a Slurm cluster.",
    "plan": "Show what a run would do: values, batch arithmetic, commands, files.",
    "check": "Find every problem of a launch before it starts; alone: of this machine.",
    "fetch": "Bring model, data and tokenizer into the shared caches, for trainings without a network.",
    "schema": "Print the JSON Schema of a file, for editors.",
    "cancel": "Stop a run for good: it saves first, and does not come back.",
    "cluster": "Write a cluster file by asking the cluster (init), or explain one (show).",
    "status": "Show how runs are doing.",
    "logs": "Show the log of a run, or follow it.",
    "sync": "Send what a run kept for W&B to its server.",
    "compare": "Show what differs between runs: configuration, scores, curves.",
    "report": "Write a run's report: curves, confusion matrix, configuration.",
    "export": "Write a run's model of texts in 8-bit integers for CPUs, and judge it beside the original.",
    "resume": "Go on with a stopped or failed run, from its newest checkpoint.",
    "verify": "Prove that a run that is stopped and resumed is the run that was never stopped.",
}
"""verb -> what it does; `launch.cli.<verb>` has the function of that name."""

VERBS_ELSEWHERE = {
    "train": "run",
    "launch": "run",
    "start": "run",
    "stop": "cancel",
    "kill": "cancel",
    "list": "status",
    "ls": "status",
    "quantize": "export",
}
"""Names of verbs that people bring from other tools -> ours."""

BEHIND_DASHES = "fullrank.behind_dashes"
"""Key of ctx.meta: the words behind `--`, which belong to a script."""


class Verb(TyperCommand):
    """A command that keeps the words behind `--` apart, if it knows --script, and takes no option twice (click keeps the last one, silently)."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if "--" in args and any(parameter.name == "script" for parameter in self.params):
            cut = args.index("--")
            ctx.meta[BEHIND_DASHES] = args[cut + 1 :]
            args = args[:cut]
        if not ctx.resilient_parsing:
            self._refuse_twice(ctx, args)
        return super().parse_args(ctx, args)

    def _refuse_twice(self, ctx: Any, args: list[str]) -> None:
        order = self.make_parser(ctx).parse_args(args=list(args))[2]
        for option in order:
            if option.param_type_name == "option" and not option.multiple and order.count(option) > 1:
                from launch.config.errors import ConfigError, Problem

                raise ConfigError(Problem(f"{option.opts[0]} is given {order.count(option)} times", allowed="once"))


class Verbs(TyperGroup):
    """The table above as a command group that imports a verb's module on use, so that `--help` costs no more than typer."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in VERBS:
            return None
        app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
        app.command(cmd_name, help=VERBS[cmd_name], cls=Verb)(_function(cmd_name))
        return typer.main.get_command(app)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args[0] not in VERBS and not args[0].startswith("-") and not ctx.resilient_parsing:
            from launch.config.errors import ConfigError, Problem, suggest

            near = VERBS_ELSEWHERE.get(args[0]) or suggest(args[0], VERBS) or VERBS_ELSEWHERE.get(suggest(args[0], VERBS_ELSEWHERE) or "")
            what = f"there is no verb {args[0]!r}" + (f"; did you mean {near!r}?" if near else "")
            raise ConfigError(Problem(what, allowed=", ".join(VERBS), fix="fullrank --help"))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))


app = typer.Typer(cls=Verbs, name="fullrank", no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False)


def _print_version(is_asked: bool) -> None:
    if is_asked:
        from importlib.metadata import version

        print(f"fullrank {version('fullrank')}")
        raise typer.Exit


@app.callback()
def fullrank(version: Annotated[bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")] = False) -> None:
    """One training script, from a laptop to a cluster."""


def main() -> None:
    """Runs the verb that was typed; a known error prints without a traceback and chooses the exit code.

    An output that cannot be written is one line and exit code 1; a closed pipe (`| head`) is not even a line.
    """
    code: int | str | None = None
    failure: Exception | None = None
    try:
        app(standalone_mode=True)
    except SystemExit as end:
        code = end.code
    except KeyboardInterrupt:
        code = 130
    except Exception as error:
        failure = error
        code = _tell(error)
    is_suspected = isinstance(failure, OSError) and failure.filename is None
    lost = lost_output(is_suspected)
    if failure and code is None and not (lost and is_suspected):
        raise failure
    if lost and not isinstance(lost, BrokenPipeError):
        with contextlib.suppress(OSError):
            print(f"error: the output cannot be written: {lost.strerror}", file=sys.stderr, flush=True)
    sys.exit(code or (1 if lost else 0))


def _function(verb: str) -> Any:
    return getattr(importlib.import_module(f"launch.cli.{verb}"), verb)


def _tell(error: Exception) -> int | None:
    """Prints an error that a person can mend; returns its exit code, None for any other error."""
    from launch.config.errors import FullrankError

    if not isinstance(error, FullrankError):
        return None
    for problem in error.problems:
        print(f"error: {problem}", file=sys.stderr)
    return error.exit_code
