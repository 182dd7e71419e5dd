/* SPDX-License-Identifier: Apache-2.0
 *
 * `top`: what happens in this node's broker, drawn anew every second.
 *
 * ask (health, stores, nodes, leases) -> take (top_data.c) -> draw (top_view.c) -> wait for a key
 * or the next second. One thread: while the broker does not answer nothing else happens, which is
 * why its deadline is short. What was seen last stays on the screen then, with the reason above it.
 *
 * The terminal is put back when q is pressed, and when a signal ends the process
 * (top_terminal.c).
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "featurectl/context.h"
#include "featurectl/progress.h"
#include "featurectl/top_terminal.h"

#define ASK_MS          1000u
#define EVERY_MS        1000u
#define EVERY_LEAST_MS  100u
#define EVERY_MOST_MS   60000u
#define LEASES_OF_STORE 64u
#define NS_PER_MS       1000000u

struct top {
    struct context *context;
    struct top_data data;
    struct top_view view;
    char trouble[512]; /* why the last questions had no answer; "" = they had */
    bool quit;
};

/* ---- asking ---- */

/* NULL when there is no answer of that kind; top->trouble says why. */
static Fb__ClientReply *top_ask(struct top *top, Fb__ClientRequest *request,
                                Fb__ClientReply__ResultCase wanted, int *status_out) {
    Fb__ClientReply *reply = NULL;
    *status_out = feature_admin_call(top->context->feature, request, ASK_MS, &reply);
    if (*status_out) {
        snprintf(top->trouble, sizeof top->trouble, "no answer: %s", feature_last_error());
        return NULL;
    }
    if (reply->result_case == wanted)
        return reply;
    snprintf(top->trouble, sizeof top->trouble, "the broker gave another answer than was asked");
    context_free_reply(reply);
    *status_out = FEATURE_E_INTERNAL;
    return NULL;
}

/* Of the stores that have any, a page each: who has more than that is named by the oldest ones. */
static void top_ask_leases(struct top *top, const Fb__StoresReply *stores) {
    top_data_begin_leases(&top->data, false);
    for (size_t i = 0; i < stores->n_stores; i++) {
        Fb__Leases leases = FB__LEASES__INIT;
        Fb__ClientRequest request = FB__CLIENT_REQUEST__INIT;
        int status;
        if (!stores->stores[i]->leases)
            continue;
        leases.store = stores->stores[i]->store;
        leases.limit = LEASES_OF_STORE;
        request.op_case = FB__CLIENT_REQUEST__OP_LEASES;
        request.leases = &leases;
        Fb__ClientReply *reply = top_ask(top, &request, FB__CLIENT_REPLY__RESULT_LEASES, &status);
        if (status == FEATURE_E_DENIED) {
            top_data_begin_leases(&top->data, true);
            *top->trouble = '\0';
            return;
        }
        if (reply)
            top_data_add_leases(&top->data, leases.store, reply->leases);
        context_free_reply(reply);
    }
    top_data_end_leases(&top->data);
}

/* The peers are not asked (deadline 0): what this broker knows of them costs nothing. */
static void top_ask_all(struct top *top) {
    Fb__Health health = FB__HEALTH__INIT;
    Fb__Stores stores = FB__STORES__INIT;
    Fb__Nodes nodes = FB__NODES__INIT;
    Fb__ClientRequest requests[3] = {FB__CLIENT_REQUEST__INIT, FB__CLIENT_REQUEST__INIT,
                                     FB__CLIENT_REQUEST__INIT};
    Fb__ClientReply *replies[3] = {0};
    static const Fb__ClientReply__ResultCase wanted[3] = {FB__CLIENT_REPLY__RESULT_HEALTH,
                                                          FB__CLIENT_REPLY__RESULT_STORES,
                                                          FB__CLIENT_REPLY__RESULT_NODES};
    requests[0].op_case = FB__CLIENT_REQUEST__OP_HEALTH;
    requests[0].health = &health;
    requests[1].op_case = FB__CLIENT_REQUEST__OP_STORES;
    requests[1].stores = &stores;
    requests[2].op_case = FB__CLIENT_REQUEST__OP_NODES;
    requests[2].nodes = &nodes;
    int status = FEATURE_OK;
    *top->trouble = '\0';
    for (size_t i = 0; i < 3 && !status; i++)
        replies[i] = top_ask(top, &requests[i], wanted[i], &status);
    if (!status) {
        struct top_answers answers = {replies[0]->health, replies[1]->stores, replies[2]->nodes};
        top_data_take(&top->data, &answers, progress_now_ns());
        top_ask_leases(top, replies[1]->stores);
        top_data_sort(&top->data, top->view.sort, top->view.reverse);
    }
    for (size_t i = 0; i < 3; i++)
        context_free_reply(replies[i]);
}

/* Everything is drawn anew each time; ncurses sends the terminal only what has changed. */
static void top_draw(struct top *top) {
    struct top_screen screen = top_terminal_screen();
    top->view.trouble = *top->trouble ? top->trouble : NULL;
    top_view_draw(&top->data, &top->view, &screen);
    top_terminal_show();
}

/* ---- keys ---- */

static bool top_sort_key(int key, enum top_sort *out) {
    static const char letters[TOP_SORTS] = {'f', 'n', 'u', 'p', 'g', 'l', 'w'};
    for (int i = 0; i < TOP_SORTS; i++)
        if (key == letters[i] || key == letters[i] - 'a' + 'A') {
            *out = (enum top_sort)i;
            return true;
        }
    return false;
}

/* Not beyond the last store, and by 0 it only brings back what is beyond since a store was
 * dropped.
 */
static void top_scroll(struct top *top, int by) {
    size_t last = top->data.store_count ? top->data.store_count - 1 : 0;
    if (by < 0)
        top->view.first -= top->view.first > (size_t)-by ? (size_t)-by : top->view.first;
    else
        top->view.first += (size_t)by;
    top->view.first = top->view.first > last ? last : top->view.first;
}

/* Sorting begins at the top again: who sorts wants to see the first. */
static void top_key(struct top *top, int key) {
    struct top_view *view = &top->view;
    if (key == 'q' || key == 'Q')
        top->quit = true;
    else if (key == 'r' || key == 'R')
        view->reverse = !view->reverse;
    else if (key == '+' && view->every_ms * 2 <= EVERY_MOST_MS)
        view->every_ms *= 2;
    else if (key == '-' && view->every_ms / 2 >= EVERY_LEAST_MS)
        view->every_ms /= 2;
    else if (key == TOP_KEY_DOWN || key == TOP_KEY_PAGE_DOWN)
        top_scroll(top, key == TOP_KEY_DOWN ? 1 : 10);
    else if (key == TOP_KEY_UP || key == TOP_KEY_PAGE_UP)
        top_scroll(top, key == TOP_KEY_UP ? -1 : -10);
    else if (key == TOP_KEY_HOME || top_sort_key(key, &view->sort))
        view->first = 0;
    top_data_sort(&top->data, view->sort, view->reverse);
}

/* Until it is time to ask again: each key is answered at once. Keys are looked for even when it is
 * late already, for a broker that does not answer takes more time than the interval.
 */
static void top_wait(struct top *top, uint64_t until_ns) {
    uint64_t now_ns;
    do {
        now_ns = progress_now_ns();
        uint64_t left_ns = until_ns > now_ns ? until_ns - now_ns : 0;
        int key = top_terminal_key((int)((left_ns + NS_PER_MS - 1) / NS_PER_MS));
        if (key == TOP_KEY_NONE)
            continue;
        top_key(top, key);
        top_scroll(top, 0);
        top_draw(top);
    } while (!top->quit && now_ns < until_ns);
}

/* With --json or without a terminal it is refused, and says what to use instead: a script that
 * waits for a key for ever would be worse.
 */
static int top_run_top(struct context *context) {
    struct top top = {
        .context = context,
        .view = {.every_ms = options_number(&context->options, "interval", EVERY_MS)}};
    if (context->json || !isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO))
        return context_refuse(context, CTL_E_USAGE, NULL,
                              "it draws on a terminal; for programs there is featurectl --json "
                              "status, stores, nodes and leases");
    if (top.view.every_ms < EVERY_LEAST_MS || top.view.every_ms > EVERY_MOST_MS)
        return context_refuse(context, CTL_E_USAGE, NULL, "--interval is between 100ms and 1min");
    if (!top_terminal_begin())
        return context_refuse(context, CTL_E_LOCAL, getenv("TERM"),
                              "is no terminal that ncurses knows; set TERM, to xterm perhaps");
    top.view.utf8 = top_terminal_is_utf8();
    while (!top.quit) {
        uint64_t begun_ns = progress_now_ns();
        top_ask_all(&top);
        top_scroll(&top, 0);
        top_draw(&top);
        top_wait(&top, begun_ns + top.view.every_ms * NS_PER_MS);
    }
    top_terminal_end();
    top_data_deinit(&top.data);
    return FEATURE_OK;
}

static const struct option_spec options[] = {
    {.name = "interval",
     .letter = 'i',
     .kind = OPTION_DURATION,
     .argument = "TIME",
     .help = "ask anew that often, 100ms to 1min (default 1s)"},
    {0},
};

const struct command command_top = {
    .name = "top",
    .arguments = "",
    .summary = "live: how full stores are and why, rates, peers, oldest leases",
    .details = "Keys: f n u p g l w sort the stores (how full, name, used, puts, gets, leases, "
               "waiting puts), r reverses, arrows scroll, + and - change the interval, q quits. A "
               "store in which puts wait is underlined; below each stands why its memory is not "
               "free.",
    .options = options,
    .run = top_run_top,
};
