# SPDX-License-Identifier: BSL-1.0
"""The registry: a rule is a name, one sentence, and a function that reports what breaks it."""

from typing import Callable, Iterable, NamedTuple


class Finding(NamedTuple):
    path: str
    line: int
    rule: str
    wrong: str
    wanted: str

    def __str__(self):
        return f"{self.path}:{self.line}: {self.rule}: {self.wrong}; {self.wanted}"


class Rule(NamedTuple):
    name: str
    sentence: str
    check: Callable


RULES: dict[str, Rule] = {}


def rule(name: str, sentence: str):
    """Registers `check(tree)`, which yields (path, line, what is wrong, what is wanted)."""
    def register(check):
        assert name not in RULES, name
        RULES[name] = Rule(name, sentence, check)
        return check
    return register


def run(tree, names: Iterable[str] = ()) -> list[Finding]:
    """Every finding of the named rules (all when none is named), by place."""
    chosen = list(names) or list(RULES)
    found = {Finding(path, line, name, wrong, wanted)
             for name in chosen
             for path, line, wrong, wanted in RULES[name].check(tree)}
    return sorted(found)
