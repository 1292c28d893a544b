"""Words as parts of nodes."""

from __future__ import annotations

from flowtailor.workflows.components import components, owners


def test_settings_belong_to_the_node_before_them():
    words = ["VAEDecode", "KSampler", "steps=2", "LoraLoader", "MODEL@1", "<end>"]
    assert owners(words[:-1]) == [0, 1, 1, 3, 3]
    assert components(words) == [
        "VAEDecode",
        "KSampler",
        "KSampler steps=2",
        "LoraLoader",
        "LoraLoader MODEL@1",
    ]
