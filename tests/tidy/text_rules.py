# SPDX-License-Identifier: BSL-1.0
"""Words that stand nowhere in the project."""

import re

from .rules import rule

# The patterns are written so that this file does not match them.
_MACHINE = re.compile(r"(?<![\w.~$}-])/(?:(?:home|Users)/\w+|(?:work|root|tmp/vx)/)")
_UNFINISHED = re.compile(r"\b(?:T[O]DO|FIX[M]E|X[X]X)\b")
_MARKETING = re.compile(
    r"\b(?:blazing(?:ly)?|lightning[- ]fast|state[- ]of[- ]the[- ]art|world[- ]class"
    r"|best[- ]in[- ]class|cutting[- ]edge|revolutionary|game[- ]chang\w+|next[- ]generation"
    r"|effortless(?:ly)?|seamless(?:ly)?|battle[- ]tested|ultra[- ]fast|super[- ]fast|insanely)\b",
    re.IGNORECASE)
_DATA = (".jsonl", ".csv", ".svg", ".lock")


def _texts(tree):
    for source in tree.sources.values():
        if not source.path.endswith(_DATA) and "/corpus/" not in source.path:
            yield source


def _search(tree, pattern):
    for source in _texts(tree):
        if pattern.search(source.text):
            for found in pattern.finditer(source.text):
                yield source, source.line_of(found.start()), found.group()


@rule("machine-path", "No path of somebody's machine stands in a file.")
def machine_path(tree):
    for source, line, found in _search(tree, _MACHINE):
        yield source.path, line, f"'{found}' is a path of one machine", "write a relative path"


@rule("unfinished", "No note of unfinished work stands in a file; an issue holds it.")
def unfinished(tree):
    for source, line, found in _search(tree, _UNFINISHED):
        yield source.path, line, f"'{found}'", "finish it, or open an issue"


@rule("marketing", "Plain prose: no words that sell.")
def marketing(tree):
    for source, line, found in _search(tree, _MARKETING):
        if not source.path.startswith("tests/tidy"):
            yield source.path, line, f"'{found}' sells", "say what was measured"
