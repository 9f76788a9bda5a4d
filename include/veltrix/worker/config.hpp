// The configuration of the worker: a pure function from texts and host limits to a snapshot.
// Use for: start, check, and every reload; a snapshot knows where each of its values came from.
// Not for: reading files or watching them; the caller brings the bytes.
// Threads: snapshots are values; all functions are pure and may run at once.
// Progress: linear in the input; allocates.
// Callbacks: none.
// Exceptions: std::bad_alloc. Faults in the input are diagnostics, never exceptions.
// Lifetime: results own everything they say.
// Guide: docs/worker_config.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "../detail/config.hpp"
#include "../version.hpp"
#include "config_inputs.hpp"
#include "config_names.hpp"
#include "config_schema.hpp"
#include "config_snapshot.hpp"
#include "config_text.hpp"
#include "config_value.hpp"
#include "diagnostic.hpp"
#include "host_limits.hpp"

namespace veltrix {
inline namespace VELTRIX_ABI {

namespace detail {

/// Where a value came from, weakest first.
inline constexpr std::size_t layer_count = 5;

/// One setting that was given, with the value if it could be read.
struct assignment {
  const config_field* field;
  std::optional<config_value> value;
  config_origin origin;
  text_position key_at;
  std::string written_as;  ///< the name or alias that was used
  std::string got;         ///< the value as it was written
};

/// Builds one snapshot. I1: chosen_[k][l] is the assignment of key k in layer l, if there is one.
/// I2: no snapshot is made while errors_ is not empty.
class config_builder {
 public:
  explicit config_builder(const config_inputs& inputs) : inputs_(inputs) {}

  [[nodiscard]] config_result build() {
    errors_ = inputs_.file.faults;
    check_sources();
    take_file();
    take_environment();
    take_pairs(inputs_.command_line, origin_kind::command_line, "--set");
    take_pairs(inputs_.control, origin_kind::control, "control");
    fill();
    check_host_bounds();
    check_partners();
    check_paths();
    warn_overridden();
    warn_without_effect();
    return finish();
  }

 private:
  [[nodiscard]] static std::size_t index(key id) noexcept { return static_cast<std::size_t>(id); }

  // --- diagnostics ------------------------------------------------------------------------------

  [[nodiscard]] static diagnostic at(const config_origin& origin) {
    diagnostic told;
    told.file = origin.kind == origin_kind::built_in ? "default" : origin.name;
    told.line = origin.at.line;
    told.column = origin.at.column;
    return told;
  }

  void refuse(const config_origin& origin, diagnostic_code code, std::string what, std::string got,
              std::string allowed, std::string next) {
    diagnostic told = at(origin);
    told.code = code;
    told.what = std::move(what);
    told.got = std::move(got);
    told.allowed = std::move(allowed);
    told.next = std::move(next);
    errors_.push_back(std::move(told));
  }

  /// Refuses the value in force of `id`.
  void refuse_key(key id, diagnostic_code code, std::string allowed, std::string next) {
    refuse(snapshot_.origin(id), code, std::string(field_of(id).name),
           quote_value(snapshot_.shown(id)), std::move(allowed), std::move(next));
  }

  // --- taking settings in -----------------------------------------------------------------------

  void check_sources() {
    std::vector<std::string> others = inputs_.other_sources;
    for (const environment_setting& setting : inputs_.environment) {
      if (setting.name == environment_config_file && setting.value != inputs_.file_name) {
        others.push_back(setting.value);
      }
    }
    for (const std::string& other : others) {
      const std::string first =
          inputs_.file_name.empty() ? std::string("the defaults") : quote_value(inputs_.file_name);
      refuse({.kind = origin_kind::command_line, .name = quote_value(other)},
             diagnostic_code::second_source, "configuration source", quote_value(other),
             "is a second one beside " + first + ", and exactly one may be active",
             "Name one of them");
    }
  }

  void take_file() {
    std::size_t unknown = 0;
    for (const text_entry& entry : inputs_.file.entries) {
      const config_origin origin{origin_kind::file, inputs_.file_name, entry.value_at};
      const config_field* const field = find_field(entry.path);
      if (field == nullptr) {
        refuse_name({origin_kind::file, inputs_.file_name, entry.key_at}, entry.path,
                    ++unknown <= most_faults ? nearest_name(entry.path) : std::string_view{});
        continue;
      }
      take({field, {}, origin, entry.key_at, entry.path, entry.value}, entry.quoted);
    }
  }

  void refuse_name(const config_origin& origin, std::string_view name, std::string_view nearest) {
    if (is_group(name)) {
      refuse(origin, diagnostic_code::key_is_a_group, "value for the group", quote_value(name),
             "its settings are " + members_of(name), "name one of them");
      return;
    }
    if (nearest.empty()) {
      refuse(origin, diagnostic_code::unknown_key, "unknown key", quote_value(name),
             "no setting has a name like it", "remove it; `veltrix-worker schema` lists all");
      return;
    }
    refuse(origin, diagnostic_code::unknown_key, "unknown key", quote_value(name),
           "did you mean " + std::string(nearest) + "?", "correct the name or remove it");
  }

  [[nodiscard]] static std::string members_of(std::string_view group) {
    constexpr std::size_t most_named = 4;
    std::vector<std::string_view> members;
    for (const config_field& field : config_table) {
      if (field.name.starts_with(group) && field.name.substr(group.size(), 1) == ".") {
        members.push_back(field.name);
      }
    }
    const bool more = members.size() > most_named;
    if (more) members.resize(most_named);
    return join_names(members) + (more ? " and others" : "");
  }

  void take_environment() {
    for (const environment_setting& setting : inputs_.environment) {
      const std::string_view name = setting.name;
      if (!name.starts_with(environment_prefix) || name == environment_config_file) continue;
      const config_field* const field = find_variable(name);
      const config_origin origin{origin_kind::environment, "env " + quote_value(name), {}};
      if (field != nullptr) {
        take({field, {}, origin, {}, std::string(name), setting.value}, false);
      } else if (!is_foreign_variable(name)) {
        refuse_name(origin, name, nearest_variable(name));
      }
    }
  }

  void take_pairs(const std::vector<std::string>& pairs, origin_kind kind, const char* place) {
    const config_origin origin{kind, place, {}};
    for (const std::string& pair : pairs) {
      const std::size_t equals = pair.find('=');
      if (equals == std::string::npos || equals == 0) {
        refuse(origin, diagnostic_code::malformed_setting, "setting", quote_value(pair),
               "it is not of the form key=value", "write for example workers.min=2");
        continue;
      }
      const std::string name = pair.substr(0, equals);
      const config_field* const field = find_field(name);
      if (field == nullptr) {
        refuse_name(origin, name, nearest_name(name));
      } else {
        take({field, {}, origin, {}, name, pair.substr(equals + 1)}, false);
      }
    }
  }

  /// Reads the value of `given` and puts it into its layer.
  void take(assignment given, bool quoted) {
    const key id = given.field->id;
    auto& slot = chosen_[index(id)][static_cast<std::size_t>(given.origin.kind)];
    if (slot) return refuse_second(*slot, given);
    value_reading read = read_value(*given.field, given.got, quoted);
    std::optional<value_fault> fault = std::move(read.fault);
    if (!fault && !above_schema(*given.field, *read.value)) {
      fault = check_bounds(*given.field, *read.value);
    }
    if (!fault) fault = check_built(*given.field, *read.value);
    if (fault) {
      const std::string shown = quoted ? "\"" + given.got + "\"" : given.got;
      refuse(given.origin, fault->code, std::string(given.field->name),
             shown.empty() ? "''" : quote_value(shown), fault->allowed, fault->next);
    } else {
      given.value = std::move(*read.value);
    }
    slot = std::move(given);
  }

  /// True if the value is too large for a field that the host bounds as well: check_host_bounds()
  /// then names the tighter bound of the two.
  [[nodiscard]] static bool above_schema(const config_field& field, const config_value& value) {
    const bool hosted =
        field.id == key::workers_max_concurrency || field.id == key::queue_max_bytes;
    return hosted && std::get<std::int64_t>(value) > field.highest;
  }

  void refuse_second(const assignment& first, const assignment& second) {
    const bool in_file = first.origin.kind == origin_kind::file;
    // The same name twice in a file was reported where the text was read.
    if (in_file && first.written_as == second.written_as) return;
    config_origin origin = first.origin;
    origin.at = first.key_at;
    const std::string line =
        in_file ? " (line " + std::to_string(second.key_at.line) + ")" : std::string();
    refuse(
        origin, diagnostic_code::two_names, first.written_as, quote_value(first.got),
        "and " + second.written_as + ": " + quote_value(second.got) + line + " set the same thing",
        "Remove one");
  }

  /// A part that is not built can only be left as it is.
  [[nodiscard]] static std::optional<value_fault> check_built(const config_field& field,
                                                              const config_value& value) {
    if (field.available) return std::nullopt;
    const value_reading usual = read_value(field, field.default_text, false);
    if (usual.value == value) return std::nullopt;
    return value_fault{diagnostic_code::key_not_built,
                       "is not the default " + show_value(field, *usual.value) +
                           ", and what it controls is not built in this version",
                       "Remove it"};
  }

  // --- the values in force ----------------------------------------------------------------------

  /// The strongest layer that gives `id`, or null.
  [[nodiscard]] const assignment* strongest(key id) const noexcept {
    const auto& layers = chosen_[index(id)];
    for (std::size_t layer = layer_count; layer-- > 0;) {
      if (layers[layer]) return &*layers[layer];
    }
    return nullptr;
  }

  /// True if no layer gives `id` a value that was refused: rules about it make sense.
  [[nodiscard]] bool sound(key id) const noexcept {
    for (const auto& given : chosen_[index(id)]) {
      if (given && !given->value) return false;
    }
    return true;
  }

  void fill() {
    for (const config_field& field : config_table) {
      snapshot_.set_default(field.id, usual_value(field));
      const assignment* const given = strongest(field.id);
      if (given != nullptr && given->value) snapshot_.set(field.id, *given->value, given->origin);
    }
  }

  /// The default of `field` on this host. workers.stack_kib stands after the workers in the table,
  /// so it is asked of the layers, not of the snapshot.
  [[nodiscard]] config_value usual_value(const config_field& field) {
    const host_facts& host = inputs_.host;
    if (field.id == key::pod) {
      if (!host.pod_name.empty()) return host.pod_name;
      return host.host_name.empty() ? std::string("unnamed") : host.host_name;
    }
    if (field.id == key::workers_max_concurrency) {
      const std::int64_t wanted =
          std::max(default_workers_floor, default_workers_per_core * host.cores);
      return lowered(field, wanted, worker_limit());
    }
    value_reading read = read_value(field, field.default_text, false);
    if (field.id == key::queue_max_bytes) {
      return lowered(field, std::get<std::int64_t>(*read.value), queue_limit());
    }
    return std::move(*read.value);
  }

  /// `wanted`, or what the host allows of it; says so if the default is then in force.
  [[nodiscard]] config_value lowered(const config_field& field, std::int64_t wanted,
                                     const std::optional<host_limit>& limit) {
    wanted = std::min(wanted, field.highest);
    if (!limit || wanted <= limit->value) return wanted;
    const std::int64_t least = std::max(limit->value, field.lowest);
    if (strongest(field.id) == nullptr && limit->value >= field.lowest) {
      warnings_.push_back(
          {.code = diagnostic_code::default_lowered,
           .file = "default",
           .what = std::string(field.name),
           .got = show_integer(field, wanted),
           .allowed = "is above " + show_integer(field, limit->value) + " (" + limit->source + ")",
           .stays = show_integer(field, least) + " is in force",
           .next = "Raise " + limit->name + " or set a value"});
    }
    return least;
  }

  [[nodiscard]] std::optional<host_limit> worker_limit() const {
    const config_field& field = field_of(key::workers_stack_kib);
    const assignment* const given = strongest(field.id);
    const config_value stack = given != nullptr && given->value
                                   ? *given->value
                                   : *read_value(field, field.default_text, false).value;
    return max_workers(inputs_.host, std::get<std::int64_t>(stack));
  }

  [[nodiscard]] std::optional<host_limit> queue_limit() const {
    auto limit = memory_limit(inputs_.host);
    if (!limit) return std::nullopt;
    limit->value /= 2;
    limit->source = "half of " + limit->source;
    return limit;
  }

  // --- rules ------------------------------------------------------------------------------------

  void check_host_bounds() {
    check_host_bound(key::workers_max_concurrency, worker_limit());
    check_host_bound(key::queue_max_bytes, queue_limit());
  }

  /// Every layer is held to the bound, the ones that are overridden too; so is the default.
  void check_host_bound(key id, const std::optional<host_limit>& limit) {
    const config_field& field = field_of(id);
    const bool tighter = limit && limit->value < field.highest;
    const std::int64_t most = tighter ? limit->value : field.highest;
    const std::string bound = tighter ? " (" + limit->source + ")" : std::string(upper_note);
    const std::string next = tighter ? "Lower it or raise " + limit->name : "Lower it";
    const auto check = [&](const config_value& value, const config_origin& origin,
                           const std::string& got) {
      if (std::get<std::int64_t>(value) <= most) return;
      refuse(origin, diagnostic_code::out_of_bounds, std::string(field.name), quote_value(got),
             "is above " + show_integer(field, most) + bound, next);
    };
    for (const auto& given : chosen_[index(id)]) {
      if (given && given->value) check(*given->value, given->origin, given->got);
    }
    if (strongest(id) == nullptr) {
      check(snapshot_.value(id), snapshot_.origin(id), snapshot_.shown(id));
    }
  }

  /// Refuses `small` if it is above `large`, at the place of the one that was given.
  void keep_below(key small, key large) {
    if (!sound(small) || !sound(large)) return;
    if (snapshot_.integer(small) <= snapshot_.integer(large)) return;
    const std::string other = std::string(field_of(large).name) + " " + snapshot_.shown(large);
    if (strongest(small) != nullptr) {
      refuse_key(small, diagnostic_code::contradiction, "is above " + other,
                 "Lower it or raise " + std::string(field_of(large).name));
      return;
    }
    refuse_key(large, diagnostic_code::contradiction,
               "is below " + std::string(field_of(small).name) + " " + snapshot_.shown(small),
               "Raise it or lower " + std::string(field_of(small).name));
  }

  /// Refuses `kind` = `word` without a text for `path`.
  void need(key kind, std::string_view word, key path) {
    if (!sound(kind) || !sound(path) || snapshot_.text(kind) != word) return;
    if (!snapshot_.text(path).empty()) return;
    const std::string name(field_of(path).name);
    refuse_key(kind, diagnostic_code::missing_partner, "needs " + name + ", which is empty",
               "Set " + name);
  }

  void check_partners() {
    keep_below(key::workers_min, key::workers_max_concurrency);
    keep_below(key::events_max_event_bytes, key::queue_max_bytes);
    if (snapshot_.text(key::events_source) == "generate") {
      keep_below(key::events_event_bytes, key::events_max_event_bytes);
    }
    need(key::events_source, "file", key::events_path);
    need(key::sink_kind, "file", key::sink_path);
    need(key::events_schema, "any", key::events_key_field);
  }

  /// The files that the worker will use, with the configuration itself. None may be two things.
  void check_paths() {
    constexpr std::array paths{key::events_path, key::sink_path, key::dead_letter_path,
                               key::commit_path, key::metrics_file};
    for (std::size_t later = 0; later < paths.size(); ++later) {
      const std::string_view path = snapshot_.text(paths[later]);
      if (path.empty() || path == "off" || !sound(paths[later]) || !in_use(paths[later])) continue;
      if (path == inputs_.file_name) {
        refuse_key(paths[later], diagnostic_code::contradiction, "is the configuration file itself",
                   "Name another file");
      }
      for (std::size_t earlier = 0; earlier < later; ++earlier) {
        if (path != snapshot_.text(paths[earlier]) || !in_use(paths[earlier])) continue;
        refuse_key(paths[later], diagnostic_code::contradiction,
                   "is also " + std::string(field_of(paths[earlier]).name), "Name another file");
      }
    }
  }

  [[nodiscard]] bool in_use(key path) const {
    if (path == key::events_path) return snapshot_.text(key::events_source) == "file";
    if (path == key::sink_path) return snapshot_.text(key::sink_kind) == "file";
    return true;
  }

  // --- warnings ---------------------------------------------------------------------------------

  void warn_overridden() {
    for (const config_field& field : config_table) {
      const auto& in_file = chosen_[index(field.id)][static_cast<std::size_t>(origin_kind::file)];
      const assignment* const given = strongest(field.id);
      if (!in_file || !in_file->value || &*in_file == given || !given->value) continue;
      if (*in_file->value == *given->value) continue;
      diagnostic told = at(in_file->origin);
      told.code = diagnostic_code::overridden;
      told.what = field.name;
      told.got = quote_value(in_file->got);
      told.allowed = "is overridden by " + to_string(given->origin);
      told.stays = quote_value(show_value(field, *given->value)) + " is in force";
      told.next = "Remove one of the two";
      warnings_.push_back(std::move(told));
    }
  }

  /// Warns of `id` if it was given and `kind` is none of `words`.
  void only_with(key id, key kind, std::string_view words) {
    const assignment* const given = strongest(id);
    if (given == nullptr || !given->value || !sound(kind)) return;
    if (has_choice(words, snapshot_.text(kind))) return;
    const std::string other = std::string(field_of(kind).name) + " " + snapshot_.shown(kind);
    diagnostic told = at(given->origin);
    told.code = diagnostic_code::no_effect;
    told.what = field_of(id).name;
    told.got = quote_value(snapshot_.shown(id));
    told.allowed = "has no effect with " + other;
    told.stays = "the worker runs with " + other;
    told.next = "Remove one of the two";
    warnings_.push_back(std::move(told));
  }

  void warn_without_effect() {
    only_with(key::events_path, key::events_source, "file");
    only_with(key::events_count, key::events_source, "generate");
    only_with(key::events_keys, key::events_source, "generate");
    only_with(key::events_event_bytes, key::events_source, "generate");
    only_with(key::events_key_field, key::events_schema, "any");
    only_with(key::events_ts_field, key::events_schema, "any");
    only_with(key::sink_path, key::sink_kind, "file");
  }

  // --- the end ----------------------------------------------------------------------------------

  [[nodiscard]] config_result finish() {
    sort_by_place(errors_);
    sort_by_place(warnings_);
    if (!errors_.empty()) warnings_.clear();  // they speak of values that will not be in force
    limit_faults(errors_, inputs_.file_name);
    for (diagnostic& error : errors_)
      error.stays = inputs_.stays;
    config_result result{.errors = std::move(errors_), .warnings = std::move(warnings_)};
    if (result.errors.empty()) result.snapshot = std::move(snapshot_);
    return result;
  }

  const config_inputs& inputs_;
  std::array<std::array<std::optional<assignment>, layer_count>, key_count> chosen_{};
  config_snapshot snapshot_{};
  std::vector<diagnostic> errors_{};
  std::vector<diagnostic> warnings_{};
};

}  // namespace detail

/// Checks everything and reports every fault, not the first alone; more than 100 are counted.
/// Result: a snapshot and warnings, or errors. Complexity: linear in the input.
[[nodiscard]] inline config_result parse_config(const config_inputs& inputs) {
  return detail::config_builder(inputs).build();
}

/// The defaults on `host`. A host too small for one worker is an error.
[[nodiscard]] inline config_result default_config(const host_facts& host) {
  return parse_config({.host = host});
}

/// One changed setting.
struct config_change {
  key id;
  reload_class reload;
  std::string before;
  std::string after;

  friend bool operator==(const config_change&, const config_change&) = default;
};

/// What differs, in the order of the table; origins do not count.
[[nodiscard]] inline std::vector<config_change> diff(const config_snapshot& before,
                                                     const config_snapshot& after) {
  std::vector<config_change> changes;
  for (const config_field& field : config_table) {
    if (before.value(field.id) == after.value(field.id)) continue;
    changes.push_back({field.id, field.reload, before.shown(field.id), after.shown(field.id)});
  }
  return changes;
}

/// As parse_config(), for a worker that runs with `old`: a changed restart setting is an error.
[[nodiscard]] inline config_result reload_config(const config_snapshot& old,
                                                 const config_inputs& inputs) {
  config_result result = parse_config(inputs);
  if (!result.ok()) return result;
  for (const config_change& change : diff(old, *result.snapshot)) {
    if (change.reload != reload_class::restart) continue;
    const config_origin& origin = result.snapshot->origin(change.id);
    result.errors.push_back(
        {.code = diagnostic_code::restart_needed,
         .file = origin.kind == origin_kind::built_in ? "default" : origin.name,
         .line = origin.at.line,
         .column = origin.at.column,
         .what = std::string(field_of(change.id).name),
         .got = detail::quote_value(change.after),
         .allowed = "differs from " + detail::quote_value(change.before) +
                    ", and only a restart changes it",
         .stays = inputs.stays,
         .next = "Restart the worker or put " + detail::quote_value(change.before) + " back"});
  }
  if (result.errors.empty()) return result;
  sort_by_place(result.errors);
  result.snapshot.reset();
  return result;
}

/// The engine as an object, for code that takes one as a parameter. It has no state at all.
struct config_engine {
  [[nodiscard]] config_result operator()(const config_inputs& inputs) const {
    return parse_config(inputs);
  }
};

// A pure function of its inputs: nothing to remember, nothing to share, nothing to lock.
static_assert(std::is_empty_v<config_engine>, "the config engine must have no members");
static_assert(std::is_invocable_r_v<config_result, const config_engine, const config_inputs&>,
              "the config engine must not change what it is given");

}  // namespace VELTRIX_ABI
}  // namespace veltrix
