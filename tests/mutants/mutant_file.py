# SPDX-License-Identifier: BSL-1.0
"""Reads the lists of mutants: what each one is, which promise it breaks, who should notice.

A list is a text file, one per header. A line that starts with `#` is a comment. A mutant is

    mutant: half-open lets two probes through
    promise: "in half_open at most one live permit is the probe" (circuit_breaker, I2)
    file: include/veltrix/resilience.hpp
    layers: unit
    tests: resilience_test resilience_stress_test
    -|    if (!probe_out_) {
    +|    if (true) {

The lines behind `-|` are the old text and must be found exactly once in the file; those behind `+|`
take its place. A place may be changed in several files or spots: another `file:` or another `-|`
after a `+|` begins the next one. `tests:` names what may turn red, the cheapest first:

    name_test            tests/name_test.cpp
    model/name_test      tests/model/name_test.cpp, with the explorer
    fuzz/name_fuzz       fuzz/name_fuzz.cpp, replaying its corpus and random inputs
    name_test@tsan       the same under another variant: checked, tsan, asan
    tidy                 tests/tidy.py over the changed copy

`layers:` says who is expected to notice: compile, unit, stress, model, lin, fuzz, tsan, asan,
checked, tidy. `pending: why` keeps a mutant that no layer here can show yet; it is not run. A
mutant that changes nothing anybody could observe does not belong in a list: `equivalent: why` says
so to whoever tries it again, and the list is refused until the mutant is taken out.
"""

import os
from dataclasses import dataclass, field

LAYERS = ("compile", "tidy", "unit", "stress", "model", "lin", "fuzz", "checked", "tsan", "asan")
VARIANTS = ("plain", "checked", "tsan", "asan")
FIELDS = ("mutant", "promise", "file", "layers", "tests", "pending", "equivalent")


class ListError(Exception):
    """A list that cannot be used; the text says where and why."""


@dataclass
class Edit:
    path: str
    old: list = field(default_factory=list)
    new: list = field(default_factory=list)

    def apply(self, text):
        """The changed text. The old one must be there exactly once."""
        old, new = "\n".join(self.old), "\n".join(self.new)
        found = text.count(old)
        if found != 1:
            where = "is not there" if found == 0 else f"is there {found} times"
            raise ListError(f"the old text {where} in {self.path}:\n{old}")
        return text.replace(old, new)


@dataclass
class Step:
    """One program to build and run, or the rules of tidy."""
    test: str
    variant: str = "plain"

    @property
    def kind(self):
        """How it is built: a variant, model or fuzz."""
        folder = os.path.dirname(self.test)
        return folder if folder in ("model", "fuzz") else self.variant

    @property
    def source(self):
        if self.test == "tidy":
            return "tests/tidy.py"
        return f"{self.test}.cpp" if self.kind == "fuzz" else f"tests/{self.test}.cpp"

    @property
    def layer(self):
        """The layer that has noticed when this step turns red."""
        if self.test == "tidy":
            return "tidy"
        if self.kind != "plain":
            return self.kind
        if self.test.endswith("_lin_test"):
            return "lin"
        return "stress" if self.test.endswith("_stress_test") else "unit"

    def __str__(self):
        return self.test if self.variant == "plain" else f"{self.test}@{self.variant}"


@dataclass
class Mutant:
    name: str
    header: str  # the list's name
    line: int
    promise: str = ""
    layers: list = field(default_factory=list)
    steps: list = field(default_factory=list)
    edits: list = field(default_factory=list)
    pending: str = ""
    equivalent: str = ""

    @property
    def place(self):
        return f"{self.header}.txt:{self.line}: {self.name}"


def read_step(word, place):
    test, _, variant = word.partition("@")
    if variant and variant not in VARIANTS:
        raise ListError(f"{place}: '{word}' names the variant '{variant}'; "
                        f"there are {', '.join(VARIANTS)}")
    return Step(test, variant or "plain")


class _Reader:
    """Takes one list in, line by line."""

    def __init__(self, header):
        self.header = header
        self.mutants = []
        self.path = ""

    def take(self, number, line):
        if line.startswith(("-|", "+|")):
            return self.take_text(number, line[0], line[2:])
        if not line.strip() or line.startswith("#"):
            return None
        name, colon, value = line.partition(":")
        if not colon or name not in FIELDS:
            raise ListError(f"{self.header}.txt:{number}: '{line}' is none of "
                            f"{', '.join(FIELDS)}, '-|', '+|' or '#'")
        return self.take_field(number, name, value.strip())

    def take_field(self, number, name, value):
        if name == "mutant":
            self.mutants.append(Mutant(value, self.header, number))
            self.path = ""
            return
        mutant = self.current(number)
        if name == "file":
            self.path = value
        elif name == "tests":
            mutant.steps = [read_step(word, mutant.place) for word in value.split()]
        elif name == "layers":
            mutant.layers = value.replace(",", " ").split()
        else:
            before = getattr(mutant, name)
            setattr(mutant, name, f"{before} {value}".strip())

    def take_text(self, number, sign, text):
        mutant = self.current(number)
        if not self.path:
            raise ListError(f"{mutant.place}: text before 'file:'")
        edits = mutant.edits
        begins = not edits or edits[-1].path != self.path or (sign == "-" and edits[-1].new)
        if begins:
            if sign == "+":
                raise ListError(f"{mutant.place}: '+|' without '-|' before it")
            edits.append(Edit(self.path))
        (edits[-1].old if sign == "-" else edits[-1].new).append(text)

    def current(self, number):
        if not self.mutants:
            raise ListError(f"{self.header}.txt:{number}: 'mutant:' comes first")
        return self.mutants[-1]


def check(mutant):
    """Refuses what could not be run, or should not be."""
    def refuse(why):
        raise ListError(f"{mutant.place}: {why}")

    if mutant.equivalent:
        refuse(f"it is equivalent ({mutant.equivalent}): take it out of the list")
    if not mutant.promise:
        refuse("'promise:' is missing; quote what it breaks")
    if not mutant.edits:
        refuse("it changes nothing")
    if mutant.pending:
        return
    if not mutant.steps:
        refuse("'tests:' is missing; name what may turn red")
    if not mutant.layers:
        refuse("'layers:' is missing; say who is expected to notice")
    unknown = [layer for layer in mutant.layers if layer not in LAYERS]
    if unknown:
        refuse(f"no layer {', '.join(unknown)}; there are {', '.join(LAYERS)}")


def parse(text, header):
    """The mutants of one list."""
    reader = _Reader(header)
    for number, line in enumerate(text.splitlines(), 1):
        reader.take(number, line)
    for mutant in reader.mutants:
        check(mutant)
    return reader.mutants


def load(folder):
    """The mutants of every list in `folder`, by file and line. No two share a name."""
    mutants = []
    for name in sorted(os.listdir(folder)):
        if name.endswith(".txt"):
            with open(os.path.join(folder, name), encoding="utf-8") as file:
                mutants += parse(file.read(), name.removesuffix(".txt"))
    seen = {}
    for mutant in mutants:
        if mutant.name in seen:
            raise ListError(f"{mutant.place}: the name is taken by {seen[mutant.name].place}")
        seen[mutant.name] = mutant
    return mutants
