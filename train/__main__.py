"""`python -m train COMMAND`: shards to a trained model.

    python -m train pretrain --shards data/shards/demo-glcm --preset tiny   # learn; again: go on
    python -m train pretrain --config runs/first/config.json --run second  # the same once more
    python -m train check glcm                 # is a method ready to be trained?
    python -m train diff first second          # what two runs do differently, what came of it
    python -m train report first               # the run as a page: curves, facts, pictures
    python -m train report                     # all results beside the papers' numbers
    python -m train describe --preset glcm_r18 # parameters, GFLOP a clip, shapes
    python -m train eval --task esc50 --checkpoint runs/first   # what a checkpoint is worth
    python -m train study table5 --corpora grid                 # methods side by side
    python -m train evidence                   # what the studies found -> docs/evidence*.md
    python -m train embed my.mp4 --checkpoint runs/first        # features of one's own videos
    python -m train explain my.mp4 --checkpoint runs/first      # the attention map over a video
    python -m train predict my.mp4 --from runs/first/eval/esc50 # what a fine-tuned model says
    python -m train export --checkpoint runs/first --out mine   # weights to be given away

`python -m train COMMAND --help` teaches each. Methods of your own: GLAV_PLUGINS=my_package.

Exit codes: 0 complete, 1 training or a check failed, 2 usage or configuration, 3 shards incomplete,
4 the run is locked by another process, 5 corrupt shards, 85 preempted and saved.
"""

import argparse
import dataclasses
import importlib
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tyro

from train.errors import FOR_PEOPLE, UsageError, exit_code

PRETRAIN_HELP = """Learn from shards; the same command goes on where the run stands.

    python -m train pretrain --shards data/shards/demo-glcm --preset tiny --max-steps 200
    python -m train pretrain --shards a@n=120000,b@w=0.5 --run first   # a mixture of two sets
    python -m train pretrain --config runs/first/config.json --run second   # the same once more
    python -m train pretrain --init runs/first --run tuned --lr 1e-4   # from its weights
    torchrun --standalone --nproc_per_node 8 -m train pretrain --run-dir first

Held-out clips choose `best` with --val-every 500 (and --knn 2). A run is a folder: report.html to
look at, metrics.jsonl, tensorboard/, checkpoints/, config.json. `python -m train diff A B` compares
two."""

EVAL_HELP = """A checkpoint becomes the numbers of the papers' tables.

    python -m train eval --task esc50 --checkpoint runs/first              # fine-tuning, five folds
    python -m train eval --task esc50 --checkpoint runs/first --protocol svm   # frozen features
    python -m train eval --task esc50 --scratch --preset glcm_r18          # without pretraining

Results lie in RUN/eval/TASK/result.json, predictions beside it; the same command goes on where it
was interrupted. `python -m train report` puts all results beside the papers'. The tasks:"""


def pretrain(arguments: list[str]) -> int:
    """Learn from shards; goes on by itself where a run stands."""
    config = pretrain_config(arguments)
    from train.pretrain import pretrain as run_pretrain

    return run_pretrain(config)


def pretrain_config(arguments: list[str]) -> Any:
    """The run that a command line describes.

    Raises:
        UsageError: a value that is out of range, or a config that cannot be read.
    """
    from train.config import PretrainConfig
    from train.methods import method_named

    try:
        default = _default(arguments)
        kind: Any = PretrainConfig[method_named(default.method).config]  # type: ignore[misc]
        flags = _without_config(arguments)
        config = tyro.cli(
            kind, prog="python -m train pretrain", description=PRETRAIN_HELP, default=default,
            args=flags,
        )  # fmt: skip
        return _with_objective(config, arguments)
    except ValueError as error:  # what a dataclass says about its fields
        raise UsageError(str(error)) from error


def check(arguments: list[str]) -> int:
    """For whoever writes a method: is it ready to be trained?"""
    from train.check import CheckConfig, __doc__ as about, check as run_check, default_of
    from train.methods import METHODS, method_named

    asks_help = {"-h", "--help"} & set(arguments)
    if not asks_help and (not arguments or arguments[0].startswith("-")):
        raise UsageError(
            f"name the method first: python -m train check METHOD; known: {', '.join(METHODS)}"
        )
    if _early(arguments)[0].config is not None:
        raise UsageError(
            "train check reads no --config: name the preset and the settings that differ from it, "
            "such as --preset tiny --model.window-M 5"
        )
    named = "glcm" if not arguments or arguments[0].startswith("-") else arguments[0]
    try:
        default = default_of(named, _early(arguments)[0].preset)
        kind: Any = CheckConfig[method_named(named).config]  # type: ignore[misc]
        config = tyro.cli(
            kind, prog="python -m train check", description=about, default=default,
            args=_without_config(arguments),
        )  # fmt: skip
    except ValueError as error:  # what a dataclass says about its fields
        raise UsageError(str(error)) from error
    return run_check(_with_objective(config, arguments))


def diff(arguments: list[str]) -> int:
    """What two runs do differently, and what came of it."""
    from train.diff import diff as run_diff

    parser = argparse.ArgumentParser(prog="python -m train diff", description=diff.__doc__)
    for name in ("run", "other"):
        parser.add_argument(name, metavar="RUN", help="name of a folder below runs/, or a path")
    named = parser.parse_args(arguments)
    print("\n".join(run_diff(named.run, named.other)))
    return 0


def report(arguments: list[str]) -> int:
    """All results beside the papers'; with RUNs, a run as a page, or several in one."""
    from train.overview import __doc__ as about_all, write as write_overview
    from train.report import __doc__ as about, report as run_report
    from train.studies.page import is_study, rewrite

    parser = argparse.ArgumentParser(
        prog="python -m train report", description=f"{about_all}\n{about}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Exit codes: 0 the page is written, 2 a RUN is none, or matplotlib is missing.",
    )  # fmt: skip
    parser.add_argument(
        "runs",
        metavar="RUN",
        nargs="*",
        help="name of a folder below runs/, or a path, of a study too (runs/studies/table6); none: "
        "all results",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="where the page goes; default "
                        "RUN/report.html, of several compare.html in the last one")  # fmt: skip
    named = parser.parse_args(arguments)
    try:
        if studies := [name for name in named.runs if is_study(name)]:
            if len(named.runs) > 1 or named.out:
                raise UsageError(f"{studies[0]} is a study: its page is written beside its "
                                 "study.json, one at a time and without --out")  # fmt: skip
            print(rewrite(studies[0]))
        elif named.runs:
            print(run_report(named.runs, named.out))
        else:
            print("\n".join(map(str, write_overview())))
    except ImportError as error:
        raise UsageError(
            f"the page cannot be drawn here: {error}; pip install matplotlib jinja2, or copy the "
            "run's folder to a machine that has them"
        ) from error
    except OSError as error:
        raise UsageError(f"the page cannot be written: {error}; name a FILE with --out") from error
    return 0


def describe(arguments: list[str]) -> int:
    """Parameters, GFLOP per clip and shapes of a preset, as JSON."""
    from train.describe import DescribeConfig, __doc__ as about, describe as run_describe
    from train.methods import method_named

    try:
        default = _default(arguments)
        kind: Any = DescribeConfig[method_named(default.method).config]  # type: ignore[misc]
        config = tyro.cli(
            kind, prog="python -m train describe", description=about,
            default=DescribeConfig(default.model, default.method, default.preset),
            args=_without_config(arguments),
        )  # fmt: skip
        config = _with_objective(config, arguments)
    except ValueError as error:  # what a dataclass says about its fields
        raise UsageError(str(error)) from error
    print(json.dumps(run_describe(config), indent=1))
    return 0


def evaluate(arguments: list[str]) -> int:
    """A downstream task: fine-tune, probe or retrieve, then result.json."""
    from train.evaluation.config import EvalConfig
    from train.evaluation.driver import evaluate as run_evaluate, told
    from train.tasks import TASKS

    listed = "\n".join(f"  {task.name:<17} {task.about}" for task in TASKS.values())
    config = tyro.cli(
        EvalConfig, prog="python -m train eval", description=f"{EVAL_HELP}\n\n{listed}",
        args=arguments,
    )  # fmt: skip
    print(told(run_evaluate(config)))
    return 0


def study(arguments: list[str]) -> int:
    """Methods or settings, trained and evaluated alike, in one table."""
    from train.studies.catalogue import STUDIES
    from train.studies.config import StudyConfig
    from train.studies.study import __doc__ as about, study as run_study

    listed = "\n".join(f"  {name:<10} {one.about}" for name, one in STUDIES.items())
    listed += "\n  all        each of them in turn, runs shared; the first seed of all comes first"
    config = tyro.cli(
        StudyConfig, prog="python -m train study", description=f"{about}\n{listed}",
        args=arguments,
    )  # fmt: skip
    return run_study(config)


def evidence(arguments: list[str]) -> int:
    """What the studies found, written into docs/evidence.md and docs/evidence-details.md."""
    from train.studies.evidence import (
        PAGES,
        EvidenceConfig,
        __doc__ as about,
        evidence as run_evidence,
    )

    config = tyro.cli(
        EvidenceConfig, prog="python -m train evidence", description=about, args=arguments
    )
    print(*run_evidence(config), *(config.docs / name for name in PAGES), sep="\n")
    return 0


def embed(arguments: list[str]) -> int:
    """Features of videos or shards."""
    from train.apply.embed import EmbedOptions, __doc__ as about, embed as run_embed

    options = tyro.cli(
        EmbedOptions, prog="python -m train embed", description=about, args=arguments
    )
    outcome = run_embed(options)
    print("\n".join(outcome.lines))
    return outcome.exit_code


def explain(arguments: list[str]) -> int:
    """A video with the attention map over it."""
    from train.apply.explain import ExplainOptions, __doc__ as about, explain as run_explain

    options = tyro.cli(
        ExplainOptions, prog="python -m train explain", description=about, args=arguments
    )
    print("\n".join(run_explain(options)))
    return 0


def predict(arguments: list[str]) -> int:
    """What a fine-tuned model says of videos."""
    from train.apply.predict import PredictOptions, __doc__ as about, predict as run_predict

    options = tyro.cli(
        PredictOptions, prog="python -m train predict", description=about, args=arguments
    )
    outcome = run_predict(options)
    print("\n".join(outcome.lines))
    return outcome.exit_code


def export(arguments: list[str]) -> int:
    """A checkpoint as safetensors, config and model card."""
    from train.apply.export import ExportOptions, __doc__ as about, export as run_export

    options = tyro.cli(
        ExportOptions, prog="python -m train export", description=about, args=arguments
    )
    print("\n".join(run_export(options)))
    return 0


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "pretrain": pretrain,
    "check": check,
    "diff": diff,
    "report": report,
    "eval": evaluate,
    "study": study,
    "evidence": evidence,
    "embed": embed,
    "explain": explain,
    "predict": predict,
    "export": export,
    "describe": describe,
}


def _early(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """The flags that decide which others there are."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--method")
    parser.add_argument("--preset")
    parser.add_argument("--config", type=Path)
    parser.add_argument("--objective")
    return parser.parse_known_args(arguments)


def _default(arguments: list[str]) -> Any:
    """The config that flags are applied to: a stored one, or the preset's."""
    from train.config import PretrainConfig, from_dict
    from train.methods import method_named, preset_named

    early, _ = _early(arguments)
    if early.config is None:
        method = early.method or "glcm"
        preset = early.preset or method_named(method).default_preset
        model = preset_named(method, preset)
        recipe = method_named(method).recipe_of(preset)
        return PretrainConfig(model=model, method=method, preset=preset, **recipe)
    stored = _stored(early.config)
    for name in ("method", "preset"):
        asked = getattr(early, name)
        if asked not in (None, stored[name]):
            raise UsageError(
                f"--{name} {asked}, but {early.config} is of the {name} {stored[name]!r}; leave "
                "one of the two out"
            )
    model = from_dict(method_named(stored["method"]).config, stored["model"])
    return from_dict(PretrainConfig, {**stored, "model": model})


def _stored(path: Path) -> dict[str, Any]:
    """A config.json of a run.

    Raises:
        UsageError: it cannot be read, or is none.
    """
    try:
        stored = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise UsageError(f"--config {path}: {error}; expected runs/NAME/config.json") from error
    if not isinstance(stored, dict) or not {"method", "preset", "model"} <= stored.keys():
        raise UsageError(f"--config {path} is no config of a run; expected runs/NAME/config.json")
    return stored


def _without_config(arguments: list[str]) -> list[str]:
    """What tyro parses: all but the flags that are not fields."""
    early, rest = _early(arguments)
    kept = {"--method": early.method, "--preset": early.preset}
    return [*rest, *(x for name, value in kept.items() if value for x in (name, value))]


def _with_objective(config: Any, arguments: list[str]) -> Any:
    """`--objective` is short for `--model.objective`."""
    early, _ = _early(arguments)
    if early.objective is None:
        return config
    if not hasattr(config.model, "objective"):
        raise UsageError(f"--objective: {config.method} has only one")
    return dataclasses.replace(
        config, model=dataclasses.replace(config.model, objective=early.objective)
    )


def main() -> None:
    """Run one command and leave with its exit code."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] not in COMMANDS:
        print(__doc__ if not arguments or arguments[0] in ("-h", "--help")
              else f"unknown command {arguments[0]!r}; known: {', '.join(COMMANDS)}")  # fmt: skip
        sys.exit(0 if arguments and arguments[0] in ("-h", "--help") else 2)
    if {"-h", "--help"} & set(arguments) or arguments[0] in ("describe", "diff"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # text only: `... | head` ends it quietly
    _start_logging()
    try:
        _load_plugins()
        sys.exit(COMMANDS[arguments[0]](arguments[1:]))
    except FOR_PEOPLE as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(exit_code(error))
    except KeyboardInterrupt as error:
        print(str(error) or "stopped; what was done before is kept", file=sys.stderr)
        sys.exit(130)


def _load_plugins() -> None:
    """GLAV_PLUGINS=my_package: packages that add methods and tasks to the plain dicts."""
    for name in filter(None, os.environ.get("GLAV_PLUGINS", "").split(",")):
        try:
            importlib.import_module(name.strip())
        except ModuleNotFoundError as error:
            raise UsageError(f"GLAV_PLUGINS names {name!r}: {error}") from error


def _start_logging() -> None:
    """Time, host and rank on each line; the other ranks speak up only to warn."""
    rank = int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", 0)))
    logging.basicConfig(
        level=logging.WARNING if rank else logging.INFO,
        format=f"%(asctime)s {socket.gethostname()}[{rank}] %(message)s",
        datefmt="%H:%M:%S",
        stream=sys.stderr,
    )


if __name__ == "__main__":
    main()
