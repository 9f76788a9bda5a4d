// SPDX-License-Identifier: BSL-1.0
#include "veltrix/worker/metrics.hpp"

#include <set>
#include <sstream>
#include <string>

#include "support/catch.hpp"

using veltrix::metrics_text;
using veltrix::metrics_writer;
using veltrix::worker_counters;
using veltrix::worker_report;

TEST_CASE("metrics_writer writes families, labels and escapes as Prometheus reads them") {
  metrics_writer out;
  out.family("a_total", "counter", "What it counts");
  out.series(3);
  out.series(4, {{"why", "a \"b\"\\\n"}, {"x", "y"}});
  CHECK(out.text() ==
        "# HELP a_total What it counts\n# TYPE a_total counter\n"
        "a_total 3\na_total{why=\"a \\\"b\\\"\\\\\\n\",x=\"y\"} 4\n");
  CHECK(out.series_count() == 2);
}

TEST_CASE("metrics_writer writes a summary with quantiles, sum and count in seconds") {
  veltrix::latency_histogram histogram;
  histogram.record(std::chrono::seconds(2), 3);
  metrics_writer out;
  out.summary("t_seconds", "Time", histogram);
  CHECK(out.series_count() == 5);
  CHECK(out.text().find("t_seconds_sum 6\n") != std::string::npos);
  CHECK(out.text().find("t_seconds_count 3\n") != std::string::npos);
  CHECK(out.text().find("t_seconds{quantile=\"0.99\"} 2.0") != std::string::npos);
}

TEST_CASE("metrics_text has at most 120 series, each once, and the advertised number") {
  worker_counters counters;
  veltrix::latency_histogram resizes;
  worker_report report;
  report.counters = &counters;
  report.resize_seconds = &resizes;
  report.lag_known = true;
  report.desired_workers = 512;
  report.pod = "pod-1";
  const std::string text = metrics_text(report);
  CHECK(text.find("veltrix_config_max_concurrency{pod=\"pod-1\"} 512\n") != std::string::npos);
  std::istringstream lines(text);
  std::set<std::string> names;
  std::string line;
  while (std::getline(lines, line)) {
    if (line.starts_with('#')) continue;
    const std::size_t space = line.rfind(' ');
    REQUIRE(space != std::string::npos);
    CHECK(names.insert(line.substr(0, space)).second);
    CHECK(line.starts_with("veltrix_"));
  }
  CHECK(names.size() <= 120);
  CHECK(names.size() > 50);
}
