/* SPDX-License-Identifier: Apache-2.0
 *
 * Rows are written as soon as they are known and flushed, so that a run that fails later has still
 * said what it measured. Names and units are plain words of this program: nothing needs escaping in
 * JSON.
 */
#include <stdarg.h>
#include <stdio.h>

#include "bench/bench.h"
#include "feature.h"

double bench_gb_per_s(uint64_t bytes, double ns) {
    return ns > 0 ? (double)bytes / ns : 0;
}

static const char *verdict(const struct bench_figure *figure, double ratio) {
    if (figure->bar == BENCH_NO_BAR)
        return "";
    const bool ok =
        figure->bar == BENCH_AT_MOST ? ratio <= figure->bar_ratio : ratio >= figure->bar_ratio;
    return ok ? "ok" : "short";
}

static void write_row(struct bench *bench, const struct bench_figure *figure, double ratio) {
    if (!bench->header_written)
        printf("%-28s %10s %-5s %10s %7s %8s %-5s  %s\n", "figure", "value", "unit", "limit",
               "ratio", "bar", "", "what, over which limit");
    bench->header_written = true;
    char bar[16] = "-";
    if (figure->bar != BENCH_NO_BAR)
        snprintf(bar, sizeof bar, "%s %.4g",
                 figure->bar == BENCH_AT_MOST ? "<=" : ">=", figure->bar_ratio);
    printf("%-28s %10.4g %-5s %10.4g %7.3f %8s %-5s  %s\n", figure->name, figure->value,
           figure->unit, figure->limit, ratio, bar, verdict(figure, ratio), figure->what);
}

void bench_report(struct bench *bench, const struct bench_figure *figure) {
    const double ratio = figure->limit > 0 ? figure->value / figure->limit : 0;
    if (bench->json)
        printf("{\"figure\":\"%s\",\"value\":%.6g,\"unit\":\"%s\",\"limit\":%.6g,\"ratio\":%.4g}\n",
               figure->name, figure->value, figure->unit, figure->limit, ratio);
    else
        write_row(bench, figure, ratio);
    fflush(stdout);
}

int bench_fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fputs("feature-bench: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    return -1;
}

int bench_fail_feature(const char *what, int status) {
    return bench_fail("%s: %s: %s", what, feature_strerror(status), feature_last_error());
}
