// The docs page of the configuration, made from the table of settings and the table of codes.
// Use for: docs/worker_config.md, which a test compares with schema_markdown().
// Not for: other forms of the schema; see config_doc.hpp.
// Threads: a pure function of constants.
// Progress: allocates.
// Callbacks: none.
// Exceptions: std::bad_alloc.
// Lifetime: returns by value.
// Guide: docs/worker_config.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <string>
#include <string_view>

#include "../detail/config.hpp"
#include "../version.hpp"
#include "config_doc.hpp"
#include "config_schema.hpp"
#include "diagnostic.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {
namespace detail {

inline constexpr std::string_view page_head = R"page(# Worker configuration

Every setting of `veltrix-worker`: what it does, what it may be, and what a reload does with it.

This page is generated. Change `include/veltrix/worker/config_schema.hpp` or `config_page.hpp`, then
run `veltrix-worker schema --markdown > docs/worker_config.md`.

## Example

```yaml
# veltrix.yaml
workers:
  max_concurrency: 512      # or worker-pool-size, or MaxConcurrency
queue:
  max_bytes: 64 MiB
  latency_budget_ms: 42
events:
  source: file
  path: events.jsonl
```

`veltrix-worker check -c veltrix.yaml` reads it against the limits of this host and starts nothing.
`veltrix-worker schema --default-file` prints a file with every setting and its default.

## How a file is read

A file is a strict subset of YAML, or JSON if its first character is `{`.

- Nesting is by spaces. A name with dots says the same as nested groups: `workers.min: 2`.
- A value ends on its line. It is plain, in `'single quotes'` (`''` is one quote), or in
  `"double quotes"` (with `\" \\ \/ \t \n \r`).
- A comment starts with `#` at the start of a line or after a space.
- Refused, each by its own message: tabs outside quotes and comments, lists, braces and brackets,
  anchors, aliases and tags, block scalars, document markers, null, repeated keys, more than 8
  levels, more than 1 MiB, bytes that are not UTF-8, a byte order mark. Line ends may be LF or CRLF.
- Whole numbers are decimal, without separators, leading zeros or quotes. A size is in bytes, or has
  the unit B, KiB, MiB, GiB or TiB. A duration is in the unit that ends the setting's name, or has
  the unit us, ms, s, min, h or d. In JSON a value with a unit is a string.
- A switch is `true` or `false`. No other word is.
- A name that is not in the table is refused, and the nearest name is given.

Every fault of a file is reported, up to 100. Columns count bytes, from 1.

## Where a value comes from

Weakest first: the default, the file, the environment, the command line, the control socket. Each
value keeps its origin, and the worker prints it: `workers 512 (veltrix.yaml:3; default was 4)`.

- Environment: `VELTRIX_WORKERS_MIN` for `workers.min`: upper case, dots and hyphens as underscores.
  `VELTRIX_CONFIG` names the file. Links that Kubernetes makes for a service called veltrix
  (`VELTRIX_SERVICE_HOST`, `VELTRIX_PORT_80_TCP`) are passed over.
- Command line: `--set workers.min=2`.
- One setting under two names in one place is refused. A file's value that a stronger place
  overrides is a warning.
- Exactly one configuration file is active. A second one is refused.

A reload that is refused leaves the configuration in force as it was. Reload classes: **L** live;
**H** live, when the part concerned has agreed; **R** a restart: a changed R setting is refused.

)page";

inline constexpr std::string_view page_limits = R"page(## Limits of the host

`workers.max_concurrency` is bounded by the smallest of these, and a refusal names it:

- `pids.max` of the process's cgroup and of all above it, version 1 or 2: less 16 kept back, less
  what others use there (`pids.current` without this process);
- `RLIMIT_NPROC`, less 16 kept back; root and holders of CAP_SYS_RESOURCE or CAP_SYS_ADMIN are
  exempt;
- `memory.max` of the same cgroups (`memory.limit_in_bytes` in version 1), divided by
  `workers.stack_kib`;
- `MemAvailable` of `/proc/meminfo`, divided by `workers.stack_kib`;
- `RLIMIT_AS`, divided by `workers.stack_kib`.

The 16 are for the process's other threads and for what starts beside it. Tasks that other processes
of the same user run also count against RLIMIT_NPROC and are not known here: the pool may still find
the limit when it grows, and then refuses as a whole.

`queue.max_bytes` is bounded by half of the memory limit: the smallest of `memory.max`, `RLIMIT_AS`
and the machine's memory. Cores are those this process may run on, no more than its CPU quota.

## Messages

A message is one line: the code, the place, the setting, the value, what is allowed, what stays in
force, and what to do.

```
)page";

inline constexpr std::string_view page_codes = R"page(```

10xx: what the configuration says. 11xx: how it is written. 19xx: warnings. 20xx: while running.

| code | meaning |
|---|---|
)page";

/// The message that the page shows, made as the worker makes it.
[[nodiscard]] inline std::string page_message() {
  return to_string({.code = diagnostic_code::out_of_bounds,
                    .file = "veltrix.yaml",
                    .line = 7,
                    .column = 20,
                    .what = "workers.max_concurrency",
                    .got = "5120",
                    .allowed = "is above 284 (pids.max=300, 16 kept back)",
                    .stays = "generation 41 with 512 workers stays in force",
                    .next = "Lower it or raise pids.max"});
}

/// One row of a group's table.
[[nodiscard]] inline std::string page_row(const config_field& field) {
  std::string row = "| `" + std::string(field.name) + "`";
  const std::string aliases = alias_text(field);
  if (!aliases.empty()) row.append("<br>also ").append(aliases);
  row.append(" | ").append(type_text(field)).append(" | ").append(default_text(field));
  row.append(" | ").append(bounds_text(field));
  if (!field.later_choices.empty()) {
    row.append("; not built: ").append(choice_list(field.later_choices));
  }
  row.append(" | ").append(reload_text(field.reload).substr(0, 1)).append(" | ");
  if (!field.available) row.append("*Not built in this version.* ");
  return row.append(field.consequence).append(" |\n");
}

}  // namespace detail

/// The docs page, docs/worker_config.md.
[[nodiscard]] inline std::string schema_markdown() {
  std::string page(detail::page_head);
  page.append("## Settings\n");
  std::string_view group = "none";
  for (const config_field& field : config_table) {
    const bool grouped = detail::depth_of(field.name) != 0;
    const std::string_view first = grouped ? detail::part_of(field.name, 0) : std::string_view{};
    if (first != group) {
      group = first;
      page.append("\n### ").append(grouped ? "`" : "Alone").append(first);
      page.append(grouped ? "`" : "");
      page.append("\n\n| setting | type | default | allowed | reload | what it does |\n");
      page.append("|---|---|---|---|---|---|\n");
    }
    page.append(detail::page_row(field));
  }
  page.append("\n").append(detail::page_limits).append(detail::page_message()).append("\n");
  page.append(detail::page_codes);
  for (const diagnostic_row& row : diagnostic_table) {
    page.append("| ").append(to_string(row.code)).append(" | ").append(row.meaning);
    page.append(" |\n");
  }
  return page;
}

}  // namespace VELTRIX_ABI
}  // namespace veltrix
