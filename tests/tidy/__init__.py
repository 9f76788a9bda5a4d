# SPDX-License-Identifier: BSL-1.0
"""The rules of the house as code; tests/tidy.py is the command that runs them.

source     a file with its comments and literals told apart from its code
structure  the blocks, functions and declarations of a C++ file
rules      the registry, and what a finding is
*_rules    one file per chapter of rules
"""

from . import (atomic_rules, header_rules, layer_rules, page_rules, seam_rules, shape_rules,
               suite_rules, text_rules)  # importing a chapter registers its rules
from .rules import RULES, Finding, run
from .source import Tree

__all__ = ["RULES", "Finding", "Tree", "run", "atomic_rules", "header_rules", "layer_rules",
           "page_rules", "seam_rules", "shape_rules", "suite_rules", "text_rules"]
