# SPDX-License-Identifier: BSL-1.0
"""Memory orders and their comments, mutexes and what they guard, waits and who wakes them.

    // (3) release-store; pairs with acquire-load (7). Publishes: slot.value before slot.full.

A comment at an operation begins with its number, the order and the kind of the operation. It names
its partners by number, and each partner names it; a partner in another file is `other.hpp (7)`.
"""

import re
from functools import lru_cache
from typing import NamedTuple

from .rules import rule

_ORDERS = "relaxed|acquire|release|acq_rel|seq_cst"
_ARGUMENT = re.compile(
    rf"[(,]\s*((?:\w+\s*::\s*)*(?:memory_order(?:_|\s*::\s*))?({_ORDERS}))\s*(?=[,)])")
_OPERATION = re.compile(
    r"(?:\.|->)\s*(load|store|exchange|fetch_\w+|compare_exchange_(?:weak|strong)|test_and_set"
    r"|test|clear|wait)\s*\(")
_NUMBERED = re.compile(rf"\((\d+)\)\s+({_ORDERS})-([a-z_]+)")
_REFERENCE = re.compile(rf"(?:({_ORDERS})-([a-z_]+)\s+)?(?:of\s+|in\s+)?(?:`?([\w/]+\.hpp)`?:?\s+)?"
                        r"\((\d+)\)")
_RMW = {"rmw"}
KINDS = {
    "load": {"load"}, "store": {"store"}, "exchange": {"exchange"} | _RMW, "test": {"load", "test"},
    "clear": {"store", "clear"}, "wait": {"wait", "load"}, "test_and_set": {"exchange"} | _RMW,
    "compare_exchange_weak": {"cas"} | _RMW, "compare_exchange_strong": {"cas"} | _RMW,
    "fetch_add": {"add", "increment"} | _RMW, "fetch_sub": {"sub", "decrement"} | _RMW,
    "fetch_or": {"or"} | _RMW, "fetch_and": {"and"} | _RMW, "fetch_xor": {"xor"} | _RMW,
    "atomic_thread_fence": {"fence"}, "atomic_signal_fence": {"fence"},
}
_ALWAYS_ATOMIC = re.compile(r"fetch_\w+|compare_exchange_\w+|test_and_set")


class Operation(NamedTuple):
    """One call with at least one constant memory order among its arguments."""
    line: int
    name: str
    receiver: str
    orders: tuple[str, ...]

    @property
    def order(self) -> str:
        return self.orders[0]

    @property
    def kinds(self) -> set[str]:
        return KINDS.get(self.name, set())


class Numbered(NamedTuple):
    """A numbered comment."""
    line: int
    number: int
    order: str
    kind: str
    text: str

    @property
    def references(self) -> list[tuple[str, str, str, int]]:
        """(order, kind, other file, number) of each partner it names."""
        said = re.search(r"pairs with\b(.*?)(?:\.(?:\s|$)|$)", self.text, re.DOTALL)
        if not said:
            return []
        itself = [("", "", "", self.number)] if re.search(r"\bitself\b", said[1]) else []
        return itself + [(each[1] or "", each[2] or "", each[3] or "", int(each[4]))
                         for each in _REFERENCE.finditer(said[1])]

    def __str__(self):
        return f"({self.number}) {self.order}-{self.kind}"


def _opening(code: str, at: int) -> int:
    """Offset of the bracket that is open at `at`, or -1."""
    depth = 0
    while at >= 0:
        if code[at] in ")]}":
            depth += 1
        elif code[at] in "([{":
            if depth == 0:
                return at
            depth -= 1
        at -= 1
    return -1


def _receiver(code: str, end: int) -> str:
    """The last name before the `.` or `->` that ends at `end`: slots_[i].word. -> word.

    What a cache_padded holds is called by the name of the whole: head_.value. -> head_.
    """
    at = end - 1
    while at >= 0:
        while at >= 0 and code[at].isspace():
            at -= 1
        if code[at] in ")]":
            at = _opening(code, at - 1) - 1
            continue
        before = code[max(0, at - 80):at + 1]
        padded = re.search(r"(?:\.|->)\s*value$", before)
        if padded:
            at -= len(before) - padded.start()
            continue
        named = re.search(r"(\w+)\s*(?:<[^<>;]*>)?$", before)
        return named[1] if named else ""
    return ""


def _before(code: str, at: int) -> int:
    """Offset just behind the last character before `at` that is not white."""
    while at > 0 and code[at - 1].isspace():
        at -= 1
    return at


@lru_cache(maxsize=None)
def operations(source) -> list[Operation]:
    code, calls = source.code, {}
    for found in _ARGUMENT.finditer(code):
        if "::" not in found[1] and "memory_order" not in found[1]:
            continue
        calls.setdefault(_opening(code, found.start(1) - 1), []).append(found[2])
    made = []
    for opening, orders in calls.items():
        callee = re.search(r"(\w+)\s*(?:<[^<>;]*>)?\s*$", code[max(0, opening - 120):opening])
        if opening < 0 or not callee or callee[1] in ("switch", "if", "case"):
            continue
        start = max(0, opening - 120) + callee.start()
        end = _before(code, start)
        access = re.search(r"(?:\.|->)$", code[max(0, end - 2):end])
        receiver = _receiver(code, end - len(access[0])) if access else ""
        made.append(Operation(source.line_of(start), callee[1], receiver, tuple(orders)))
    return sorted(made)


@lru_cache(maxsize=None)
def numbered(source) -> list[Numbered]:
    """Every numbered comment, with its text up to the next number or the end of the comment."""
    found, run = [], []
    for line in sorted(source.comments):
        connected = run and line == run[-1] + 1 and source.comment_only(line) and (
            source.comment_only(run[-1]) or source._trailing_continues(line))
        if not connected and run:
            found += _split(source, run)
            run = []
        run.append(line)
    return found + (_split(source, run) if run else [])


def _split(source, run: list[int]) -> list[Numbered]:
    parts = []
    for line in run:
        start = _NUMBERED.match(source.comments[line])
        if start:
            parts.append([line, int(start[1]), start[2], start[3], source.comments[line]])
        elif parts:
            parts[-1][4] += " " + source.comments[line]
    return [Numbered(*part) for part in parts]


_DECLARED_AFTER = re.compile(
    r"(?:[\s>\]]|,\s*[\w:]+\s*>|\[\s*\])*(?:&\s*)?([A-Za-z_]\w*)\s*(?:[;={\[,)(])")


@lru_cache(maxsize=None)
def declared_atomics(source) -> dict[str, list[int]]:
    """name -> lines of what is declared here as an atomic, or as an array or padding of atomics."""
    code, declared = source.code, {}
    aliases = re.findall(r"\busing\s+(\w+)\s*=[^;<]*\batomic(?:<|_flag\b)", code)
    named_types = "".join(rf"|\b{alias}\b" for alias in aliases)
    for found in re.finditer(rf"\batomic(?:_ref)?\s*<|\batomic_flag\b{named_types}", code):
        if re.search(r"(?:using\s+\w+\s*=|template\s*<[^;{}]*>\s*using)[^;]*$",
                     code[max(0, found.start() - 80):found.start()]):
            continue
        at = found.end()
        depth = 1 if found.group().endswith("<") else 0
        while depth and at < len(code):
            depth += (code[at] == "<") - (code[at] == ">")
            at += 1
        named = _DECLARED_AFTER.match(code, at)
        if named:
            declared.setdefault(named[1], []).append(source.line_of(found.start()))
    return declared


def _atomics_seen(tree, source) -> dict[str, list[tuple]]:
    """name -> (file, line) of atomics declared in the file or in what it includes."""
    seen = {}
    for other in tree.visible_from(source):
        for name, lines in declared_atomics(other).items():
            seen.setdefault(name, []).extend((other, line) for line in lines)
    return seen


def _meant(source, name: str, known) -> str:
    """The atomic that a local reference stands for: `for (auto& slot : slots_)` means slots_."""
    if not name or name in known:
        return name
    bound = re.search(rf"\bauto\s*[&*]+\s*{name}\s*(=|:(?!:))", source.code)
    if not bound:
        return name
    if bound[1] == ":":
        end = source.closing(_opening(source.code, bound.start()))
    else:
        end = source.code.find(";", bound.end())
    return _receiver(source.code, end)


@rule("atomic-order", "Every atomic operation names its memory order; a compare-exchange both, "
                      "unless relaxed is all.")
def atomic_order(tree):
    for source in tree.headers:
        known = None
        for found in _OPERATION.finditer(source.code):
            opening = found.end() - 1
            arguments = source.code[opening:source.closing(opening) + 1]
            named = len(re.findall(
                rf"\bmemory_order|\bsync\s*::\s*(?:{_ORDERS}|consume)\b"
                r"|\b(?:order|success|failure)\b", arguments))
            alone = not found[1].startswith("compare_exchange") or re.search(
                r"\w::\s*relaxed\s*\)$|memory_order_relaxed\s*\)$", arguments)
            if named >= (1 if alone else 2):
                continue
            if not _ALWAYS_ATOMIC.fullmatch(found[1]):
                known = _atomics_seen(tree, source) if known is None else known
                if _meant(source, _receiver(source.code, found.start()), known) not in known:
                    continue
            yield (source.path, source.line_of(found.start(1)),
                   f"{found[1]}() leaves an order to the default", "name the memory order")


@rule("atomic-operator", "Atomics are used by named operations, never by ++, --, = or +=.")
def atomic_operator(tree):
    for source in tree.headers:
        for name, lines in declared_atomics(source).items():
            plain = re.findall(rf"[\w>&*\]]\s+[&*]*{name}\s*(?:[;={{,)]|\[)", source.code)
            if len(plain) > len(lines) or name in ("value",):
                continue  # the name also stands for something that is not atomic
            for found in re.finditer(
                    rf"(?:\+\+|--)\s*(?:\w+(?:\.|->))*{name}\b(?:\.value\b)?(?!\s*[.\[(]|->)"
                    rf"|\b{name}\s*(?:\[[^\]]*\]\s*)?(?:\.value\b\s*)?"
                    r"(?:\+\+|--|[-+|&^]=|=(?!=))", source.code):
                line = source.line_of(found.start())
                if line not in lines:
                    yield (source.path, line, f"an operator on the atomic {name}",
                           "use load, store or fetch_... with an order")


def _site_comments(source, operation: Operation) -> list[Numbered]:
    lines = set(source.comment_lines_about(operation.line))
    return [each for each in numbered(source) if each.line in lines]


def _ordered(source) -> list[Operation]:
    """Operations that need a number: some order of theirs is not relaxed."""
    return [each for each in operations(source) if set(each.orders) - {"relaxed"}]


def _strongest(operation: Operation) -> set[str]:
    """The orders by which its comment may call it: the success order, or the failure's if that is
    all there is."""
    return {operation.order} if operation.order != "relaxed" else set(operation.orders[1:])


@rule("memory-order-comment", "Every order but relaxed has a numbered comment whose verb matches "
                              "the code: '(3) release-store; pairs with acquire-load (7). ...'.")
def memory_order_comment(tree):
    for source in tree.headers:
        claimed = set()
        for operation in _ordered(source):
            comments = [each for each in _site_comments(source, operation) if each not in claimed]
            fitting = [each for each in comments if each.order in _strongest(operation)
                       and (not operation.kinds or each.kind in operation.kinds)]
            kind = "rmw" if "rmw" in operation.kinds else min(operation.kinds, default="...")
            if fitting:
                claimed.add(fitting[0])
                weaker = set(operation.orders[1:]) - {"relaxed", operation.order}
                if "acquire" in weaker and operation.order in ("release", "relaxed") \
                        and "acquire" not in fitting[0].text.split(";", 1)[-1]:
                    yield (source.path, operation.line,
                           f"{fitting[0]} says nothing of the acquire on failure",
                           "say what the failed exchange acquires")
            elif comments:
                yield (source.path, operation.line,
                       f"the comment says {comments[0].order}-{comments[0].kind}, the code "
                       f"{operation.order}-{kind}", "make them agree")
                claimed.add(comments[0])
            else:
                yield (source.path, operation.line,
                       f"{operation.name}() is {operation.order} without a numbered comment",
                       f"write '// (n) {operation.order}-{kind}; pairs with ... (m). ...'")
        for each in numbered(source):
            if each not in claimed and each.order != "relaxed":
                yield (source.path, each.line, f"{each} explains no operation of its statement",
                       "put the comment at its operation, or remove it")


@rule("memory-order-pair", "Numbers are unique in a file, and partners name each other rightly.")
def memory_order_pair(tree):
    for source in tree.headers:
        own = {}
        for each in numbered(source):
            if each.number in own:
                yield (source.path, each.line, f"number ({each.number}) is taken by line "
                       f"{own[each.number].line}", "give every operation its own number")
            else:
                own[each.number] = each
        for each in numbered(source):
            if each.order == "relaxed":
                continue
            if not each.references:
                yield source.path, each.line, f"{each} pairs with nothing", "name its partner"
            for order, kind, file, number in each.references:
                other = _file_named(tree, source, file)
                partner = None if other is None else next(
                    (it for it in numbered(other) if it.number == number), None)
                if partner is None:
                    yield (source.path, each.line,
                           f"{each} names {file + ' ' if file else ''}({number}), which is nowhere",
                           "name an operation that exists")
                    continue
                if order and (order, kind) != (partner.order, partner.kind):
                    yield (source.path, each.line,
                           f"{each} calls ({number}) {order}-{kind}, which is "
                           f"{partner.order}-{partner.kind}", "use the partner's verb")
                back = [(_file_named(tree, other, its_file), its_number)
                        for _, _, its_file, its_number in partner.references]
                if (source, each.number) not in back:
                    yield (source.path, each.line, f"{each} names ({number}), which does not name "
                           f"({each.number})", "make the pair reciprocal")


def _file_named(tree, source, name: str):
    """The header a reference means: the same file, or the one whose path ends so."""
    if not name:
        return source
    return next((header for header in tree.headers
                 if header.path == name or header.path.endswith("/" + name)), None)


@rule("memory-order-seq-cst", "A seq_cst operation says which interleaving it forbids.")
def seq_cst(tree):
    for source in tree.headers:
        for each in numbered(source):
            if each.order == "seq_cst" and not re.search(r"\bforbid", each.text, re.IGNORECASE):
                yield (source.path, each.line, f"{each} does not say what it forbids",
                       "add 'Forbids: <the interleaving>'")


def _says_relaxed(source, line: int) -> bool:
    told = source.told_about(line)
    while not re.search(r"\brelaxed\s*:", told):
        # One comment may stand over a group of atomics.
        first, _ = source.statement(line)
        if source.comment_only(first - 1) or "atomic" not in source.code_at(first - 1):
            return False
        line = first - 1
        told = " ".join(source.comments[each] for each in source.comment_lines_about(line)
                        if source.comment_only(each))
    return True


def _declarations(source, name: str) -> list[tuple]:
    """Where the file declares a variable of that name, of whatever type."""
    return [(source, source.line_of(found.end() - 1)) for found in
            re.finditer(rf"[\w>&*]\s+{name}\s*[;{{=]", source.code)] if name else []


@rule("relaxed-reason", "A relaxed order gives its reason at the atomic's declaration or at the "
                        "use: '// relaxed: statistics only'.")
def relaxed_reason(tree):
    for source in tree.headers:
        seen = None
        for operation in operations(source):
            if set(operation.orders) != {"relaxed"} or _says_relaxed(source, operation.line):
                continue
            seen = _atomics_seen(tree, source) if seen is None else seen
            name = _meant(source, operation.receiver, seen)
            declared = seen.get(name, []) or _declarations(source, name)
            if not any(_says_relaxed(file, line) for file, line in declared):
                yield (source.path, operation.line,
                       f"{operation.receiver or operation.name}: relaxed without a reason",
                       "write '// relaxed: why' at the declaration or here")


@rule("mutex-guards", "The declaration of a mutex says what it guards.")
def mutex_guards(tree):
    for source in tree.headers:
        for found in re.finditer(
                r"\b(?:\w+_)?mutex\b(?!\s*::)[\s>]*(?:,\s*[\w:]+\s*>|\[\s*\]\s*>)*"
                r"\s+(\w+)\s*(?:\{[^{}]*\}|\[[^\]]*\]\s*)?;", source.code):
            line = source.line_of(found.start(1))
            first, _ = source.statement(line)
            before = " ".join(source.code_lines[first - 1:line])
            if re.search(r"\b\w*lock(?:_guard)?\s*<|\busing\b|\btypename\b", before):
                continue
            if not re.search(r"\bguard", source.told_about(line), re.IGNORECASE):
                yield (source.path, line, f"mutex {found[1]} does not say what it guards",
                       "write '// guards ...' at its declaration")


def _waits(tree, source):
    """Offsets of the calls that really wait: they pass a lock, or wait on a condition or an atomic.
    A call that hands over to another wait of the project is not one."""
    conditions = None
    for found in re.finditer(r"\b(wait(?:_for|_until)?)\s*\(", source.code):
        at = _before(source.code, found.start())
        before = source.code[max(0, at - 6):at]
        if re.search(r"[\w>&*]$", before) and not before.endswith(("->", "return")):
            continue  # a declaration
        arguments = source.code[found.end():source.closing(found.end() - 1)]
        if not re.match(r"\s*(?:\w*_)?lock_?\s*(?:,|$)", arguments):
            if conditions is None:
                conditions = set(_atomics_seen(tree, source))
                for other in tree.visible_from(source):
                    conditions |= set(re.findall(r"\bcondition_variable\w*[&\s]+(\w+)", other.code))
            access = re.search(r"(?:\.|->)$", before)
            if not access or _receiver(source.code, at - len(access[0])) not in conditions:
                continue
        yield found.start(1), found[1]


@rule("wait-woken", "Every wait says who wakes it: '// woken by push(), after it wrote count_'.")
def wait_woken(tree):
    for source in tree.headers + [each for each in tree.under("worker") if each.is_cpp]:
        for offset, name in _waits(tree, source):
            line = source.line_of(offset)
            _, last = source.statement(line)  # of `if (c.wait_until(...)) {`, say; look inside, too
            told = [source.told_about(line), source.comments.get(last + 1, "")]
            told += [source.told_about(source.line_of(block.head_at))  # one comment for the loop
                     for block in source.structure.around(offset) if block.kind == "control"]
            if not re.search(r"\bwoken\b", " ".join(told), re.IGNORECASE):
                yield (source.path, line, f"{name}() does not say who wakes it",
                       "write '// woken by ..., after ...'")


@rule("try-waits", "What is called try_... never waits.")
def try_waits(tree):
    for source in tree.headers:
        for offset, name in _waits(tree, source):
            around = source.structure.around(offset)
            if around and around[-1].name.startswith("try_"):
                yield (source.path, source.line_of(offset), f"{around[-1].name}() calls {name}()",
                       "answer at once, or take the try_ away")
