# SPDX-License-Identifier: BSL-1.0
"""A file with its comments and literals told apart from its code, and the tree of all files."""

import bisect
import os
import re
import subprocess
from functools import cached_property

# One pass over the text. Numbers come before characters because of 1'000.
_TOKEN = re.compile(
    r"""(?P<raw>\b(?:u8|[uUL])?R"(?P<delimiter>[^\s()\\]{0,16})\((?:.|\n)*?\)(?P=delimiter)")
      | (?P<number>\b\d(?:'?[\w.])*)
      | (?P<string>(?:\b(?:u8|[uUL]))?"(?:\\(?:.|\n)|[^"\\\n])*")
      | (?P<character>(?:\b(?:u8|[uUL]))?'(?:\\.|[^'\\\n])*')
      | (?P<line>//(?:\\\n|[^\n])*)
      | (?P<block>/\*(?:.|\n)*?\*/)""", re.VERBOSE)
_NOT_NEWLINE = re.compile(r"[^\n]")
_MARKER = re.compile(r"^\s*(?://[/!]?<?|/\*+<?|\*(?!/))\s?|\s*\*/\s*$")

CPP_ENDINGS = (".hpp", ".cpp", ".h", ".cc", ".ipp", ".inc")
LARGEST = 1 << 20  # bytes; anything larger is data


def _blank(text: str) -> str:
    return _NOT_NEWLINE.sub(" ", text)


class Source:
    """One text file. Lines are numbered from 1."""

    def __init__(self, path: str, text: str):
        self.path = path
        self.text = text
        self.lines = text.split("\n")
        self.is_cpp = path.endswith(CPP_ENDINGS)
        self.name = path.rsplit("/", 1)[-1]
        self.stem = self.name.rsplit(".", 1)[0]

    @cached_property
    def _starts(self) -> list[int]:
        return [0] + [found.end() for found in re.finditer("\n", self.text)]

    def line_of(self, offset: int) -> int:
        return bisect.bisect_right(self._starts, offset)

    def start_of(self, line: int) -> int:
        return self._starts[line - 1]

    @cached_property
    def _parts(self):
        code, comments, columns = [], {}, {}
        at = 0
        for token in _TOKEN.finditer(self.text):
            kind, value = token.lastgroup, token.group()
            if kind == "delimiter":
                kind = "raw"
            if kind == "number":
                continue
            code.append(self.text[at:token.start()])
            at = token.end()
            if kind in ("line", "block"):
                code.append(_blank(value))
                first = self.line_of(token.start())
                columns.setdefault(first, token.start() - self.start_of(first))
                for line, part in enumerate(value.split("\n"), first):
                    told = _MARKER.sub("", part).strip()
                    comments[line] = f"{comments[line]} {told}" if line in comments else told
                    columns.setdefault(line, len(part) - len(part.lstrip()))
            else:
                quote = value[-1]
                code.append(quote + _blank(value[1:-1]) + quote)
        code.append(self.text[at:])
        return "".join(code), comments, columns

    @property
    def code(self) -> str:
        """The text with comments and the inside of literals blanked, every offset kept."""
        return self._parts[0]

    @cached_property
    def code_lines(self) -> list[str]:
        return self.code.split("\n")

    @property
    def comments(self) -> dict[int, str]:
        """line -> what its comment says."""
        return self._parts[1]

    def code_at(self, line: int) -> str:
        return self.code_lines[line - 1].strip() if 0 < line <= len(self.code_lines) else ""

    def comment_only(self, line: int) -> bool:
        return line in self.comments and not self.code_at(line)

    @cached_property
    def directives(self) -> list[tuple[int, int, str, str]]:
        """(offset, line, name, the rest as written) of every preprocessor directive."""
        found = []
        for one in re.finditer(r"^[ \t]*#[ \t]*(\w+)((?:\\\n|[^\n])*)", self.code, re.MULTILINE):
            found.append((one.start(), self.line_of(one.start()), one[1],
                          self.text[one.start(2):one.end(2)]))
        return found

    @cached_property
    def includes(self) -> list[tuple[int, str, bool]]:
        """(line, name, written in quotes) of every #include."""
        found = []
        for _, line, name, rest in self.directives:
            target = re.match(r"\s*([<\"])([^>\"]+)[>\"]", rest)
            if name == "include" and target:
                found.append((line, target[2], target[1] == '"'))
        return found

    @cached_property
    def directive_lines(self) -> set[int]:
        return {line + extra for _, line, _, rest in self.directives
                for extra in range(rest.count("\n") + 1)}

    def _ends_statement(self, line: int) -> bool:
        code = self.code_at(line)
        if not code or line in self.directive_lines:
            return True
        return code[-1] in ";{}" or (code[-1] == ":" and code[-2:] != "::")

    def _trailing_continues(self, line: int) -> bool:
        """A comment alone on its line that stands right under a comment behind code."""
        columns = self._parts[2]
        if not self.comment_only(line):
            return False
        above = line - 1
        while self.comment_only(above) and columns[above] == columns[line]:
            above -= 1
        return above in self.comments and bool(self.code_at(above)) \
            and columns[above] == columns[line]

    def statement(self, line: int) -> tuple[int, int]:
        """The first and the last line of the statement that `line` belongs to."""
        first = line
        while first > 1:
            above = first - 1
            while self.comment_only(above):
                above -= 1
            if above < 1 or self._ends_statement(above):
                break
            first = above
        last = line
        while last < len(self.lines) and not self._ends_statement(last):
            last += 1
        return first, last

    def comment_lines_about(self, line: int) -> list[int]:
        """The lines of the comments that explain the statement at `line`: above, within, behind."""
        first, last = self.statement(line)
        above = []
        here = first - 1
        while self.comment_only(here) and not self._trailing_continues(here):
            above.append(here)
            here -= 1
        lines = above[::-1] + [each for each in range(first, last + 1) if each in self.comments]
        below = last + 1
        while self._trailing_continues(below):
            lines.append(below)
            below += 1
        return lines

    def told_about(self, line: int) -> str:
        return " ".join(self.comments[each] for each in self.comment_lines_about(line))

    def literal_after(self, offset: int) -> tuple[str, int]:
        """The string literal (adjacent ones joined) that starts at or after `offset`."""
        told, at = [], self.code.find('"', offset)
        while at >= 0:
            end = self.code.find('"', at + 1)
            told.append(self.text[at + 1:end])
            following = re.compile(r'\s*"').match(self.code, end + 1)
            if not following:
                return "".join(told), end + 1
            at = following.end() - 1
        return "", offset

    def closing(self, opening: int) -> int:
        """Offset of the bracket that closes the one at `opening`, or the end."""
        opener = self.code[opening]
        closer = {"(": ")", "{": "}", "[": "]"}[opener]
        depth = 0
        for one in re.compile("[" + re.escape(opener + closer) + "]").finditer(self.code, opening):
            depth += 1 if one.group() == opener else -1
            if depth == 0:
                return one.start()
        return len(self.code)

    @cached_property
    def structure(self):
        from .structure import Structure
        return Structure(self)


def _listed(root: str) -> list[str]:
    """What git tracks or would track; without git, every file but build output."""
    if os.path.exists(os.path.join(root, ".git")):
        answer = subprocess.run(
            ["git", "-C", root, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            capture_output=True, check=False)
        if answer.returncode == 0:
            return [name for name in answer.stdout.decode("utf-8", "replace").split("\0") if name]
    found = []
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if name not in (".git", "__pycache__")
                      and not name.startswith("build")]
        found += [os.path.relpath(os.path.join(folder, name), root).replace(os.sep, "/")
                  for name in files]
    return found


class Tree:
    """Every text file under a root."""

    def __init__(self, root: str):
        self.root = root
        self.sources: dict[str, Source] = {}
        self.paths = set()
        for path in sorted(set(_listed(root))):
            full = os.path.join(root, path)
            if not os.path.isfile(full):
                continue
            self.paths.add(path)
            if os.path.getsize(full) > LARGEST:
                continue
            with open(full, "rb") as file:
                content = file.read()
            if b"\0" in content:
                continue
            try:
                self.sources[path] = Source(path, content.decode("utf-8"))
            except UnicodeDecodeError:
                continue

    def under(self, *folders: str):
        """Text files below the folders."""
        return [source for path, source in self.sources.items()
                if any(path.startswith(folder + "/") for folder in folders)]

    @cached_property
    def headers(self) -> list[Source]:
        return [source for source in self.under("include") if source.is_cpp]

    @cached_property
    def cpp(self) -> list[Source]:
        return [source for source in self.sources.values() if source.is_cpp]

    def resolve(self, source: Source, name: str) -> str | None:
        """The path in the tree that an #include of `name` in `source` means."""
        beside = os.path.normpath(os.path.join(os.path.dirname(source.path), name))
        for path in (beside.replace(os.sep, "/"), "include/" + name, "worker/" + name, name):
            if path in self.sources:
                return path
        return None

    @cached_property
    def included_by(self) -> dict[str, list[tuple[int, str]]]:
        """path -> (line, path) of the project files it includes."""
        return {source.path: [(line, path) for line, name, _ in source.includes
                              if (path := self.resolve(source, name))]
                for source in self.cpp}

    def visible_from(self, source: Source) -> list[Source]:
        """The file and all project files it includes, however far."""
        seen, waiting = [], [source.path]
        while waiting:
            path = waiting.pop()
            if path in seen:
                continue
            seen.append(path)
            waiting += [target for _, target in self.included_by.get(path, [])]
        return [self.sources[path] for path in seen]
