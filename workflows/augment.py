"""More workflows from a few: seeded edits that stay valid and within the space.

Whole sets (`augment`, `variants`) and a single flow that uses a given word (`including`), by the edits of
editor.py. A flow that comes out of the space or over its limits is thrown away.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from flowtailor.errors import FlowtailorError

from .codec import encode
from .editor import Editor
from .grammar import Grammar
from .graph import Workflow
from .rules import Rule, quote
from .space import Space

ATTEMPTS_PER_FLOW = 200
TRIES_PER_FLOW = 6  # of which the one with the rarest values is taken


def augment(
    seeds: Sequence[Workflow], space: Space, n: int, seed: int = 0, max_tokens: int = 64
) -> list[Workflow]:
    """`n` distinct canonical workflows: the seeds that the space holds, then edits of them.

    By turns a new flow is a seed with another checkpoint, as long as there are such, and any flow of the pool
    after one to three edits. Which model suits a prompt shows only in workflows that are good otherwise, as
    people's are; the edits go far afield. Of six tries the one is taken whose values the pool has seldomest.
    The same arguments give the same list. Raises FlowtailorError where the space is too small for `n`.
    """
    editor = Editor(space, Grammar(space, max_tokens), random.Random(seed))
    pool: dict[str, Workflow] = {}

    def add(flow: Workflow) -> None:
        if flow.key not in pool:
            pool[flow.key] = flow
            editor.count(flow)

    for flow in seeds:
        canonical = flow.canonical(space.catalog)
        if editor.holds(canonical):
            add(canonical)
    if not pool:
        raise FlowtailorError(
            f"{space.source}: holds none of the {len(seeds)} seed workflows; set space.flows to "
            "a folder of yours, exported in API format, or widen the space"
        )
    known = list(pool.values())
    for turn in range(n * ATTEMPTS_PER_FLOW):
        if len(pool) >= n:
            return list(pool.values())[:n]
        if turn % 2 == 0:
            edited = [editor.with_other_model(known) for _ in range(TRIES_PER_FLOW)]
        else:
            edited = [editor.edit(list(pool.values())) for _ in range(TRIES_PER_FLOW)]
        if flows := [flow for flow in edited if flow is not None and flow.key not in pool]:
            add(min(flows, key=editor.commonness))
    raise FlowtailorError(f"{n} workflows asked for, but {space.source} gave only {len(pool)}; ask for fewer")


def variants(
    flows: Sequence[Workflow], space: Space, tries: int, seed: int = 0, max_tokens: int = 64
) -> list[Workflow]:
    """The distinct canonical workflows that come out of `tries` times one to three edits of any of `flows`.

    Some tries end outside the space or where another did. The same arguments give the same list.
    """
    editor = Editor(space, Grammar(space, max_tokens), random.Random(seed))
    edited = (editor.edit(flows) for _ in range(tries))
    known = {flow.key for flow in flows}
    return list({flow.key: flow for flow in edited if flow is not None and flow.key not in known}.values())


def including(flow: Workflow, word: str, grammar: Grammar, *, seed: int = 0) -> Workflow | None:
    """The flow with the value or the node class that `word` says.

    A value takes the place of another, or comes in a node that is put in for it. A loader, which has no links
    to be put on, takes the place of what feeds a link, or comes with a node that it feeds. The same arguments
    give the same flow; None where no place for the word was found.
    """
    space = grammar.space
    editor = Editor(space, grammar, random.Random(seed))
    taking = [r for r in space.rules.values() if quote(r.class_type) == word or _takes(r, word)]
    loaded = {kind for rule in taking if not rule.links for kind in rule.outputs}
    fed = [r for r in space.rules.values() if any(loaded & set(link.accepts) for link in r.links)]
    for _ in range(ATTEMPTS_PER_FLOW):
        changed = editor.say(flow, word)
        if changed is None:
            longer = editor.load(flow, taking) or editor.insert(flow, [*taking, *fed])
            changed = longer and (editor.say(longer, word) or longer)
        if changed is None:
            continue
        canonical = changed.canonical(space.catalog)
        if editor.holds(canonical) and word in encode(canonical, space):
            return canonical
    return None


def _takes(rule: Rule, word: str) -> bool:
    return any(word in param.tokens for param in rule.params)
