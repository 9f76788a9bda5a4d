# SPDX-License-Identifier: BSL-1.0
"""Who may include whom."""

from .rules import rule

BASE = "include/veltrix/"
UMBRELLA = "veltrix.hpp"
SEAM = "detail/sync.hpp"

# The layer of each header. detail/ is L2 and worker/ L5 unless named here.
LAYERS = {
    "version.hpp": 0, "detail/config.hpp": 0, "detail/assumptions.hpp": 0,
    SEAM: 1,
    "clock.hpp": 2, "stop_token.hpp": 2, "executor.hpp": 2, "reclaim.hpp": 2,
    "snapshot_cell.hpp": 3, "concurrent_map.hpp": 3, "bounded_queue.hpp": 3,
    "elastic_pool.hpp": 3, "pool_sizer.hpp": 3,
    "backoff.hpp": 3, "resilience.hpp": 3, "endpoint_set.hpp": 3,
    "connection_pool.hpp": 3, "readiness.hpp": 3, "lease.hpp": 3, "two_phase_loader.hpp": 3,
    "retry.hpp": 4, "hedge.hpp": 4, "keyed_executor.hpp": 4, "loading_cache.hpp": 4,
    UMBRELLA: 5,
}
FOLDER_LAYERS = {"detail/": 2, "worker/": 5}
# Layers of building blocks whose members may use each other, as long as there is no cycle.
SIBLINGS_ALLOWED = {0, 2, 5}

BANNED = {
    "random": "the caller passes randomness in", "future": "it brings <functional> and threads",
    "iostream": "it adds static initialisers", "functional": "detail::unique_function stands in",
    "regex": "it is slow to compile and to run", "format": "not every supported library has it",
    "expected": "it is C++23",
}
SEAM_ONLY = {"atomic", "mutex", "thread", "shared_mutex", "condition_variable", "semaphore",
             "latch", "barrier", "pthread.h", "sched.h", "threads.h", "stdatomic.h"}
# The headers that wrap something of the system, and what they may include beyond the standard.
SYSTEM_ALLOWED = {
    SEAM: ("pthread.h", "unistd.h", "sched.h", "sys/", "linux/"),
    "detail/seed.hpp": ("sys/random.h",),
    "detail/thread_limits.hpp": ("dirent.h", "unistd.h", "sys/resource.h"),
}
STANDARD = set("""
algorithm any array atomic barrier bit bitset cassert ccomplex cctype cerrno cfenv cfloat charconv
chrono cinttypes climits clocale cmath codecvt compare complex concepts condition_variable coroutine
csetjmp csignal cstdarg cstddef cstdint cstdio cstdlib cstring ctime cuchar cwchar cwctype deque
exception execution filesystem format forward_list fstream functional future initializer_list
iomanip ios iosfwd iostream istream iterator latch limits list locale map memory memory_resource
mutex new numbers numeric optional ostream queue random ranges ratio regex scoped_allocator
semaphore set shared_mutex source_location span sstream stack stdexcept stop_token streambuf string
string_view strstream syncstream system_error thread tuple type_traits typeindex typeinfo
unordered_map unordered_set utility valarray variant vector version
assert.h complex.h ctype.h errno.h fenv.h float.h inttypes.h limits.h locale.h math.h setjmp.h
signal.h stdalign.h stdarg.h stdbool.h stddef.h stdint.h stdio.h stdlib.h string.h tgmath.h time.h
uchar.h wchar.h wctype.h""".split())


def layer(path: str) -> int | None:
    """The layer of a path below include/veltrix, or None if nobody gave it one."""
    name = path.removeprefix(BASE)
    if name in LAYERS:
        return LAYERS[name]
    return next((number for folder, number in FOLDER_LAYERS.items() if name.startswith(folder)),
                None)


def public_headers(tree) -> list[str]:
    """What a user includes by name: every header right under include/veltrix."""
    return [source.path for source in tree.headers if "/" not in source.path.removeprefix(BASE)]


@rule("layer-unknown", "Every header under include/ has a layer in the table of tests/tidy.")
def unknown(tree):
    for source in tree.headers:
        if not source.path.startswith(BASE) or layer(source.path) is None:
            yield (source.path, 1, "no layer is known for this header",
                   "give it a place in LAYERS of layer_rules.py, and in PRIMITIVES of "
                   "suite_rules.py")


@rule("layer-order", "A header includes lower layers only; L3 and L4 headers not each other.")
def order(tree):
    for source in tree.headers:
        own = layer(source.path)
        for line, target in tree.included_by[source.path]:
            other = layer(target)
            if own is None or other is None or source.name == UMBRELLA:
                continue
            if other > own or (other == own and own not in SIBLINGS_ALLOWED):
                yield (source.path, line,
                       f"L{own} includes {target.removeprefix(BASE)} of L{other}",
                       f"include layers below L{own} only")
            elif target == BASE + UMBRELLA:
                yield (source.path, line, f"{UMBRELLA} is included by a header",
                       "include the headers that are used")


@rule("layer-cycle", "No header includes itself, however far round.")
def cycle(tree):
    def reaches(start, goal, seen):
        for _, target in tree.included_by.get(start, []):
            if target == goal or (target not in seen
                                  and not seen.add(target) and reaches(target, goal, seen)):
                return True
        return False

    for source in tree.headers:
        for line, target in tree.included_by[source.path]:
            if target == source.path or reaches(target, source.path, {target}):
                yield (source.path, line, f"{target.removeprefix(BASE)} leads back to this header",
                       "break the cycle")


@rule("layer-umbrella", "The umbrella veltrix.hpp includes every public header and nothing "
                        "else.")
def umbrella(tree):
    source = tree.sources.get(BASE + UMBRELLA)
    if source is None:
        return
    public = set(public_headers(tree)) - {source.path}
    included = {target for _, target in tree.included_by[source.path]}
    for line, name, _ in source.includes:
        if tree.resolve(source, name) not in public:
            yield (source.path, line, f"{name} is no public header", "include public headers only")
    for missing in sorted(public - included):
        yield (source.path, 1, f"{missing.removeprefix(BASE)} is missing",
               "include every public header")


@rule("include-foreign", "Headers include the standard library and Veltrix, and nothing else.")
def foreign(tree):
    for source in tree.headers:
        name = source.path.removeprefix(BASE)
        allowed = SYSTEM_ALLOWED.get(name, ())
        for line, target, quoted in source.includes:
            if tree.resolve(source, target):
                continue
            if target.startswith("veltrix/") or quoted:
                yield (source.path, line, f"{target} is not in this tree", "include what exists")
            elif target not in STANDARD and not target.startswith(tuple(allowed) or ("\0",)):
                yield (source.path, line, f"<{target}> is neither std nor veltrix",
                       f"put it behind {SEAM} or outside include/, or name it in SYSTEM_ALLOWED")


@rule("include-banned", "Headers do without <random>, <future>, <iostream>, <functional>, <regex>, "
                        "<format> and <expected>.")
def banned(tree):
    for source in tree.headers:
        for line, target, _ in source.includes:
            if target in BANNED:
                yield source.path, line, f"<{target}> is banned", BANNED[target]


@rule("include-seam", "Only detail/sync.hpp includes the headers of atomics, locks and threads.")
def seam(tree):
    for source in tree.headers:
        if source.path == BASE + SEAM:
            continue
        for line, target, _ in source.includes:
            if target in SEAM_ONLY:
                yield (source.path, line, f"<{target}> goes round the seam", f"include {SEAM}")
