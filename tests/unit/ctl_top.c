/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "featurectl/store_why.h"
#include "featurectl/top_view.h"

#define ROWS    24
#define COLUMNS 80
#define SECOND  UINT64_C(1000000000)

/* ---- what is taken ---- */

struct moment {
    Fb__HealthReply health;
    Fb__StoreSettings settings[2];
    Fb__StoreInfo infos[2], *list[2];
    Fb__StoresReply stores;
    Fb__NodeInfo peer, *nodes[1];
    Fb__NodesReply members;
};

static void moment_init(struct moment *m) {
    fb__health_reply__init(&m->health);
    fb__stores_reply__init(&m->stores);
    fb__nodes_reply__init(&m->members);
    fb__node_info__init(&m->peer);
    for (int i = 0; i < 2; i++) {
        fb__store_info__init(&m->infos[i]);
        fb__store_settings__init(&m->settings[i]);
        m->infos[i].settings = &m->settings[i];
        m->settings[i].max_resident_bytes = 100;
        m->list[i] = &m->infos[i];
    }
    m->infos[0].store = "alpha";
    m->infos[1].store = "beta";
    m->stores.stores = m->list;
    m->stores.n_stores = 2;
    m->peer.node = "b";
    m->peer.state = "up";
    m->nodes[0] = &m->peer;
    m->members.nodes = m->nodes;
    m->members.n_nodes = 1;
    m->health.node = "a";
    m->health.ready = true;
}

static void moment_take(struct moment *m, struct top_data *data, uint64_t now_ns) {
    struct top_answers answers = {&m->health, &m->stores, &m->members};
    top_data_take(data, &answers, now_ns);
}

Test(ctl_top, rates_are_what_changed_since_the_last_answer) {
    struct moment m;
    struct top_data data = {0};
    moment_init(&m);
    m.infos[0].puts = 1000;
    m.peer.bytes_in = 5000;
    moment_take(&m, &data, 10 * SECOND);
    cr_expect_eq(data.stores[0].puts_per_s, 0, "nothing is known of before");
    m.infos[0].puts = 1030;
    m.peer.bytes_in = 7000;
    moment_take(&m, &data, 12 * SECOND);
    cr_expect_eq(data.stores[0].puts_per_s, 15);
    cr_expect_eq(data.puts_per_s, 15);
    cr_expect_eq(data.peers[0].in_per_s, 1000);
    m.infos[0].puts = 7; /* it has started anew */
    m.peer.bytes_in = 0;
    moment_take(&m, &data, 13 * SECOND);
    cr_expect_eq(data.stores[0].puts_per_s, 0);
    cr_expect_eq(data.peers[0].in_per_s, 0);
    top_data_deinit(&data);
}

Test(ctl_top, a_store_keeps_its_history_and_takes_it_along) {
    struct moment m;
    struct top_data data = {0};
    moment_init(&m);
    for (unsigned i = 0; i < TOP_POINTS + 5; i++) {
        m.infos[1].resident_bytes = i % 100;
        moment_take(&m, &data, (i + 1) * SECOND);
        top_data_sort(&data, TOP_BY_FULL, false);
    }
    cr_expect_str_eq(data.stores[0].name, "beta", "the fullest first");
    cr_expect_eq(data.stores[0].used.count, TOP_POINTS);
    cr_expect_eq(data.stores[0].used.points[TOP_POINTS - 1], (TOP_POINTS + 4) / 100.0);
    top_data_sort(&data, TOP_BY_NAME, false);
    cr_expect_str_eq(data.stores[0].name, "alpha");
    top_data_sort(&data, TOP_BY_NAME, true);
    cr_expect_str_eq(data.stores[0].name, "beta");
    m.stores.n_stores = 1; /* beta is dropped */
    moment_take(&m, &data, 100 * SECOND);
    cr_expect_eq(data.store_count, 1);
    cr_expect_str_eq(data.stores[0].name, "alpha");
    m.stores.n_stores = 2;
    moment_take(&m, &data, 101 * SECOND);
    cr_expect_eq(data.stores[1].used.count, 1, "another store of that name");
    top_data_deinit(&data);
}

Test(ctl_top, of_leases_the_oldest_are_kept) {
    struct top_data data = {0};
    Fb__LeasesReply leases = FB__LEASES_REPLY__INIT;
    Fb__LeaseInfo infos[250], *list[250];
    for (int i = 0; i < 250; i++) {
        fb__lease_info__init(&infos[i]);
        infos[i].age_ms = (uint64_t)i;
        infos[i].sample_id = "s";
        list[i] = &infos[i];
    }
    leases.leases = list;
    leases.n_leases = 250;
    top_data_begin_leases(&data, false);
    top_data_add_leases(&data, "run", &leases);
    top_data_end_leases(&data);
    cr_expect_eq(data.oldest_count, 200);
    cr_expect_eq(data.oldest[0].age_ms, 249);
    cr_expect_eq(data.oldest[199].age_ms, 50);
    top_data_deinit(&data);
}

/* ---- why a store is not free ---- */

Test(ctl_top, why_says_what_keeps_the_memory) {
    struct moment m;
    Fb__LeaseInfo first = FB__LEASE_INFO__INIT;
    moment_init(&m);
    char *why = store_why(&m.infos[0]);
    cr_expect_str_eq(why, "");
    free(why);
    m.infos[0].resident = 1;
    m.infos[0].retired_bytes = 4096;
    m.infos[0].reserved_bytes = 2048;
    m.infos[0].put_waiters = 2;
    m.infos[0].first_waiter = &first;
    m.settings[0].policy = FB__POLICY__ON_ACK;
    first.holder = "session 3";
    first.age_ms = 5000;
    why = store_why(&m.infos[0]);
    cr_expect_str_eq(why, "2 puts wait, first session 3 (5 s); 2.0 KiB being written; 4.0 KiB "
                          "retired and still read; 1 sample to be acked");
    free(why);
}

/* ---- what is drawn ---- */

struct drawn {
    char rows[ROWS][4 * COLUMNS + 1];
    size_t most_columns, most_rows;
};

static void draw_put(void *user, size_t row, size_t column, enum top_look look, const char *text) {
    struct drawn *drawn = user;
    size_t width = 0;
    (void)look;
    for (const char *c = text; *c; c++)
        width += ((unsigned char)*c & 0xc0) != 0x80;
    cr_assert_lt(row, drawn->most_rows);
    cr_assert_leq(column + width, drawn->most_columns, "%s", text);
    size_t used = strlen(drawn->rows[row]);
    if (used < column)
        snprintf(drawn->rows[row] + used, sizeof drawn->rows[row] - used, "%*s%s",
                 (int)(column - used), "", text);
    else
        snprintf(drawn->rows[row] + used, sizeof drawn->rows[row] - used, "%s", text);
}

Test(ctl_top, nothing_is_drawn_outside_of_any_terminal) {
    struct moment m;
    struct top_data data = {0};
    moment_init(&m);
    m.infos[0].resident = 3;
    m.infos[0].put_waiters = 12345;
    m.infos[0].store = "a-store-whose-name-is-longer-than-its-column-\xc3\xa4\xc3\xb6\xc3\xbc";
    for (unsigned i = 1; i < 70; i++)
        moment_take(&m, &data, i * SECOND);
    for (size_t rows = 1; rows <= ROWS; rows++)
        for (size_t columns = 1; columns <= COLUMNS; columns += 1) {
            struct drawn drawn = {.most_columns = columns, .most_rows = rows};
            struct top_view view = {.utf8 = true, .every_ms = 1000};
            struct top_screen screen = {
                .rows = rows, .columns = columns, .put = draw_put, .user = &drawn};
            top_view_draw(&data, &view, &screen);
        }
    top_data_deinit(&data);
}

Test(ctl_top, a_line_of_blocks_is_as_high_as_its_points) {
    struct top_series series = {.points = {0, 0.01, 0.5, 1, 2}, .count = 5};
    char line[64];
    top_sparkline(&series, 1, 6, false, line);
    cr_expect_str_eq(line, "  .=##", "'%s'", line);
    top_sparkline(&series, 0, 3, false, line); /* of the largest, of the newest three */
    cr_expect_str_eq(line, ":=#", "'%s'", line);
    top_sparkline(&series, 1, 5, true, line);
    cr_expect_str_eq(line, " \xe2\x96\x81\xe2\x96\x84\xe2\x96\x88\xe2\x96\x88", "'%s'", line);
}
