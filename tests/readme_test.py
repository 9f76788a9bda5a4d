#!/usr/bin/env python3
# SPDX-License-Identifier: BSL-1.0
"""Each C++ block of README.md is a snippet that readme_example.cpp compiles and checks."""
import pathlib
import re
import sys
import textwrap

root = pathlib.Path(__file__).resolve().parents[1]
source = (root / "docs/examples/readme_example.cpp").read_text()
readme = (root / "README.md").read_text()
compiled = {textwrap.dedent(body).strip(): name
            for name, body in re.findall(r"  // \[(\w+)\]\n(.*?)  // \[end\]", source, re.S)}
shown = [block.strip() for block in re.findall(r"```cpp\n(.*?)```", readme, re.S)]

faults = [f"README.md shows a block that is not compiled:\n{block}"
          for block in shown if block not in compiled]
faults += [f"README.md does not show the snippet {name}"
           for text, name in compiled.items() if text not in shown]
faults += [f"the block {compiled[block]} has {len(block.splitlines())} lines; wanted at most 12"
           for block in shown if block in compiled and len(block.splitlines()) > 12]
if not shown:
    faults.append("README.md shows no C++ at all")
print("\n".join(faults) if faults else f"{len(shown)} blocks are what is compiled")
sys.exit(1 if faults else 0)
