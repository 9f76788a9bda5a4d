#!/usr/bin/env python3
# SPDX-License-Identifier: BSL-1.0
"""Holds the project to the rules that a script can hold.

    python3 tests/tidy.py                      the whole tree
    python3 tests/tidy.py include docs/retry.md    what stands under these paths
    python3 tests/tidy.py --rule seam --rule fence
    python3 tests/tidy.py --list

One finding is one line, `path:line: rule: what is wrong; what is wanted`. Exit status: 0 clean,
1 something was found, 2 usage. The rules are in tests/tidy/, their tests in tests/tidy_test.py.
There is no way to silence a rule in place; a function or header that must be larger than the limits
gets a line in docs/decisions.md: `size-exception: <file>[:<function>]` and a sentence saying why.
"""

import argparse
import os
import signal
import sys
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from tidy import RULES, Tree, run  # noqa: E402  (the package beside this file)


def arguments(given):
    parser = argparse.ArgumentParser(
        description="Holds the project to the rules that a script can hold.")
    parser.add_argument("paths", nargs="*", help="report only what stands under these paths")
    parser.add_argument("--root", help="the tree to check (default: the one this file is in)",
                        default=os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    parser.add_argument("--rule", action="append", default=[], metavar="NAME",
                        help="check this rule only; may be repeated")
    parser.add_argument("--list", action="store_true", help="print the rules and stop")
    options = parser.parse_args(given)
    unknown = [name for name in options.rule if name not in RULES]
    if unknown:
        parser.error(f"no rule {', '.join(unknown)}; --list prints them")
    if not os.path.isdir(options.root):
        parser.error(f"no folder {options.root}")
    return options


def chosen_paths(options) -> list[str]:
    """The path arguments as the tree spells them."""
    root = os.path.abspath(options.root)
    paths = []
    for path in options.paths:
        inside = os.path.join(root, path)
        full = inside if os.path.exists(inside) else os.path.abspath(path)
        if not os.path.exists(full):
            sys.exit(f"tidy: no file or folder {path}")
        paths.append(os.path.relpath(full, root).replace(os.sep, "/"))
    return paths


def main(given=None) -> int:
    options = arguments(given)
    if options.list:
        for rule in RULES.values():
            print(f"{rule.name}: {rule.sentence}")
        return 0
    started = time.monotonic()
    tree = Tree(options.root)
    paths = chosen_paths(options)
    findings = [each for each in run(tree, options.rule)
                if not paths or "." in paths
                or any(each.path == path or each.path.startswith(path + "/") for path in paths)]
    for each in findings:
        print(each)
    print(f"tidy: {len(findings)} findings in {len({each.path for each in findings})} files by "
          f"{len({each.rule for each in findings})} rules; {len(tree.sources)} files read, "
          f"{len(options.rule) or len(RULES)} rules applied, {time.monotonic() - started:.1f} s")
    return 1 if findings else 0


if __name__ == "__main__":
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` may stop reading
    sys.exit(main())
