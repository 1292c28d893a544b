"""The `flowtailor` command: parses, then imports the one file that does the work.

Promises: `--help` imports neither torch, ray nor pydantic; a mistake of the user or a broken world
is one line on stderr and exit code 2, Ctrl-C is 130; `--debug` shows the traceback.
"""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from .failures import one_line

# verb -> (file of this folder, help); each offers `run_stage(config, *, dry_run)`.
STAGES = {
    "collect": ("collect", "render and score (prompt, workflow, seed) rows that are still missing"),
    "fit-reward": ("fit_reward", "fit the reward ensemble on the collected rows"),
    "sft": ("sft", "teach the language model to write workflows (supervised)"),
    "grpo": ("grpo", "improve the policy against the reward ensemble"),
    "refine": ("refine", "render what the policy designs, fit the ensemble again, go on with GRPO"),
    "evaluate": ("evaluate", "render held-out prompts with every method and compare"),
    "report": ("report", "write report/index.html of a run"),
    "run": ("run", "all stages in order, each skipped where it is up to date"),
}
DEFAULT_CONFIG = "quickstart"
DEFAULT_RUN = "runs/quickstart"
DRAWS_TO_MEASURE = "; draws up to six pictures to measure it"
MODELS_DIR = "runs/studio-training"


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    arguments = _parser().parse_args(argv)
    with suppress(ValueError):  # not the main thread
        # A plain `kill` must stop engines and Ray as Ctrl-C does, and a job that a script put into the
        # background, where shells switch SIGINT off, must still be stoppable by it.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return arguments.command(arguments) or 0
    except KeyboardInterrupt:
        print("\nflowtailor: interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output, such as `head`, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the exit flush complains
        return 141
    except Exception as error:
        line = one_line(error)
        if line is None or arguments.debug:
            raise
        print(f"flowtailor: error: {line}", file=sys.stderr)
        return 2
    finally:
        _stop_ray()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="flowtailor", description="Learns to design the ComfyUI workflow for the prompt."
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    _add_studio(verbs)
    _add_catalog(verbs)
    _add_workflow(verbs)
    for verb, (_, help_text) in STAGES.items():
        stage = _add(verbs, verb, help_text, _stage)
        _add_config(stage)
        stage.add_argument(
            "--dry-run",
            action="store_true",
            help="say what it would take" + DRAWS_TO_MEASURE * (verb in ("collect", "run")),
        )
        if verb == "refine":
            stage.add_argument(
                "--new-models", action="store_true", help="one more round, to try what was installed since"
            )
        stage.set_defaults(verb=verb)
    _add_design(verbs)
    _add_serve(verbs)
    return parser


def _add(verbs: Any, verb: str, help_text: str, command: Callable) -> argparse.ArgumentParser:
    parser = verbs.add_parser(verb, help=help_text, description=help_text[0].upper() + help_text[1:] + ".")
    parser.set_defaults(command=command)
    # SUPPRESS: without it the verb's default would undo a `--debug` that stands before the verb.
    parser.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    return parser


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config",
        default=DEFAULT_CONFIG,
        metavar="FILE",
        help=f"a TOML file, or the name of a shipped one (default: {DEFAULT_CONFIG})",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="overrides",
        metavar="KEY=VALUE",
        help="override one value, as in grpo.steps=50; may be repeated",
    )


def _add_studio(verbs: Any) -> None:
    studio = verbs.add_parser("studio", help="the embedded engine and its small models")
    actions = studio.add_subparsers(metavar="ACTION", required=True)
    install = _add(
        actions,
        "install",
        "install the embedded ComfyUI, its models, a language model and a sentence encoder",
        _studio_install,
    )
    install.add_argument("--front-end", action="store_true", help="ComfyUI's web page too (18 MB)")
    start = _add(actions, "start", "run the embedded ComfyUI on this machine until Ctrl-C", _studio_start)
    start.add_argument("--port", type=int, default=8188, help="to listen on; 0: a free one (default: 8188)")
    start.add_argument("--front-end", action="store_true", help="with ComfyUI's web page, to open designs in")
    train = _add(
        actions,
        "train",
        "train the studio's models and scorers on Fluent emoji, fetched with npm",
        _studio_train,
    )
    train.add_argument("parts", nargs="*", metavar="PART", help="which to make (default: all, in order)")
    train.add_argument("--out", default=MODELS_DIR, metavar="DIR", help=f"default: {MODELS_DIR}")
    train.add_argument("--device", default="auto", help="cpu, cuda, ... (default: a GPU if there is one)")
    train.add_argument("--seed", type=int, default=0)
    train.add_argument("--share", type=float, default=1.0, help="of the steps, to try it out (default: 1)")


def _add_catalog(verbs: Any) -> None:
    catalog = _add(verbs, "catalog", "read an engine's nodes and models into the run folder", _catalog)
    _add_config(catalog)


def _add_workflow(verbs: Any) -> None:
    workflow = verbs.add_parser("workflow", help="check, encode, decode, show or script a workflow file")
    actions = workflow.add_subparsers(metavar="ACTION", required=True)
    helps = {
        "check": "print what is wrong with a workflow, one problem a line",
        "encode": "print a workflow as tokens on one line",
        "decode": "print tokens as a workflow in ComfyUI's API format",
        "show": "print a workflow's nodes and links in the order they run",
        "script": "print a workflow as a ComfyScript program",
    }
    for action, help_text in helps.items():
        parser = _add(actions, action, help_text, _workflow)
        what = (
            "tokens" if action == "decode" else "a workflow (API or editor JSON, or a PNG that ComfyUI saved)"
        )
        parser.add_argument("file", metavar="FILE", help=f"{what}; '-' reads stdin")
        parser.add_argument("--catalog", metavar="FILE", help="a saved catalog or /object_info answer")
        parser.add_argument(
            "--run",
            default=DEFAULT_RUN,
            metavar="DIR",
            help=f"whose catalog and space to use; without one, the studio's (default: {DEFAULT_RUN})",
        )
        if action in ("encode", "decode"):
            parser.add_argument("--space", metavar="FILE", help="the design space as TOML")
        parser.set_defaults(action=action, prompt="", space=None)
        if action == "encode":
            parser.add_argument(
                "--prompt", default="", metavar="TEXT", help="the text in it that stands for the prompt"
            )


def _add_design(verbs: Any) -> None:
    design = _add(verbs, "design", "design workflows for a prompt with a trained policy", _design)
    design.add_argument("prompt", metavar="PROMPT")
    design.add_argument("--run", default=DEFAULT_RUN, metavar="DIR", help=f"default: {DEFAULT_RUN}")
    design.add_argument("-n", type=int, default=1, help="how many different designs (default: 1)")
    design.add_argument(
        "--guidance", type=float, help="1: as GRPO left it, more: past it (default: as evaluated)"
    )
    design.add_argument("--temperature", type=float, help="of sampling; 0 is greedy (default: the run's)")
    design.add_argument("--budget-s", type=float, help="seconds that the render may take")
    design.add_argument("--seed", type=int, default=0)
    design.add_argument("--render", action="store_true", help="render the designs, write the pictures")
    design.add_argument("--out", metavar="DIR", help="folder for the files (default: in the run folder)")
    design.add_argument("--json", action="store_true", dest="as_json", help="print JSON")


def _add_serve(verbs: Any) -> None:
    serve = _add(verbs, "serve", "serve the guided policy over HTTP", _serve)
    serve.add_argument("--run", default=DEFAULT_RUN, metavar="DIR", help=f"default: {DEFAULT_RUN}")
    serve.add_argument("--host", help="address to listen on (default: the run's, else loopback)")
    serve.add_argument("--port", type=int, help="port to listen on (default: the run's, else 8000)")


def _stage(arguments: argparse.Namespace) -> None:
    from .config_file import load_config

    config = load_config(arguments.config, arguments.overrides)
    file = importlib.import_module(f".{STAGES[arguments.verb][0]}", __package__)
    run = file.take_in if getattr(arguments, "new_models", False) else file.run_stage
    run(config, dry_run=arguments.dry_run)


def _studio_install(arguments: argparse.Namespace) -> None:
    from ..models.weights import KNOWN, resolve
    from ..studio.install import install, install_front_end

    places = [install().models.parent, *(resolve(name) for name in KNOWN)]
    if arguments.front_end:
        install_front_end()
    print("studio: ready in", ", ".join(str(place) for place in places))


def _studio_start(arguments: argparse.Namespace) -> None:
    from ..studio.foreground import run_until_interrupted

    run_until_interrupted(arguments.port, front_end=arguments.front_end)


def _studio_train(arguments: argparse.Namespace) -> None:
    from .studio_train import train_studio

    train_studio(
        Path(arguments.out),
        only=arguments.parts,
        seed=arguments.seed,
        device=arguments.device,
        share=arguments.share,
    )


def _catalog(arguments: argparse.Namespace) -> None:
    from .catalog import write_catalog
    from .config_file import load_config

    write_catalog(load_config(arguments.config, arguments.overrides))


def _workflow(arguments: argparse.Namespace) -> int:
    from .workflow import workflow_command

    return workflow_command(
        arguments.action,
        arguments.file,
        run_dir=arguments.run,
        catalog=arguments.catalog,
        space=arguments.space,
        prompt=arguments.prompt,
    )


def _design(arguments: argparse.Namespace) -> None:
    from .design import design

    design(
        arguments.prompt,
        run_dir=arguments.run,
        n=arguments.n,
        guidance=arguments.guidance,
        temperature=arguments.temperature,
        budget_s=arguments.budget_s,
        seed=arguments.seed,
        render=arguments.render,
        out=arguments.out,
        as_json=arguments.as_json,
    )


def _serve(arguments: argparse.Namespace) -> None:
    # The service stands above the pipelines. This front door starts it by name, as a program of
    # its own, and imports nothing from it.
    service = importlib.import_module("flowtailor.serving.command")
    service.serve(arguments.run, host=arguments.host, port=arguments.port)


def _stop_ray() -> None:
    ray = sys.modules.get("ray")
    if ray is not None:
        with suppress(Exception):
            ray.shutdown()
