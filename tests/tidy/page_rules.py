# SPDX-License-Identifier: BSL-1.0
"""The pages under docs/: their order, their examples, their figures and links."""

import re

from .rules import rule
from .suite_rules import EXAMPLE, PAGE, PRIMITIVES

SECTIONS = ("Example", "When and when not", "Guarantees", "What happens before what",
            "Lifetime and shutdown", "Cost", "How it works", "Limits", "History")
COLUMNS = ("operation", "progress", "waits on", "throws", "callback runs under", "complexity")
_FIGURE = re.compile(
    r"(?<![\w.-])\d[\d,.]*\s?(?:ns|µs|[MkKG]/s|[MkKG] ?(?:ops|events|reads|loads)/s)(?![\w/])"
    r"|(?<![\w.-])\d[\d,.]*(?:×|\s?×(?=\s+(?:the|as|faster|slower|more|less|fewer)\b))")


def _pages(tree):
    """The pages of primitives that exist."""
    for stem, files in PRIMITIVES.items():
        if PAGE in files and f"docs/{stem}.md" in tree.sources:
            yield stem, tree.sources[f"docs/{stem}.md"]


def _prose(source):
    """(line, text) outside code blocks, with code spans blanked."""
    fenced = False
    for number, line in enumerate(source.lines, 1):
        if line.lstrip().startswith(("```", "~~~")):
            fenced = not fenced
        elif not fenced:
            yield number, re.sub(r"`[^`]*`", lambda span: " " * len(span.group()), line)


def _titles(source):
    return [(number, line[3:].strip()) for number, line in _prose(source) if line.startswith("## ")]


@rule("page-title", "A primitive's page starts with '# name' and one sentence.")
def title(tree):
    for stem, source in _pages(tree):
        if source.lines[0].strip().replace("`", "") not in (f"# {stem}", f"# veltrix::{stem}"):
            yield source.path, 1, f"the title is '{source.lines[0]}'", f"write '# {stem}'"
        told = [(number, line) for number, line in enumerate(source.lines[1:], 2) if line.strip()]
        if not told or told[0][1].startswith(("#", "|", "```", "-")):
            yield source.path, told[0][0] if told else 1, "no sentence under the title", \
                "say in one sentence what it is"


@rule("page-sections", "A primitive's page has exactly the nine sections, in their order.")
def sections(tree):
    for _, source in _pages(tree):
        found = _titles(source)
        for at, wanted in enumerate(SECTIONS):
            if at >= len(found):
                yield (source.path, len(source.lines), f"section '{wanted}' is missing",
                       "order: " + ", ".join(SECTIONS))
                break
            if found[at][1] != wanted:
                yield (source.path, found[at][0], f"section '{found[at][1]}' stands where "
                       f"'{wanted}' belongs", "order: " + ", ".join(SECTIONS))
                break
        else:
            for number, extra in found[len(SECTIONS):]:
                yield source.path, number, f"section '{extra}' is one too many", "use ### inside"


def _section(source, name: str) -> tuple[int, int]:
    """First and last line of a section's body; (0, 0) if it is not there."""
    found = _titles(source)
    for at, (number, each) in enumerate(found):
        if each == name:
            return number + 1, found[at + 1][0] - 1 if at + 1 < len(found) else len(source.lines)
    return 0, 0


@rule("page-guarantees", "The Guarantees table has its six columns.")
def guarantees(tree):
    for _, source in _pages(tree):
        first, last = _section(source, "Guarantees")
        if not first:
            continue
        for number in range(first, last + 1):
            line = source.lines[number - 1].strip()
            if line.startswith("|"):
                columns = tuple(cell.strip().lower() for cell in line.strip("|").split("|"))
                if columns != COLUMNS:
                    yield (source.path, number, "the columns are " + " | ".join(columns),
                           "write " + " | ".join(COLUMNS))
                break
        else:
            yield source.path, first - 1, "no table", "write " + " | ".join(COLUMNS)


@rule("page-example", "The Example of a page is the text of its example file, and names it.")
def example(tree):
    for stem, source in _pages(tree):
        if EXAMPLE not in PRIMITIVES[stem]:
            continue
        first, last = _section(source, "Example")
        file = tree.sources.get(f"docs/examples/{stem}_example.cpp")
        if not first or file is None:
            continue  # page-sections and primitive-files say so
        lines = source.lines[first - 1:last]
        if not any(file.name in line for line in lines):
            yield source.path, first - 1, "the section does not name its file", f"name {file.path}"
        fences = [at for at, line in enumerate(lines) if line.lstrip().startswith("```")]
        if len(fences) < 2:
            yield source.path, first - 1, "no code block", f"show {file.path}"
            continue
        shown = [line.rstrip() for line in lines[fences[0] + 1:fences[1]]]
        whole = [line.rstrip() for line in file.text.strip("\n").split("\n")]
        code = whole[next((at for at, line in enumerate(whole) if not line.startswith("//")), 0):]
        while code and not code[0]:
            code = code[1:]
        if shown in (whole, code):
            continue
        wanted = code if shown[:1] == code[:1] else whole
        at = next((at for at, (left, right) in enumerate(zip(shown, wanted)) if left != right),
                  min(len(shown), len(wanted)))
        yield (source.path, first + fences[0] + 1 + at, f"the block differs from {file.path} here",
               "copy the file's text")


@rule("page-cost", "Cost names a measurement in bench/results/, or the bench that will make it.")
def cost(tree):
    for _, source in _pages(tree):
        first, last = _section(source, "Cost")
        told = "\n".join(source.lines[first - 1:last]) if first else "bench/results/"
        if "bench/results/" not in told and not re.search(
                r"[Nn]ot\s+measured\s+yet;\s+`?bench/\w+", told):
            yield (source.path, first - 1, "the section names no measurement",
                   "name the file, or write 'not measured yet; bench/<name>_bench is the command'")


@rule("example-used", "Every example file is named, or shown in full, by a page.")
def example_used(tree):
    pages = [source.text for source in tree.sources.values() if source.path.endswith(".md")]
    for source in tree.under("docs/examples"):
        code = re.sub(r"\A(?://[^\n]*\n|\n)*", "", source.text).strip()
        if source.path.endswith(".cpp") and not any(
                source.name in text or (code and code in text) for text in pages):
            yield source.path, 1, "no page names this example", "name it, or remove it"


@rule("page-figure", "A page with figures names the file in bench/results/ they come from.")
def figure(tree):
    for source in tree.sources.values():
        if not (source.path.startswith("docs/") and source.path.endswith(".md")
                or source.path == "README.md"):
            continue
        if "bench/results/" in source.text:
            continue
        for number, line in _prose(source):
            found = _FIGURE.search(line)
            if found:
                yield (source.path, number, f"'{found.group()}' without a measurement",
                       "name the file in bench/results/")


@rule("page-link", "Links and bench/results/ files named by a page exist.")
def link(tree):
    folders = {path.rsplit("/", at)[0] for path in tree.paths
               for at in range(1, path.count("/") + 1)}
    for source in tree.sources.values():
        if not source.path.endswith(".md"):
            continue
        here = source.path.rpartition("/")[0]
        for number, line in _prose(source):
            for target in re.findall(r"\]\(([^)\s]+)\)", line):
                if re.match(r"[a-z]+:|#", target):
                    continue
                path = _join(here, target.split("#")[0])
                if path and path not in tree.paths and path not in folders:
                    yield source.path, number, f"{target} does not exist", "link to what exists"
        for number, line in enumerate(source.lines, 1):
            for target in re.findall(r"\bbench/results/[\w./-]*\w", line):
                if target not in tree.paths and target not in folders:
                    yield source.path, number, f"{target} does not exist", "commit the result"


def _join(folder: str, target: str) -> str:
    parts = [] if target.startswith("/") or not folder else folder.split("/")
    for part in target.strip("/").split("/"):
        if part == "..":
            parts = parts[:-1]
        elif part != ".":
            parts.append(part)
    return "/".join(parts)
