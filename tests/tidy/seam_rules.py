# SPDX-License-Identifier: BSL-1.0
"""What may be said only in one place, or nowhere: the seam, the macros, the exceptions."""

import re

from .layer_rules import BASE, SEAM
from .rules import rule

CONFIG = "detail/config.hpp"
MACRO_FILES = (BASE + "version.hpp", BASE + CONFIG)

_STD_SYNC = re.compile(
    r"\bstd\s*::\s*((?:atomic|memory_order)\w*|(?:recursive_|shared_|timed_|shared_timed_)*mutex"
    r"|condition_variable(?:_any)?|j?thread|this_thread|(?:lock_guard|unique_lock|shared_lock"
    r"|scoped_lock|call_once|once_flag|latch|barrier|(?:counting|binary)_semaphore"
    r"|defer_lock|try_to_lock|adopt_lock)(?:_t)?)\b"
    r"|(?<![\w.>])(pthread_\w+|__atomic_\w+|__sync_\w+|sched_yield|_mm_pause"
    r"|__builtin_ia32_pause)\b")
_BANNED_NAMES = {
    "function": "use detail::unique_function of detail/task.hpp",
    "hardware_destructive_interference_size": "use detail::cache_line",
    "hardware_constructive_interference_size": "use detail::cache_line",
    "jthread": "libc++ 19 lacks it", "stop_token": "use veltrix::stop_token",
    "stop_source": "use veltrix::stop_source", "stop_callback": "use veltrix::stop_callback",
    "expected": "it is C++23", "format": "not every supported library has it",
    "move_only_function": "it is C++23",
}
_STD_BANNED = re.compile(r"\bstd\s*::\s*(" + "|".join(_BANNED_NAMES) + r")\b")


def _found(source, pattern, *words):
    """(line, match) of every match; a file without any of the words is not searched."""
    if not words or any(word in source.code for word in words):
        for found in re.finditer(pattern, source.code):
            yield source.line_of(found.start()), found


@rule("seam", "Atomics, locks, threads and waits are named through detail/sync.hpp only.")
def seam(tree):
    for source in tree.headers:
        if source.path == BASE + SEAM:
            continue
        for line, found in _found(source, _STD_SYNC, "std::", "pthread", "__", "_mm", "sched_"):
            yield (source.path, line, f"{found.group().replace(' ', '')} goes round the seam",
                   "use detail::sync")


@rule("std-name", "No std::function, std::stop_token, std::format and others that a supported "
                  "library lacks or that cost too much.")
def std_name(tree):
    for source in tree.headers:
        for line, found in _found(source, _STD_BANNED):
            if found[1].startswith("stop_") and source.path == BASE + "stop_token.hpp":
                continue
            yield source.path, line, f"std::{found[1]} is banned", _BANNED_NAMES[found[1]]


@rule("fence", "A stand-alone fence is allowed inside the seam only.")
def fence(tree):
    for source in tree.headers:
        if source.path == BASE + SEAM:
            continue
        for line, found in _found(source, r"\b(atomic_(?:thread|signal)_fence|__sync_synchronize"
                                          r"|_mm_[ml]?fence)\b"):
            yield (source.path, line, f"{found[1]} stands outside the seam",
                   "order the operations themselves; TSan does not model fences")


@rule("volatile", "No volatile: it orders nothing between threads.")
def volatile(tree):
    for source in tree.headers:
        for line, found in _found(source, r"\b(asm\s+|__asm__\s+)?volatile\b"):
            if not (found[1] and source.path == BASE + SEAM):
                yield source.path, line, "volatile", "use an atomic of detail::sync"


@rule("consume", "No memory_order_consume: no compiler implements it.")
def consume(tree):
    for source in tree.headers:
        for line, _ in _found(source, r"\bmemory_order\s*(?:_|::\s*)consume\b"
                                      r"|\bsync\s*::\s*consume\b"):
            yield source.path, line, "consume order", "use acquire"


@rule("thread-detach", "Every thread has an owner that joins it; none is detached.")
def detach(tree):
    for source in tree.headers + tree.under("tests", "bench", "fuzz", "worker"):
        if source.is_cpp:
            for line, found in _found(source, r"(\w*thread\w*)\s*(?:\([^()]*\)\s*)?\.\s*detach\s*\("
                                              r"|\bpthread_detach\b", "detach"):
                yield source.path, line, "a thread is detached", "keep it and join it"


@rule("macro-place", "Macros are defined in version.hpp and detail/config.hpp only.")
def macro_place(tree):
    for source in tree.headers:
        for _, line, name, rest in source.directives:
            if name in ("define", "undef") and source.path not in MACRO_FILES:
                yield (source.path, line, f"macro {rest.split('(')[0].split()[0]}",
                       "use a constant, a function or a template")


@rule("macro-prefix", "Macros of the headers are upper case and start with VELTRIX_.")
def macro_prefix(tree):
    for source in tree.headers:
        for _, line, name, rest in source.directives:
            macro = re.match(r"\s*(\w+)", rest)
            if name == "define" and macro and not re.fullmatch(r"VELTRIX_[A-Z0-9_]+", macro[1]):
                yield source.path, line, f"macro {macro[1]}", "name it VELTRIX_..."


@rule("ndebug", "Nothing depends on NDEBUG, and nothing uses assert().")
def ndebug(tree):
    for source in tree.cpp:
        for line, found in _found(source, r"\bNDEBUG\b|\bassert\s*\(", "NDEBUG", "assert"):
            yield (source.path, line, f"{found.group().rstrip('( ')} vanishes in some builds",
                   "use VELTRIX_ASSERT in headers, a check of the test framework in tests")
        for line, target, _ in source.includes:
            if target in ("cassert", "assert.h"):
                yield source.path, line, f"<{target}> is for assert()", "remove it"


def _conditional_lines(source, macro: str) -> set[int]:
    """Lines inside an #if that asks for the macro, up to its #else or #endif."""
    lines, stack = set(), []
    directives = {line: (name, rest) for _, line, name, rest in source.directives}
    for line in range(1, len(source.lines) + 1):
        name, rest = directives.get(line, ("", ""))
        if name in ("if", "ifdef"):
            stack.append(macro in rest)
        elif name == "ifndef":
            stack.append(False)
        elif name in ("elif", "else") and stack:
            stack[-1] = macro in rest
        elif name == "endif" and stack:
            stack.pop()
        if any(stack):
            lines.add(line)
    return lines


@rule("raw-throw", "Headers throw through detail::raise and catch through VELTRIX_TRY, so that "
                   "they build without exceptions.")
def raw_throw(tree):
    for source in tree.headers:
        if source.path == BASE + CONFIG:
            continue
        allowed = None
        for line, found in _found(source, r"\b(throw|try|catch)\b"):
            if allowed is None:
                allowed = _conditional_lines(source, "VELTRIX_HAS_EXCEPTIONS")
            if line not in allowed:
                yield (source.path, line, f"a plain {found[1]} breaks -fno-exceptions",
                       "use detail::raise, VELTRIX_TRY, VELTRIX_CATCH_ALL, VELTRIX_RETHROW, "
                       "or stand under #if VELTRIX_HAS_EXCEPTIONS")


@rule("layout-macro", "No data member depends on a mode: layouts are the same in every build.")
def layout_macro(tree):
    for source in tree.headers:
        modes = [macro for macro in ("VELTRIX_CHECKED", "VELTRIX_MODEL", "VELTRIX_TSAN")
                 if macro in source.code]
        if source.path == BASE + SEAM:
            modes = [macro for macro in modes if macro != "VELTRIX_MODEL"]  # replaces whole types
        for macro in modes:
            lines = _conditional_lines(source, macro)
            for offset, head, _, _ in source.structure.members:
                line = source.line_of(offset)
                if line in lines and not re.match(
                        r"(?:static|using|friend|typedef|template)\b", head):
                    yield (source.path, line, f"a data member under {macro}",
                           "keep the member in every mode")


_MODEL_PLACES = {SEAM, "version.hpp", "stop_token.hpp"}


@rule("model-place", "Only the seam, the version and the choice of a stop_token know the mode in "
                     "which tests explore interleavings.")
def model_place(tree):
    for source in tree.headers:
        if source.path in {BASE + place for place in _MODEL_PLACES}:
            continue
        for line, _ in _found(source, r"\bVELTRIX_MODEL\b"):
            yield (source.path, line, "VELTRIX_MODEL outside of the seam",
                   "put what differs behind a name of detail/sync.hpp")


@rule("await-suspend", "Nothing inlines await_suspend(): clang 14 moves writes to a "
                       "coroutine's frame past the point where another thread may own it.")
def await_suspend(tree):
    for source in tree.headers:
        for line, _ in _found(source, r"(?:void|bool|>)\s+await_suspend\("):
            if "[[gnu::noinline]]" not in source.lines[line - 1]:
                yield (source.path, line, "await_suspend() may be inlined",
                       "write [[gnu::noinline]] before it")
