"""What the configured engine offers, and the space of designs within it.

`survey` asks the engine; `write_world` keeps the answer in the run folder, where every later stage
and the service read it, so that they need no engine.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowtailor.errors import FlowtailorError
from flowtailor.files import written_whole

from ..actors.client import ComfyClient
from ..actors.comfy import engine, engine_name
from ..datasets.flows import load_seed_flows
from ..workflows.catalog import Catalog
from ..workflows.codec import canonical_words
from ..workflows.drafting import draft
from ..workflows.rules import Rule
from ..workflows.space import STUDIO_SPACE, Space
from .config import Config
from .stage import ENGINE, Run, forget, write_json

WORLD = (ENGINE, "catalog.json", "space.toml")  # what `write_world` keeps of an engine


@dataclass(frozen=True)
class World:
    """An engine's name, its catalog, and the space of designs that it can run."""

    engine: str
    catalog: Catalog
    space: Space


def survey(config: Config, client: ComfyClient) -> World:
    """Read a running engine. Raises FlowtailorError where the space finds nothing to use in it."""
    catalog = Catalog(client.object_info())
    return World(engine_name(config.engine, client), catalog, space_of(config, catalog))


def look(config: Config) -> World:
    """The same of the configured engine, started for it where that is ours to do."""
    with engine(config.engine) as client:
        return survey(config, client)


def space_file(config: Config) -> Path | None:
    """The TOML that describes the space, the configured one or the studio's; None: drawn from own flows."""
    if config.space.file:
        return Path(config.space.file)
    own = config.engine.kind != "studio" and config.space.flows
    return None if own else STUDIO_SPACE


def space_of(config: Config, catalog: Catalog) -> Space:
    """The space of that file, or of a draft for the configured workflows, on the engine of `catalog`."""
    if file := space_file(config):
        return Space.load(file, catalog)
    return Space(draft(load_seed_flows(config.space.flows), catalog), catalog, "space.toml")


def compatible(config: Config, world: World) -> World:
    """The world in which the words of the run's rows, and what they leave out, mean what they meant.

    A run without rows takes the world as it is. Raises FlowtailorError where such a value is gone.
    """
    run = Run(config)
    if not run.path("catalog.json").is_file() or run.dataset.rows().empty:
        return world
    catalog, space = read_world(run)
    ordered = world.catalog.ordered_as(catalog)
    now = space_of(config, ordered)
    for class_type, rule in now.rules.items():
        before, after = _meanings(space.rules.get(class_type)), _meanings(rule)
        for name in before.keys() & after.keys():
            if before[name] != after[name]:
                raise FlowtailorError(
                    f"{class_type}.{name} = {before[name]!r}: that is what the run's designs mean, but now "
                    f"they would mean {after[name]!r}; install it again, put it first in the space again, or "
                    "start a new run (run.name)"
                )
    return World(world.engine, ordered, now)


def _meanings(rule: Rule | None) -> dict[str, Any]:
    """What the class alone says, which is the inputs that have one value only and the defaults of the others;
    and what its words say."""
    if rule is None:
        return {}
    defaults = {param.name: param.default for param in rule.params}
    return {**rule.fixed, **defaults, **{w: v for param in rule.params for w, v in param.tokens.items()}}


def write_world(run: Run, world: World) -> None:
    """Keep the engine's name, catalog and space in the run folder (`WORLD`).

    Where others were there the collection is no longer up to date: its record knows the configuration only,
    and would call the world of another configuration its own.
    """
    run.open()
    if not _is_kept(run, world):
        forget(run, "collect")
    write_json(run.path(ENGINE), {"engine": world.engine})
    write_json(run.path("catalog.json"), world.catalog.to_json())
    with written_whole(run.path("space.toml")) as new:
        new.write_text(world.space.text, encoding="utf-8")


def _is_kept(run: Run, world: World) -> bool:
    files = [run.path(part) for part in WORLD]
    if not all(file.is_file() for file in files):
        return False
    _, catalog, text = files
    if text.read_text(encoding="utf-8") != world.space.text or run.engine() != world.engine:
        return False
    return Catalog.load(catalog).hash == world.catalog.hash


def world_inputs(run: Run) -> list[Any]:
    """What designs depend on in the world that a run keeps; what lies in the engine's input folder is none
    of it (`Catalog.hash`)."""
    catalog = run.path("catalog.json")
    return [Catalog.load(catalog).hash if catalog.is_file() else None, run.path("space.toml")]


def read_world(run: Run) -> tuple[Catalog, Space]:
    """The catalog and space that `write_world` kept. Raises FlowtailorError where there are none."""
    file = run.path("catalog.json")
    if not file.is_file():
        raise FlowtailorError(
            f"{run.dir}: has no catalog yet; run `flowtailor collect` or `flowtailor catalog`"
        )
    catalog = Catalog.load(file)
    return catalog, Space.load(run.path("space.toml"), catalog)


def write_catalog(config: Config) -> None:
    """The command `flowtailor catalog`. Raises FlowtailorError, and writes nothing, where the run's policy
    does not know some of what is installed."""
    found = look(config)
    world = compatible(config, found)
    run = Run(config)
    print(f"{world.engine}: {len(world.catalog.nodes)} node classes, catalog {world.catalog.hash}")
    print(f"space {world.space.source}: {len(world.space.vocabulary)} words")
    if world.space.missing:
        print(f"not installed, so left out: {', '.join(world.space.missing)}")
    if found.catalog.unreadable:
        print(f"not understood, so left out: {', '.join(found.catalog.unreadable)}")
    for class_type in (*world.space.unset, *world.space.unfed):
        print(f"{class_type} is left out: {world.space.why_not(class_type)}")
    for name, flow in load_seed_flows(config.space.flows).items():
        try:
            canonical_words(flow.canonical(world.catalog), world.space)
        except FlowtailorError as error:
            print(f"workflow {name} lies outside of it: {error}")
    refuse_unknown(run, world.space)
    write_world(run, world)
    print(f"written: {run.path('catalog.json')}, {run.path('space.toml')}")


def refuse_unknown(run: Run, space: Space) -> None:
    """Raise FlowtailorError where the run has a policy that lacks words of the space: it could not design."""
    if not run.path("policy/sft").is_dir():
        return
    from ..models.vocabulary import Vocabulary

    known = Vocabulary.load(run.path("policy/sft")).ids
    if new := [word for word in space.vocabulary if word not in known]:
        raise FlowtailorError(
            f"{', '.join(new)}: the policy of {run.dir} does not know them, so nothing was written; take "
            "them in with `flowtailor refine --new-models`, or start a new run (run.name)"
        )
