# SPDX-License-Identifier: BSL-1.0
"""The tests: their names, their bodies, and which header needs which files."""

import re
from functools import lru_cache

from .layer_rules import BASE, public_headers
from .rules import rule

TEST, STRESS, PAGE, EXAMPLE = "test", "stress test", "page", "example"
FILES = {TEST: "tests/{}_test.cpp", STRESS: "tests/{}_stress_test.cpp", PAGE: "docs/{}.md",
         EXAMPLE: "docs/examples/{}_example.cpp"}
# What stands beside each public header. Structures that threads share have a stress test.
VALUE = (TEST, PAGE, EXAMPLE)
STRUCTURE = (TEST, STRESS, PAGE, EXAMPLE)
PRIMITIVES = {
    "version": (TEST,), "veltrix": (),
    "clock": VALUE, "stop_token": VALUE, "executor": VALUE, "backoff": VALUE, "retry": VALUE,
    "reclaim": STRUCTURE, "snapshot_cell": STRUCTURE, "concurrent_map": STRUCTURE,
    "bounded_queue": STRUCTURE, "elastic_pool": STRUCTURE, "resilience": STRUCTURE,
    "keyed_executor": STRUCTURE, "loading_cache": STRUCTURE, "hedge": STRUCTURE,
    "endpoint_set": STRUCTURE, "connection_pool": STRUCTURE, "lease": STRUCTURE,
    "pool_sizer": VALUE, "readiness": VALUE, "two_phase_loader": VALUE,
}

_CASE = re.compile(
    r"^[ \t]*((?:TEMPLATE_(?:LIST_)?(?:PRODUCT_)?)?TEST_CASE(?:_METHOD|_SIG)?|SCENARIO)\s*\(",
    re.MULTILINE)
_CALL = re.compile(r"\b(\w+)\s*(?=[<({])")
_ASSERTION = re.compile(
    r"\b(?:(?:CHECK|REQUIRE)(?:_\w+)?|CHECKED_(?:IF|ELSE)|FAIL(?:_CHECK)?|STATIC_(?:REQUIRE|CHECK)"
    r"(?:_FALSE)?|static_assert)\s*\(")
_SLEEP = re.compile(r"(?:\bthis_thread\s*::\s*|\bsync\s*::\s*|(?<![\w.:>])(?:::\s*)?)"
                    r"(sleep_for|sleep_until|usleep|nanosleep|clock_nanosleep|sleep)\s*\(")


@lru_cache(maxsize=None)
def cases(source) -> list[tuple[int, str, int, int]]:
    """(line, name, start and end of the body) of every test case in the file."""
    found = []
    for one in _CASE.finditer(source.code):
        opening = one.end() - 1
        closing = source.closing(opening)
        name, _ = source.literal_after(opening)
        body = source.code.find("{", closing)
        if body >= 0:
            found.append((source.line_of(one.start(1)), name, body, source.closing(body)))
    return found


def _tests(tree):
    return [source for source in tree.under("tests") if source.is_cpp]


def _headers_under_test(tree, source):
    """The headers a test file is named after: elastic_pool_resize_test is of elastic_pool, and of
    detail/elastic_pool_resize.hpp if that exists. None for suites such as contracts_test."""
    words = source.stem.removesuffix("_test").split("_")
    found = []
    for end in range(len(words), 0, -1):
        stem = "_".join(words[:end])
        for path in (f"{BASE}{stem}.hpp", f"{BASE}detail/{stem}.hpp",
                     f"{BASE}detail/{stem.removeprefix('detail_')}.hpp",
                     f"{BASE}worker/{stem.removeprefix('worker_')}.hpp"):
            if path in tree.sources and tree.sources[path] not in found:
                found.append(tree.sources[path])
    return found


@lru_cache(maxsize=None)
def _declared_names(tree, header) -> frozenset[str]:
    """Names of the types and functions of a header and its detail headers."""
    names = {header.stem}
    for source in [header] + [tree.sources[path] for _, path in tree.included_by[header.path]
                              if "/detail/" in path]:
        names |= set(re.findall(
            r"\b(?:class|struct|concept|using|enum(?:\s+class)?)\s+(?:\[\[\w+\]\]\s*)?(\w+)",
            source.code))
        names |= {one.name for one in source.structure.declarations}
        names |= set(re.findall(r"\bconstexpr\s[\w:<>\s]*?(\w+)\s*[={]", source.code))
    return frozenset(names)


@rule("test-name", "A test's name is a sentence that starts with the type under test, once in the "
                   "suite.")
def test_name(tree):
    seen = {}
    for source in _tests(tree):
        for line, name, _, _ in cases(source):
            words = name.split()
            if len(words) < 3:
                yield source.path, line, f"'{name}' is no sentence", "say what holds, in words"
                continue
            if any(re.fullmatch(r"tests?_?\d*|case\d+", word, re.IGNORECASE) for word in words[:1]):
                yield source.path, line, f"'{name}' has a number for a name", "say what holds"
                continue
            if name in seen:
                yield (source.path, line, f"'{name}' is also in {seen[name][0]}:{seen[name][1]}",
                       "name each test once")
                continue
            seen[name] = (source.path, line)
            headers = _headers_under_test(tree, source)
            used = [tree.sources[path] for _, path in tree.included_by[source.path]
                    if path.startswith(("include/", "worker/"))]
            subject = re.split(r"[^\w]", words[0].removeprefix("veltrix::"))[0]
            if headers and not any(subject in _declared_names(tree, each)
                                   for each in headers + used):
                yield (source.path, line, f"'{name}' does not start with what it tests",
                       f"start with {headers[-1].stem} or a name of {headers[-1].name}")


def _asserting_helpers(sources) -> set[str]:
    """Names of functions and lambdas of the tests whose body holds an assertion, however deep."""
    bodies = {}
    for source in sources:
        for block in source.structure.blocks:
            if block.close_at < 0 or block.kind not in ("function", "lambda"):
                continue
            name = block.name
            if block.kind == "lambda":
                named = re.search(r"(\w+)\s*=\s*\[[^\[\]]*\][^\[\]]*$", block.head)
                name = named[1] if named else ""
            if name and not _CASE.match(name + "("):
                bodies[name] = bodies.get(name, "") + source.code[block.open_at:block.close_at]
    asserting = {name for name, body in bodies.items() if _ASSERTION.search(body)}
    while True:
        more = {name for name, body in bodies.items() if name not in asserting
                and any(call in asserting for call in _CALL.findall(body))}
        if not more:
            return asserting
        asserting |= more


@rule("test-asserts", "Every test case asserts something.")
def test_asserts(tree):
    helpers = None
    for source in _tests(tree):
        for line, name, start, end in cases(source):
            body = source.code[start:end]
            if _ASSERTION.search(body):
                continue
            helpers = _asserting_helpers(_tests(tree)) if helpers is None else helpers
            if not any(call in helpers for call in _CALL.findall(body)):
                yield source.path, line, f"'{name}' asserts nothing", "check what the name promises"


@rule("test-sleep", "Tests order threads by what they wait for, never by sleeping; a real sleep "
                    "says why: '// sleep: reason'.")
def test_sleep(tree):
    for source in _tests(tree):
        for found in _SLEEP.finditer(source.code) if "sleep" in source.code else ():
            line = source.line_of(found.start(1))
            declared = re.search(r"\w\s+$", source.code[max(0, found.start() - 20):found.start()])
            if (declared and not re.search(
                    r"\breturn\s*$", source.code[max(0, found.start() - 20):found.start()])
                    or re.search(r"\bsleep\s*:\s*\w", source.told_about(line))):
                continue
            yield (source.path, line, f"{found[1]}() in a test",
                   "wait for the event, use virtual_clock, or write '// sleep: why'")


@rule("test-seed", "A random test prints its seed.")
def test_seed(tree):
    for source in _tests(tree):
        # A stress test may draw from fixed seeds: it is the schedule that it cannot repeat.
        generators = r"\brandom_device\b" if source.stem.endswith("_stress_test") else \
            r"\b(mt19937(?:_64)?|random_device|minstd_rand0?|random_source)\b"
        drawn = re.search(generators, source.code)
        if not drawn or not cases(source):
            continue
        printed = re.search(r"\b(?:INFO|CAPTURE|UNSCOPED_INFO|WARN|printf|cout|cerr)\b[^;]*[Ss]eed",
                            source.text)
        if not printed:
            yield (source.path, source.line_of(drawn.start()), "a random test without its seed",
                   "print it: CAPTURE(seed)")


@rule("stress-invariant", "A stress test names the invariant it attacks.")
def stress_invariant(tree):
    for source in _tests(tree):
        if source.stem.endswith("_stress_test") and not any(
                re.search(r"\binvariants?\b|\bI\d\b", told, re.IGNORECASE)
                for told in source.comments.values()):
            yield source.path, 1, "no invariant is named", "write '// Invariant: ...'"


@rule("test-hidden", "No test is hidden or allowed to fail, unless '// hidden: reason' says why.")
def test_hidden(tree):
    for source in _tests(tree):
        for line, name, start, _ in cases(source):
            tags = source.text[source.start_of(line):start]
            if re.search(r"\[\.|\[!(?:may|should)fail\]|\[!hide\]", tags) and not re.search(
                    r"\bhidden\s*:\s*\w", source.told_about(line)):
                yield (source.path, line, f"'{name}' does not count", "let it run, or write "
                       "'// hidden: why'")


@rule("test-shim", "Tests include support/catch.hpp, which knows Catch2 v2 and v3.")
def test_shim(tree):
    for source in _tests(tree):
        for line, target, _ in source.includes:
            if target.startswith("catch2/") and not source.path.startswith("tests/support/"):
                yield source.path, line, f"<{target}> is one version's", "include support/catch.hpp"


@rule("suppression", "No sanitizer is told to look away.")
def suppression(tree):
    for source in tree.sources.values():
        if source.name.endswith(".supp"):
            yield source.path, 1, "a file of suppressions", "mend what the sanitizer found"
        if source.path.startswith("tests/tidy") or source.path.endswith(".md"):
            continue
        for found in re.finditer(r"\bno_sanitize\w*|\bsuppressions=", source.text):
            yield (source.path, source.line_of(found.start()), f"'{found.group()}'",
                   "mend what the sanitizer found")


@rule("primitive-files", "Every public header has its test, page and example, and a stress test if "
                         "threads share it.")
def primitive_files(tree):
    for path in public_headers(tree):
        stem = tree.sources[path].stem
        for kind in PRIMITIVES.get(stem, ()):
            wanted = FILES[kind].format(stem)
            if wanted not in tree.paths:
                yield path, 1, f"no {kind}", f"write {wanted}"
