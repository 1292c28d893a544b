"""Models that were installed after a run was trained: how they enter it, and what they are tried in.

`admit` gives their words to the policy, each about as likely as the other values of its input, and to the
run's catalog and space; the ensemble reads a word that it has not met by its name. From then on the run is
one that never used them. `trials` are designs of the policy with such a word put in, for `refine` to render.
What was up to date stays so, though it was trained without them.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ..datasets.prompts import Prompt
from ..workflows.augment import including
from ..workflows.codec import canonical_words, decode
from ..workflows.grammar import Grammar
from ..workflows.rules import quote
from ..workflows.space import Space
from . import collect, rounds
from .catalog import World, read_world, write_world
from .config import Config
from .rounds import Round, lineage, noted_config, stages
from .stage import Run, is_recorded, read_record, record, stage_output, write_json

if TYPE_CHECKING:
    from ..models.designing import Design


ADMITTED = "newcomers.json"
ADMITTING = "refine/admitting"  # a run folder with the world that `admit` takes in, while it is at work
NOTE = "admitting.json"  # in it: what was up to date before


def newcomers(run: Run, space: Space) -> list[str]:
    """Words of the space that the run's policy does not know, or knows since `admit` and has never tried.

    Those of classes and values only: others, such as references to earlier outputs, are nothing to be tried,
    and a design may never say them.
    """
    from ..models.vocabulary import Vocabulary

    known = Vocabulary.load(run.path("policy/sft")).ids
    met = {word for text in run.dataset.rows()["tokens"] for word in text.split()}
    waiting = set(_admitted(run)) - met
    new = {
        word
        for rule in space.rules.values()
        for word in (quote(rule.class_type), *(word for param in rule.params for word in param.tokens))
        if word not in known or word in waiting
    }
    return [word for word in space.vocabulary if word in new]


def admit(config: Config, world: World) -> None:
    """Take the words of the engine's present models into the run, and note which are new to its policy."""
    run, waiting = Run(config), Run(config).within(ADMITTING)
    write_json(run.path(ADMITTED), sorted({*_admitted(run), *newcomers(run, world.space)}))
    accepted = {
        name: float(read_record(run, name)["seconds"])
        for name, inputs, _ in _stages(config)
        if is_recorded(run, name, inputs)
    }
    write_world(waiting, world)
    by = config.model_dump(mode="json")
    write_json(waiting.path(NOTE), {"accepted": accepted, "engine": world.engine, "config": by})
    _take_in(config)


def finish(config: Config) -> None:
    """Go on where `admit` was cut short, with the world and the configuration that it was called with; then
    where a round was."""
    note = Run(config).within(ADMITTING).path(NOTE)
    if note.is_file():
        _take_in(noted_config(note, config))
    rounds.finish(config)


def _take_in(config: Config) -> None:
    """Put the world that waits in its place, and its words into the policy. May be done twice."""
    from ..models.policy import Policy

    run, waiting = Run(config), Run(config).within(ADMITTING)
    noted = json.loads(waiting.path(NOTE).read_text())
    catalog, space = read_world(waiting)
    with stage_output(run, "policy/sft", {}) as folder:
        shutil.copytree(run.path("policy/sft"), folder, dirs_exist_ok=True)  # its log too
        Policy.from_base(run.path("policy/sft"), space.vocabulary, dtype="auto").save(folder)
    write_world(run, World(noted["engine"], catalog, space))
    for name, inputs, output in _stages(config):
        if name in noted["accepted"]:
            record(run, name, inputs, output=output, seconds=noted["accepted"][name])
    shutil.rmtree(waiting.dir)


def _admitted(run: Run) -> list[str]:
    file = run.path(ADMITTED)
    return json.loads(file.read_text()) if file.is_file() else []


def trials(
    designs: Sequence[tuple[Prompt, Design]],
    words: Sequence[str],
    space: Space,
    *,
    count: int,
    max_tokens: int,
) -> list[list[tuple[Prompt, tuple[str, ...]]]]:
    """For each of `words` pairs of a prompt and a design for it with the word put in, about `count` in all.

    Each word goes once through all designs, and starts at another: the first pairs of all are for different
    prompts.
    """
    grammar, each = Grammar(space, max_tokens), -(-count // len(words))
    found: list[list[tuple[Prompt, tuple[str, ...]]]] = []
    for k, word in enumerate(words):
        first = k * len(designs) // len(words)
        found.append([])
        for i in range(each):
            prompt, design = designs[(first + i * len(designs) // each) % len(designs)]
            flow = including(decode(design.tokens, space), word, grammar, seed=i)
            if flow is not None:
                found[-1].append((prompt, canonical_words(flow, space)))
    return found


def _stages(config: Config) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Name, inputs and output of all that depends on the policy or the space, as they are at that moment."""
    yield "collect", collect.stage_inputs(config), "dataset"
    finished = [Round(config, number + 1) for number in range(lineage(Run(config).dir))]
    for name, inputs in stages(config):
        yield name, inputs, name
    for one in finished:
        yield one.name, one.inputs(), f"{one.name}/summary.json"
