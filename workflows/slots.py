"""A workflow as ComfyUI exports it, made ready to design from: its prompt a slot, its values in place.

An export holds the text that its author typed last. Flowtailor's workflows have a slot there, `{prompt}`;
seeds and file names become slots by themselves (`graph.Workflow.canonical`). Promises: a workflow that has
the slot keeps its texts. Does not understand them: all of the author's goes, a "masterpiece" in it too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from .graph import FILENAME, PROMPT, Link, Node, Workflow, WorkflowError

TEXTS = ("text", "prompt", "text_g", "text_l", "clip_l", "clip_g", "t5xxl")
ENTRANCES = ("positive", "conditioning")  # of samplers and guiders; the first that a workflow has


def made_ready(flow: Workflow) -> Workflow:
    """The workflow with the slot, its picture saved and not shown, its values where they belong.

    Raises WorkflowError as `with_prompt` does.
    """
    return with_prompt(saving(without_primitives(flow)))


def saving(flow: Workflow) -> Workflow:
    """Without previews, which pass on what they show; if nothing is saved, what was shown last is saved."""
    shown = {i: n.inputs.get("images") for i, n in flow.nodes.items() if n.class_type == "PreviewImage"}

    def behind(value: object) -> object:
        for _ in shown:  # a preview may show what another one passes on
            value = shown.get(value.node, value) if isinstance(value, Link) else value
        return value

    nodes = {i: node for i, node in flow.nodes.items() if i not in shown}
    if shown and not any(node.class_type == "SaveImage" for node in nodes.values()):
        last, images = list(shown.items())[-1]
        nodes[last] = Node("SaveImage", {"images": images, "filename_prefix": FILENAME})
    return Workflow(nodes).map_values(behind)


def templated(flow: Workflow, prompt: str) -> Workflow:
    """The workflow with `{prompt}` wherever a text holds `prompt`: the reverse of `bind`'s filling."""
    texts = {(i, name) for i, node in flow.nodes.items() for name in _texts(node)}
    return _changed(flow, texts, lambda text: text.replace(prompt, PROMPT)) if prompt else flow


def without_primitives(flow: Workflow) -> Workflow:
    """The values of `PrimitiveInt` and its like in the inputs that they feed, as if they were typed there."""
    values = {
        i: node.inputs["value"]
        for i, node in flow.nodes.items()
        if node.class_type.startswith("Primitive")
        and not isinstance(node.inputs.get("value", Link("", 0)), Link)
    }

    def typed(value: object) -> object:
        return values.get(value.node, value) if isinstance(value, Link) else value

    return Workflow({i: node for i, node in flow.nodes.items() if i not in values}).map_values(typed)


def with_prompt(flow: Workflow) -> Workflow:
    """The workflow with `{prompt}` in the place of the text that conditions its sampler.

    Raises WorkflowError where there is none to be found.
    """
    if any(isinstance(v, str) and PROMPT in v for node in flow.nodes.values() for v in node.inputs.values()):
        return flow
    for entrance in ENTRANCES:
        starts = [node.inputs[entrance] for node in flow.nodes.values() if entrance in node.inputs]
        found = {where for link in starts if isinstance(link, Link) for where in _texts_behind(flow, link)}
        if found:
            return _changed(flow, found, lambda _: PROMPT)
    raise WorkflowError(
        f"no text leads to its sampler; write {PROMPT} where the prompt belongs (in ComfyUI's editor "
        r"\{prompt\}, for it takes braces away)"
    )


def is_negative(flow: Workflow, node_id: str) -> bool:
    """Whether what a node makes serves as negative prompts alone."""
    uses = [(i, name) for i, n in flow.nodes.items() for name, link in n.links() if link.node == node_id]
    return bool(uses) and all(
        name == "negative" or (name != "positive" and is_negative(flow, i)) for i, name in uses
    )


def _texts_behind(flow: Workflow, link: Link) -> Iterator[tuple[str, str]]:
    """(node id, input) of the nearest texts that a link's output is made of.

    What is wanted, not what is to be avoided: nodes between texts and sampler may take both.
    """
    reached, edge = {link.node}, [link.node]
    while edge:
        found = [(i, name) for i in edge if i in flow.nodes for name in _texts(flow.nodes[i])]
        if found:
            yield from found
            return
        edge = [
            up.node
            for i in edge
            if i in flow.nodes
            for name, up in flow.nodes[i].links()
            if name != "negative" and up.node not in reached
        ]
        reached.update(edge)


def _texts(node: Node) -> list[str]:
    return [name for name in TEXTS if isinstance(node.inputs.get(name), str)]


def _changed(flow: Workflow, texts: set[tuple[str, str]], change: Callable[[str], str]) -> Workflow:
    """The workflow with some of its texts (node id, input) changed."""

    def inputs(node_id: str, node: Node) -> dict[str, object]:
        return {name: change(v) if (node_id, name) in texts else v for name, v in node.inputs.items()}

    return Workflow({i: Node(n.class_type, inputs(i, n), n.title) for i, n in flow.nodes.items()})
