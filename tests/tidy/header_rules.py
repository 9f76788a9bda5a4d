# SPDX-License-Identifier: BSL-1.0
"""The top of a file, and the names in it."""

import re

from .layer_rules import BASE, public_headers
from .rules import rule
from .structure import split_arguments, strip_template

KEYS = ("Use for", "Not for", "Threads", "Progress", "Callbacks", "Exceptions", "Lifetime", "Guide",
        "SPDX-License-Identifier")
BLOCK_LIMIT = 25
SPDX_WITHIN = 30  # lines
LICENCE = "SPDX-License-Identifier: BSL-1.0"
SOURCE_ENDINGS = (".hpp", ".cpp", ".h", ".cc", ".py", ".cmake", ".sh", ".proto")
SOURCE_NAMES = ("CMakeLists.txt", "conanfile.py", ".clang-format", ".clang-tidy")


def _block(source) -> list[str]:
    """The comment lines that open the file, without their markers."""
    lines = []
    for line in source.lines:
        if not line.startswith("//"):
            break
        lines.append(line[2:].strip())
    return lines


@rule("header-block", "A header opens with at most 25 comment lines: one sentence, then the fixed "
                      "keys in their order.")
def block(tree):
    for source in tree.headers:
        lines = _block(source)
        if not lines:
            yield source.path, 1, "no opening comment", "open with the sentence and the fixed keys"
            continue
        if len(lines) > BLOCK_LIMIT:
            yield (source.path, BLOCK_LIMIT + 1, f"the opening comment has {len(lines)} lines",
                   f"keep it within {BLOCK_LIMIT}")
        keyed = [(number, key) for number, text in enumerate(lines, 1)
                 for key in KEYS if text.startswith(key + ":")]
        sentence = " ".join(lines[:keyed[0][0] - 1] if keyed else lines)
        if not sentence.endswith("."):
            yield source.path, 1, "the opening comment starts without a sentence", "say what it is"
        expected = list(KEYS)
        for number, key in keyed:
            if key not in expected:
                yield source.path, number, f"'{key}:' is repeated or out of order", \
                    "order: " + ", ".join(KEYS)
                continue
            for skipped in expected[:expected.index(key)]:
                yield source.path, number, f"'{skipped}:' is missing before '{key}:'", \
                    "order: " + ", ".join(KEYS)
            expected = expected[expected.index(key) + 1:]
            if not lines[number - 1][len(key) + 1:].strip():
                yield source.path, number, f"'{key}:' says nothing", "say it, or 'none.'"
        for skipped in expected:
            yield source.path, len(lines), f"'{skipped}:' is missing", "order: " + ", ".join(KEYS)


@rule("header-guide", "The Guide key of a header names a page that exists.")
def guide(tree):
    for source in tree.headers:
        for number, text in enumerate(_block(source), 1):
            if text.startswith("Guide:"):
                page = text[len("Guide:"):].strip().split("#")[0]
                if not re.fullmatch(r"docs/[\w/]+\.md", page):
                    yield source.path, number, f"'{page}' is no page", "write docs/<name>.md"
                elif page not in tree.paths:
                    yield source.path, number, f"{page} does not exist", "write the page"


@rule("spdx", "Every source file names its licence near the top.")
def spdx(tree):
    for source in tree.sources.values():
        if source.name.endswith(SOURCE_ENDINGS) or source.name in SOURCE_NAMES:
            if not any(LICENCE in line for line in source.lines[:SPDX_WITHIN]):
                yield source.path, 1, "no licence named", f"add '{LICENCE}'"


@rule("pragma-once", "Every header has #pragma once, before any code.")
def pragma_once(tree):
    for source in tree.cpp:
        if not source.path.endswith((".hpp", ".h")):
            continue
        first = next((line for line, code in enumerate(source.code_lines, 1) if code.strip()), 1)
        if source.code_at(first) != "#pragma once":
            yield source.path, first, "code before #pragma once", "put #pragma once first"


@rule("abi-namespace", "Everything in veltrix stands in its inline namespace VELTRIX_ABI.")
def abi_namespace(tree):
    for source in tree.headers:
        blocks = source.structure.blocks
        for block in blocks:
            if block.kind != "namespace" or not re.match(r"veltrix\b", block.name) \
                    or block.outer("namespace").open_at:
                continue
            inside = [each for each in blocks if each.parent is block]
            abi = [each for each in inside if each.name == "VELTRIX_ABI"
                   and each.head.startswith("inline")]
            if block.name != "veltrix" or len(abi) != 1 or len(inside) != 1:
                yield (source.path, source.line_of(block.head_at),
                       "a namespace veltrix without its inline namespace",
                       "write namespace veltrix { inline namespace VELTRIX_ABI {")


def _template_heads(source):
    """(offset, length, parameters) of every template <...>."""
    for found in re.finditer(r"\btemplate\s*<", source.code):
        _, parameters, cut = strip_template(source.code[found.start():found.start() + 2000])
        yield found.start(), cut, parameters


@rule("name-template", "Template parameters are CamelCase.")
def name_template(tree):
    for source in tree.headers:
        for offset, _, parameters in _template_heads(source):
            line = source.line_of(offset)
            for parameter in parameters:
                named = re.fullmatch(r".*[\s.>*&](\w+)", parameter.split("=")[0].strip())
                if named and not re.fullmatch(r"[A-Z][A-Za-z0-9]*", named[1]) \
                        and named[1] not in ("class", "typename", "auto"):
                    yield source.path, line, f"template parameter {named[1]}", "use CamelCase"


@rule("name-type", "Types, concepts and aliases are snake_case.")
def name_type(tree):
    for source in tree.headers:
        code = source.code
        for offset, length, _ in _template_heads(source):
            code = code[:offset] + ";" * length + code[offset + length:]
        for found in re.finditer(
                r"(?:^|[;{}>\]]|\bfriend\b)\s*"
                r"(?:(class|struct|union|enum(?:\s+class|\s+struct)?|concept)\s+"
                r"(?:alignas\s*\([^()]*\)\s*|\[\[[^\]]*\]\]\s*)*(\w+)\b(?!\s*[,>])"
                r"|using\s+(\w+)\s*=)", code, re.MULTILINE):
            name = found[2] or found[3]
            if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
                yield (source.path, source.line_of(found.start(2 if found[2] else 3)),
                       f"type {name}", "use snake_case")


@rule("name-function", "Functions are snake_case.")
def name_function(tree):
    for source in tree.headers:
        for one in source.structure.declarations:
            name = one.name.lstrip("~")
            if not name.startswith("operator") and not re.fullmatch(r"[a-z_][a-z0-9_]*", name) \
                    and not name.startswith("VELTRIX_"):
                yield (source.path, source.line_of(one.offset), f"function {name}",
                       "use snake_case")


@rule("name-member", "Private data members end with an underscore.")
def name_member(tree):
    for source in tree.headers:
        for offset, head, block, access in source.structure.members:
            if block.keyword != "class" or access == "public" or re.match(
                    r"(?:static|using|friend|typedef|enum|template|struct|class)\b", head):
                continue
            named = re.match(r"[^={]*?\b(\w+)\s*(?:\[[^\]]*\]\s*)*(?:[={].*)?$", head, re.DOTALL)
            if named and not named[1].endswith("_"):
                yield (source.path, source.line_of(offset), f"member {named[1]}",
                       f"name it {named[1]}_")


def _public_functions(tree):
    for path in public_headers(tree):
        source = tree.sources[path]
        for one in source.structure.declarations:
            if one.is_public and not one.is_repeated \
                    and not one.name.startswith(("operator", "~")):
                yield source, one


@rule("bool-parameter", "No public function takes a bool; an enumeration says what true means.")
def bool_parameter(tree):
    for source, one in _public_functions(tree):
        for parameter in one.parameters:
            if re.match(r"(?:const\s+)?bool\b(?!\s*\()", parameter):
                yield (source.path, source.line_of(one.offset),
                       f"{one.name}() takes '{parameter}'", "take an enumeration or options")


@rule("same-type-arguments", "Two arguments of one type become an options struct.")
def same_type_arguments(tree):
    for source, one in _public_functions(tree):
        types = {}
        for parameter in one.parameters:
            named = re.fullmatch(r"(.*[\s&*>])(\w+)", parameter.split("=")[0].strip())
            if not named or "..." in parameter or named[2] in ("first", "last", "begin", "end"):
                continue
            kind = named[1].strip()
            if kind in types and one.name != "swap":
                yield (source.path, source.line_of(one.offset),
                       f"{one.name}() takes {types[kind]} and {named[2]}, both {kind}",
                       "take an options struct")
            types[kind] = named[2]


@rule("callback-last", "A callback is the last parameter.")
def callback_last(tree):
    pattern = (r"(?:Callback|Callable|Function|Predicate|Factory|Loader|Handler|Visitor|Work|Body"
               r"|F|Fn|detail::task)\s*(?:&&)?\s+\w+")
    for source, one in _public_functions(tree):
        for at, parameter in enumerate(one.parameters):
            rest = one.parameters[at + 1:]
            if re.fullmatch(pattern, parameter) and rest and "..." not in rest[0] \
                    and not all(re.fullmatch(pattern, each) for each in rest):
                yield (source.path, source.line_of(one.offset),
                       f"{one.name}() takes '{parameter}' before '{rest[0]}'",
                       "put the callback last")


@rule("result-nodiscard", "A public type called ..._result is [[nodiscard]]: it may say that "
                          "nothing was done.")
def result_nodiscard(tree):
    for source in tree.headers:
        for block in source.structure.blocks:
            if block.kind == "type" and block.name.endswith("_result") \
                    and "[[nodiscard" not in block.head \
                    and not re.search(r"\bdetail\b", _qualified(block)):
                yield (source.path, source.line_of(block.head_at), f"{block.name} may be ignored",
                       f"write {block.keyword} [[nodiscard]] {block.name}")


@rule("type-docstring", "Every public type and free function has a /// sentence, or its values "
                        "have.")
def type_docstring(tree):
    for path in public_headers(tree):
        source = tree.sources[path]
        named = {}
        for block in source.structure.blocks:
            if block.kind == "type" and block.parent.kind == "namespace" and block.name:
                inside = source.text[block.open_at:max(block.open_at, block.close_at)]
                if "///<" not in inside or block.keyword == "class":  # each value tells itself
                    named[block.head_at] = (block.keyword + " " + block.name, block.parent)
        for one in source.structure.declarations:
            if one.parent.kind == "namespace" and one.is_public and one.body \
                    and not one.is_repeated and not one.name.startswith("operator"):
                named[one.offset] = (one.name + "()", one.parent)
        documented = {name for offset, (name, _) in named.items()
                      if _has_docstring(source, source.line_of(offset))}
        for offset, (name, parent) in named.items():
            line = source.line_of(offset)
            if name in documented or re.match(r"template\s*<\s*>", source.code[offset:]) \
                    or re.search(r"\bdetail\b", _qualified(parent)) \
                    or re.match(r"std\b", parent.name):
                continue
            yield source.path, line, f"{name} has no docstring", "say in a /// line what it is"


def _qualified(block) -> str:
    return "" if block is None else _qualified(block.parent) + "::" + block.name


def _has_docstring(source, line: int) -> bool:
    above = line - 1
    while source.comment_only(above):
        if source.lines[above - 1].lstrip().startswith(("///", "/**")):
            return True
        above -= 1
    return False
