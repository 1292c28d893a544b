"""Markdown tables: how columns are aligned, and what a cell may hold."""

from __future__ import annotations

from flowtailor.markdown import WIDTH, filled, markdown_table


def test_a_table_has_a_line_for_the_head_the_alignment_and_each_row():
    table = markdown_table(["method", "score"], [["sft", "0.70"], ["grpo", "0.77"]])
    assert table.splitlines() == ["| method | score |", "| --- | --- |", "| sft | 0.70 |", "| grpo | 0.77 |"]


def test_the_last_alignment_holds_for_the_columns_that_follow():
    head = ["method", "95%", "render s", "design s"]
    assert markdown_table(head, [], "lcr").splitlines()[1] == "| --- | :---: | ---: | ---: |"


def test_a_bar_does_not_end_its_cell():
    assert markdown_table(["tokens"], [["<|steps=8|>"]]).splitlines()[-1] == r"| <\|steps=8\|> |"


def test_text_is_filled_and_a_table_stays():
    text = "Intervals are over prompts. " * 12
    assert max(map(len, filled(text).splitlines())) <= WIDTH
    assert filled(text).split() == text.split()
    table = markdown_table(["tokens"], [["word " * 50]])
    assert filled(table) == table
