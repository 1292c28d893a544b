"""Whether an unfinished design can still be ended within the limits on words, nodes and groups.

`Limits.fits` plays the cheapest ending through: each open need takes its default where there is one,
else the class that feeds it with the fewest nodes. A design that starts with such an ending and only
takes words after which there still is one never runs into a dead end.
"""

from __future__ import annotations

from functools import lru_cache
from operator import le

from flowtailor.errors import FlowtailorError

from .rules import LinkNeed, Param
from .space import Space

MOST_STATES = 65_536  # remembered answers; a service asks for ever

Spent = tuple[int, ...]
"""What a design uses of the limits: its nodes, then one count a group."""


OpenNodes = tuple[tuple[str, int], ...]
"""Class and next need of each open node, the output node first."""


class Limits:
    """The limits of a space, with at most `max_tokens` words a design (None: no limit at all)."""

    def __init__(self, space: Space, max_tokens: int | None) -> None:
        self.space = space
        self.max_tokens = max_tokens
        self.most: Spent = (space.max_nodes, *(group.limit for group in space.groups))
        self.spend: dict[str, Spent] = {
            c: (1, *(int(c in group.classes) for group in space.groups)) for c in space.rules
        }
        self._plan = _cheapest_producers(space)
        self._closing = lru_cache(MOST_STATES)(self._closing_uncached)
        self._closing_node = lru_cache(MOST_STATES)(self._closing_node_uncached)

    def fits(self, open_nodes: OpenNodes, available: frozenset[str], spent: Spent, tokens: int) -> bool:
        """Whether the cheapest ending fits.

        `available`: types of the outputs so far; `tokens`: words so far.
        """
        if self.max_tokens is None:
            return True
        closing = self._closing(open_nodes, available)  # one word a new node, then <end>
        if tokens + closing[0] + 1 > self.max_tokens:
            return False
        return all(map(le, add(spent, closing), self.most))

    def _closing_uncached(self, open_nodes: OpenNodes, available: frozenset[str]) -> Spent:
        spent: Spent = (0,) * len(self.most)
        for class_type, position in reversed(open_nodes):
            more, available = self._closing_node(class_type, position, available)
            spent = add(spent, more)
        return spent

    def _closing_node_uncached(
        self, class_type: str, position: int, available: frozenset[str]
    ) -> tuple[Spent, frozenset[str]]:
        """What ending this node spends from its need at `position` on, and the types there are then."""
        rule = self.space.rules[class_type]
        spent: Spent = (0,) * len(self.most)
        for need in rule.needs[position:]:
            if isinstance(need, Param) or need.optional or available & set(need.accepts):
                continue
            cheapest = self._plan[need.accepts]
            more, available = self._closing_node(cheapest, 0, available)
            spent = add(spent, more, self.spend[cheapest])
        return spent, available | set(rule.outputs)


def add(*counts: Spent) -> Spent:
    """The sum of counts, limit by limit."""
    return tuple(map(sum, zip(*counts, strict=True)))


def _cheapest_producers(space: Space) -> dict[tuple[str, ...], str]:
    """For each set of types that a link accepts, the class that feeds it with the fewest nodes."""
    infinite = float("inf")
    cost: dict[str, float] = dict.fromkeys(space.rules, infinite)

    def link_cost(link: LinkNeed) -> float:
        return min(
            (cost[c] for c in space.rules if set(space.rules[c].outputs) & set(link.accepts)),
            default=infinite,
        )

    changed = True
    while changed:
        changed = False
        for name, rule in space.rules.items():
            new = 1 + sum(link_cost(link) for link in rule.links if not link.optional)
            if new < cost[name]:
                cost[name], changed = new, True
    plan: dict[tuple[str, ...], str] = {}
    for link in (link for rule in space.rules.values() for link in rule.links):
        fitting = [c for c in space.rules if set(space.rules[c].outputs) & set(link.accepts)]
        if fitting:
            plan[link.accepts] = min(fitting, key=cost.__getitem__)
    if cost[space.output] == infinite:
        raise FlowtailorError(
            f"{space.source}: nothing can feed {space.output}; add the nodes that lead to a picture"
        )
    return plan
