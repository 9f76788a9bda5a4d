# SPDX-License-Identifier: BSL-1.0
"""How long and how deep, and the exceptions that docs/decisions.md grants."""

import re

from .rules import rule

LINE_LIMIT = 100     # columns
HEADER_LIMIT = 600   # lines
FUNCTION_LIMIT = 60  # lines that hold code; comments explain for free
NESTING_LIMIT = 3    # control levels
DECISIONS = "docs/decisions.md"
WRAPPED = (".hpp", ".cpp", ".h", ".cc", ".py", ".cmake", "CMakeLists.txt")


def _exceptions(tree) -> dict[str, tuple[int, str]]:
    """'file' or 'file:function' -> (line, the sentence that grants it)."""
    source = tree.sources.get(DECISIONS)
    granted = {}
    for number, line in enumerate(source.lines if source else [], 1):
        found = re.search(r"size-exception:\s*`?([\w./-]+(?::~?\w+)?)`?[\s.:—–-]*(.*)", line)
        if found:
            rest = [found[2]]
            for following in source.lines[number:]:
                if not following.strip() or "size-exception:" in following:
                    break
                rest.append(following)
            granted[found[1]] = (number, " ".join(rest).strip())
    return granted


def _long_functions(tree):
    for source in tree.cpp:
        for block in source.structure.functions:
            first, last = source.line_of(block.head_at), source.line_of(block.close_at)
            length = sum(1 for line in range(first, last + 1) if source.code_at(line))
            if length > FUNCTION_LIMIT:
                yield source, block, first, length


def _deep_functions(tree):
    for source in tree.cpp:
        reported = set()
        for block in source.structure.blocks:
            depth, outer = 0, block
            while outer is not None and outer.kind in ("control", "plain", "initialiser"):
                depth += outer.kind == "control"
                outer = outer.parent
            if block.kind == "control" and depth > NESTING_LIMIT and id(outer) not in reported:
                reported.add(id(outer))
                function = outer if outer and outer.kind == "function" else block.outer("function")
                yield source, function, source.line_of(block.head_at), depth


def _long_headers(tree):
    for source in tree.headers:
        lines = len(source.lines) - (source.lines[-1] == "")
        if lines > HEADER_LIMIT:
            yield source, lines


@rule("line-length", f"No line of code is longer than {LINE_LIMIT} columns.")
def line_length(tree):
    for source in tree.sources.values():
        if source.name.endswith(WRAPPED):
            for number, line in enumerate(source.lines, 1):
                if len(line) > LINE_LIMIT and "https://" not in line and "#include" not in line:
                    yield source.path, number, f"{len(line)} columns", f"keep to {LINE_LIMIT}"


@rule("header-length", f"A header has at most {HEADER_LIMIT} lines, or a size-exception in "
                       f"{DECISIONS}.")
def header_length(tree):
    granted = _exceptions(tree)
    for source, lines in _long_headers(tree):
        if source.path not in granted:
            yield (source.path, HEADER_LIMIT + 1, f"{lines} lines",
                   f"split it, or write 'size-exception: {source.path}' and why in {DECISIONS}")


@rule("function-length", f"A function has at most {FUNCTION_LIMIT} lines of code, or a "
                         f"size-exception in {DECISIONS}.")
def function_length(tree):
    granted = _exceptions(tree)
    for source, block, line, length in _long_functions(tree):
        if f"{source.path}:{block.name}" not in granted:
            yield (source.path, line, f"{block.name}() has {length} lines of code",
                   f"split it, or write 'size-exception: {source.path}:{block.name}' and why "
                   f"in {DECISIONS}")


@rule("nesting", f"Control blocks nest at most {NESTING_LIMIT} deep in a function or lambda, or a "
                 f"size-exception in {DECISIONS} says why.")
def nesting(tree):
    granted = _exceptions(tree)
    for source, block, line, depth in _deep_functions(tree):
        name = block.name if block else "?"
        if f"{source.path}:{name}" not in granted:
            yield (source.path, line, f"control level {depth} in {name}()",
                   "return early or name the inner part as a function")


@rule("size-exception", "A size-exception gives a sentence, and is still needed.")
def size_exception(tree):
    needed = {source.path for source, _ in _long_headers(tree)}
    needed |= {f"{source.path}:{block.name}" for source, block, _, _ in _long_functions(tree)}
    needed |= {f"{source.path}:{block.name}" for source, block, _, _ in _deep_functions(tree)
               if block}
    for what, (line, sentence) in _exceptions(tree).items():
        if what not in needed:
            yield DECISIONS, line, f"{what} is within the limits", "remove the entry"
        elif len(sentence.split()) < 4 or not sentence.rstrip().endswith("."):
            yield DECISIONS, line, f"{what} is larger without a reason", "add a sentence saying why"
