/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>

#include "support/samples.h"

static void add_all(struct samples *samples, const uint64_t *values, size_t count) {
    for (size_t i = 0; i < count; i++)
        cr_assert_eq(samples_add(samples, values[i]), 0);
}

Test(bench_samples, median_of_none_is_zero) {
    struct samples samples = {0};
    cr_assert_eq(samples_median(&samples), 0.0);
    samples_deinit(&samples);
}

Test(bench_samples, median_of_an_odd_count_is_the_middle_value) {
    struct samples samples = {0};
    add_all(&samples, (const uint64_t[]){900, 1, 30}, 3);
    cr_assert_eq(samples_median(&samples), 30.0);
    samples_deinit(&samples);
}

Test(bench_samples, median_of_an_even_count_is_the_mean_of_the_two_middle_values) {
    struct samples samples = {0};
    add_all(&samples, (const uint64_t[]){40, 1, 31, 900}, 4);
    cr_assert_eq(samples_median(&samples), 35.5);
    samples_deinit(&samples);
}

Test(bench_samples, grows_past_its_first_room_and_keeps_every_value) {
    struct samples samples = {0};
    for (uint64_t i = 0; i < 5001; i++)
        cr_assert_eq(samples_add(&samples, 5000 - i), 0);
    cr_assert_eq(samples.count, 5001);
    cr_assert_eq(samples_median(&samples), 2500.0);
    samples_deinit(&samples);
}
