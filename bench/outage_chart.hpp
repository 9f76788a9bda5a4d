// Draws load and success over time, a panel for each policy.
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <string>
#include <vector>

#include "outage_model.hpp"

namespace veltrix_bench::outage {

/// One policy's course, a value for each second.
struct series {
  std::string name;
  std::vector<double> load;
  std::vector<double> good_share;
};

namespace detail {

inline constexpr double panel_width = 300, panel_height = 60, gap = 34, left = 40, top = 64;
inline constexpr std::size_t columns = 2;

inline std::string number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f", value);
  return text;
}

inline std::string text(double x, double y, const char* kind, const std::string& words) {
  return "<text x=\"" + number(x) + "\" y=\"" + number(y) + "\" class=\"" + kind + "\">" + words +
         "</text>\n";
}

/// Values from 0 to `most`, over the width of a panel.
inline std::string line(const std::vector<double>& values, double most, double x, double y,
                        const char* kind) {
  std::string points;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const double across = panel_width * static_cast<double>(i) / static_cast<double>(values.size());
    points += number(x + across) + "," +
              number(y + panel_height * (1.0 - std::min(values[i], most) / most)) + " ";
  }
  return std::string("<polyline class=\"") + kind + "\" points=\"" + points + "\"/>\n";
}

inline std::string panel(const series& drawn, const world& rules, double x, double y) {
  const double second = panel_width / rules.ends;
  const double most = std::max(2.0, *std::max_element(drawn.load.begin(), drawn.load.end()));
  std::string made = "<rect class=\"away\" x=\"" + number(x + second * rules.away_from) +
                     "\" y=\"" + number(y) + "\" width=\"" + number(second * rules.away_for) +
                     "\" height=\"" + number(panel_height) + "\"/>\n";
  made += "<rect class=\"frame\" x=\"" + number(x) + "\" y=\"" + number(y) + "\" width=\"" +
          number(panel_width) + "\" height=\"" + number(panel_height) + "\"/>\n";
  made += text(x, y - 5, "name", drawn.name);
  made += text(x + panel_width, y - 5, "most", "load to " + number(most) + " x");
  made += line(drawn.load, most, x, y, "load");
  made += line(drawn.good_share, 1.0, x, y, "good");
  return made;
}

inline const char* const style =
    "<style>svg{color-scheme:light dark}text{font:12px sans-serif;fill:#222}"
    ".most{text-anchor:end;fill:#666}.head{font-size:14px;font-weight:bold}"
    ".frame{fill:none;stroke:#bbb}.away{fill:#0001}polyline{fill:none;stroke-width:1.5}"
    ".load{stroke:#c2410c}.good{stroke:#1d6fb8}.words-load{fill:#c2410c}.words-good{fill:#1d6fb8}"
    "@media(prefers-color-scheme:dark){text{fill:#ddd}.most{fill:#aaa}.frame{stroke:#555}"
    ".away{fill:#fff2}.load,.words-load{stroke:#fb923c}.words-load{stroke:none;fill:#fb923c}"
    ".good{stroke:#60a5fa}.words-good{fill:#60a5fa}}</style>\n";

}  // namespace detail

/// The picture: time runs to the right, the grey band is the outage.
inline std::string chart(const std::vector<series>& drawn, const world& rules) {
  using namespace detail;
  const std::size_t rows = (drawn.size() + columns - 1) / columns;
  const double width = left + columns * (panel_width + left);
  const double height = top + static_cast<double>(rows) * (panel_height + gap);
  std::string made = "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 " + number(width) +
                     " " + number(height) +
                     "\" role=\"img\">\n<title>Load and success over 120 s, "
                     "around an outage of 10 s</title>\n";
  made += style;
  made += text(left, 20, "head", "Around an outage of 10 s (grey): 120 s from left to right");
  made += text(left, 38, "words-load", "attempts, times the calls");
  made += text(left + panel_width / 2 + 20, 38, "words-good",
               "share of calls answered within 300 ms, 0 to 1");
  for (std::size_t i = 0; i < drawn.size(); ++i) {
    const double x = left + static_cast<double>(i % columns) * (panel_width + left);
    const double y = top + static_cast<double>(i / columns) * (panel_height + gap);
    made += panel(drawn[i], rules, x, y);
  }
  return made + "</svg>\n";
}

}  // namespace veltrix_bench::outage
