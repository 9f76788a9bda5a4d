# SPDX-License-Identifier: BSL-1.0
"""The blocks, functions and declarations of a C++ file, told by braces and what stands before them.

Not a parser: it knows the shapes that this project writes. A brace opens one of
  namespace, type, function, control (if, for, ...), lambda, requires, initialiser, plain.
"""

import re
from dataclasses import dataclass, field

_TOKEN = re.compile(r"[{}();\x01\x02\x03]|\b(?:public|protected|private)\s*:(?!:)")
_LABEL = re.compile(r"^(?:case\b(?:[^:]|::)*:(?!:)|default\s*:|\w+\s*:(?!:))\s*")
_CONTROL = re.compile(
    r"^(?:else\b|if\b|for\b|while\b|do\b|switch\b|try\b|catch\b|VELTRIX_TRY\b|VELTRIX_CATCH)")
_TYPE = re.compile(r"^(?:typedef\s+)?(?:friend\s+)?"
                   r"(class|struct|union|enum(?:\s+class|\s+struct)?)\b\s*(\w+)?")
_LAMBDA = re.compile(
    r"\[[^\[\]]*\]\s*(?:<[^{};]*>\s*)?(?:\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\)\s*)?"
    r"(?:(?:mutable|constexpr|noexcept(?:\([^()]*\))?)\s*)*(?:->[\w:<>,&*\s]+)?$")
_REQUIRES = re.compile(r"\brequires\s*(?:\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\)\s*)?$")
_NOT_A_NAME = {"requires", "noexcept", "decltype", "alignas", "explicit", "sizeof", "alignof",
               "static_assert", "if", "for", "while", "switch", "catch", "return", "throw",
               "__attribute__", "constexpr", "using", "typedef"}


@dataclass
class Block:
    kind: str
    head: str            # what stands before the brace, comments and directives blanked
    head_at: int         # offset of the first character of the head
    open_at: int
    close_at: int = -1   # -1: never closed (a branch of #if that another branch closes)
    name: str = ""
    keyword: str = ""    # class, struct, union, enum
    parent: "Block | None" = None
    access: str = "public"                  # of the declaration being read, in a type
    declared_access: str = "public"         # under which this block itself stands
    parens: int = 0
    head_from: int = 0

    def outer(self, *kinds: str) -> "Block | None":
        """The nearest enclosing block of one of the kinds."""
        block = self.parent
        while block is not None and block.kind not in kinds:
            block = block.parent
        return block


@dataclass
class Declaration:
    """A function, declared or defined, in a namespace or a type."""
    name: str
    head: str
    offset: int
    parameters: list[str]
    parent: Block
    access: str
    body: Block | None = None
    template: list[str] = field(default_factory=list)

    @property
    def is_repeated(self) -> bool:
        """A member defined outside its class: type::name(...) {."""
        return re.search(r"::\s*" + re.escape(self.name) + r"\s*\(", self.head) is not None

    @property
    def is_public(self) -> bool:
        """Callable by a user: no private type, no detail namespace around it."""
        if self.access != "public":
            return False
        block = self.parent
        while block is not None:
            if block.kind == "namespace" and re.search(r"\bdetail\b|_detail\b", block.name):
                return False
            if block.kind == "type" and block.declared_access != "public":
                return False
            if block.kind in ("function", "lambda"):
                return False
            block = block.parent
        return True


def split_arguments(text: str) -> list[str]:
    """Splits at the commas that stand outside every bracket."""
    parts, depth, start = [], 0, 0
    guarded = text.replace("->", "  ").replace("<=", "  ").replace(">=", "  ")
    for at, character in enumerate(guarded):
        if character in "(<[{":
            depth += 1
        elif character in ")>]}":
            depth -= 1
        elif character == "," and depth == 0:
            parts.append(text[start:at])
            start = at + 1
    parts.append(text[start:])
    return [" ".join(part.split()) for part in parts if part.strip()]


def strip_template(head: str) -> tuple[str, list[str], int]:
    """The head without its template <...> prefixes, their parameters, and how much was cut."""
    cut, parameters = 0, []
    while True:
        start = re.compile(r"\s*template\s*<").match(head, cut)
        if not start:
            return head[cut:], parameters, cut
        depth, at = 1, start.end()
        while at < len(head) and depth:
            if head[at] == "(":
                at = _close(head, at)
            elif head[at] == "<":
                depth += 1
            elif head[at] == ">" and head[at - 1] != "-":
                depth -= 1
            at += 1
        parameters += split_arguments(head[start.end():at - 1])
        cut = at


def _close(text: str, opening: int) -> int:
    depth = 0
    for at in range(opening, len(text)):
        depth += (text[at] == "(") - (text[at] == ")")
        if depth == 0:
            return at
    return len(text) - 1


def declarator(head: str) -> tuple[str, str, int] | None:
    """(name, parameters, offset of the end of the parameters) if the head declares a function."""
    at = angle = 0
    while at < len(head):
        character = head[at]
        if character == "{":
            return None
        if character == "(" and head[at + 1:at + 2] in ("*", "&"):
            return None  # a pointer to a function
        if character == "(":
            before = head[:at].rstrip()
            named = re.search(r"(operator\s*(?:\(\s*\)|\[\s*\]|[^\s\w(]+|\s\w[\w:<>&*\s]*)"
                              r"|~?\b\w+)$", before)
            if before.endswith("operator"):
                end = _close(head, head.index("(", at + 1)) if "(" in head[at + 1:] else at
                return "operator()", head[head.index("(", at + 1) + 1:end], end
            end = _close(head, at)
            if named and angle <= 0 and named[1] not in _NOT_A_NAME and not named[1].isdigit():
                return named[1], head[at + 1:end], end
            at = end
        elif character == "<" and not head[:at].rstrip().endswith("operator"):
            angle += 1
        elif character == ">" and head[at - 1] not in "-=" and "operator" not in head[at - 12:at]:
            angle -= 1
        elif (character == "=" and angle <= 0 and head[at + 1:at + 2] != "="
              and head[at - 1] not in "<>=!+-*/&|^" and "operator" not in head[:at]):
            return None
        at += 1
    return None


class Structure:
    def __init__(self, source):
        self.source = source
        self.blocks: list[Block] = []
        self.declarations: list[Declaration] = []
        self.members: list[tuple[int, str, Block, str]] = []  # offset, head, type, access
        self._text = self._without_directives(source)
        self._scan()

    @staticmethod
    def _without_directives(source) -> str:
        """The code with directives blanked; a mark is left where branches part and join."""
        parts, at = [], 0
        for offset, _, name, rest in source.directives:
            end = source.code.find("\n", offset + source.code[offset:].index(name) + len(name)
                                   + len(rest))
            end = len(source.code) if end < 0 else end
            mark = ("\x01" if name.startswith("if") else "\x02" if name.startswith("el")
                    else "\x03" if name == "endif" else " ")
            blank = "".join("\n" if each == "\n" else " " for each in source.code[offset:end])
            parts += [source.code[at:offset], mark, blank[1:]]
            at = end
        parts.append(source.code[at:])
        return "".join(parts)

    def _head(self, start: int, end: int) -> tuple[str, int]:
        text = self._text[start:end].translate({1: 32, 2: 32, 3: 32})
        stripped = text.lstrip()
        return stripped.rstrip(), start + len(text) - len(stripped)

    def _scan(self):
        top = Block("namespace", "", 0, 0, name="")
        stack, branches = [top], []
        for token in _TOKEN.finditer(self._text):
            mark, at, block = token.group(), token.start(), stack[-1]
            if mark == "(":
                block.parens += 1
            elif mark == ")":
                block.parens -= 1
            elif mark == "{":
                opened = self._open(block, at)
                self.blocks.append(opened)
                stack.append(opened)
            elif mark == "}":
                if len(stack) > 1:
                    stack.pop().close_at = at
                    if block.kind not in ("initialiser", "lambda", "requires"):
                        stack[-1].head_from = at + 1
            elif mark == ";":
                if block.parens <= 0:
                    self._declare(block, at)
                    block.head_from = at + 1
            elif mark == "\x01":
                branches.append((list(stack), block.parens))
            elif mark == "\x02":
                if branches:
                    stack = list(branches[-1][0])
                    stack[-1].parens = branches[-1][1]
            elif mark == "\x03":
                if branches:
                    branches.pop()
            elif block.kind == "type" and block.parens == 0:
                block.access = mark.rstrip(": \t\n")
                block.head_from = token.end()

    def _open(self, parent: Block, at: int) -> Block:
        head, head_at = self._head(parent.head_from, at)
        bare, template, _ = strip_template(head)
        bare = re.sub(r"\[\[[^\]]*\]\]|\balignas\s*\([^()]*(?:\([^()]*\)[^()]*)*\)|__extension__",
                      lambda cut: " " * len(cut.group()), bare).strip()
        block = Block("", head, head_at, at, parent=parent, declared_access=parent.access,
                      head_from=at + 1)
        in_code = parent.kind not in ("namespace", "type")
        block.kind = self._kind(parent, bare, in_code)
        if block.kind == "namespace":
            block.name = bare.partition("namespace")[2].strip()
        elif block.kind == "type":
            found = _TYPE.match(_LABEL.sub("", bare) if in_code else bare)
            block.keyword, block.name = found[1], found[2] or ""
            block.access = "private" if block.keyword == "class" else "public"
        elif block.kind == "function":
            found = declarator(bare)
            block.name = found[0]
            self.declarations.append(Declaration(
                found[0], bare, head_at, split_arguments(found[1]), parent, parent.access, block,
                template))
        return block

    @staticmethod
    def _kind(parent: Block, bare: str, in_code: bool) -> str:
        tail = bare[-600:]
        found = _LAMBDA.search(tail)
        if found:
            before = tail[:found.start()].rstrip()
            if not before or not re.search(r"[\w)\]]$", before) or before.endswith("return"):
                return "lambda"
        if _REQUIRES.search(tail):
            return "requires"
        if parent.parens > 0:
            return "initialiser"
        if re.match(r"(?:inline\s+)?namespace\b|extern\s*\"", bare):
            return "namespace"
        if in_code:
            bare = _LABEL.sub("", bare)
            if _CONTROL.match(bare):
                return "control"
            if _TYPE.match(bare) and "(" not in bare and "=" not in bare:
                return "type"
            # A block macro such as SECTION("...") { } ends like a statement.
            return "plain" if not bare or bare.endswith(")") or bare.isupper() else "initialiser"
        if _TYPE.match(bare) and not re.search(r"[(=]", re.sub(r"<[^{}]*>", "", bare)):
            return "type"
        function = declarator(bare)
        if not function:
            return "initialiser"
        after = bare[function[2] + 1:]
        if re.search(r"(?<!:):(?!:)", after) and bare[-1] not in ")}":
            return "initialiser"
        return "function"

    def _declare(self, parent: Block, at: int):
        if parent.kind not in ("namespace", "type"):
            return
        head, head_at = self._head(parent.head_from, at)
        bare, template, _ = strip_template(head)
        bare = re.sub(r"\[\[[^\]]*\]\]|\balignas\s*\([^()]*\)|__extension__", "", bare).strip()
        if not bare:
            return
        found = None
        if not re.match(r"(?:using|typedef|friend\s+(?:class|struct)|static_assert|concept)\b",
                        bare):
            found = declarator(bare)
        if found:
            self.declarations.append(Declaration(
                found[0], bare, head_at, split_arguments(found[1]), parent, parent.access, None,
                template))
        elif parent.kind == "type" and not parent.keyword.startswith("enum"):
            self.members.append((head_at, bare, parent, parent.access))

    @property
    def functions(self) -> list[Block]:
        return [block for block in self.blocks if block.kind == "function" and block.close_at >= 0]

    def around(self, offset: int) -> list[Block]:
        """The blocks around an offset, innermost first, up to the function or lambda."""
        found = []
        for block in reversed(self.blocks):
            if block.open_at < offset < block.close_at:
                found.append(block)
                if block.kind in ("function", "lambda"):
                    break
        return found
