/* SPDX-License-Identifier: Apache-2.0
 *
 * Samples that are checked while they land: that it happens, and that nothing told on the way makes
 * wrong bytes pass. The fake broker tells what each test wants and then waits until the client has
 * looked at it: a Progress notice comes after it in the same thread.
 */
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <time.h>

#include "unit/client_fixture.h"

#define MIB          1048576u
#define LARGE_BYTES  (5u * MIB)
#define AWAIT_S      20
#define TRANSFER     7u
#define EXTENT_BYTES (LARGE_BYTES + 4096) /* of a sample of two_tensors */

struct script {
    struct fixture *f;
    unsigned gets; /* that came so far */
    bool wanted;   /* the last one asked for Landed */
    /* What happens at the get with this number, from 1, before it is answered. */
    enum fake_verdict (*at_get)(struct script *script, const struct fake_request *request,
                                unsigned number);
    uint64_t told, transfer; /* said in the notices, in the answers */
    sem_t looked;
};

static void show_progress(void *context, uint64_t bytes_done, uint64_t bytes_total) {
    struct script *script = context;
    (void)bytes_done, (void)bytes_total;
    sem_post(&script->looked);
}

static void await(sem_t *semaphore) {
    struct timespec deadline;
    clock_gettime(CLOCK_REALTIME, &deadline);
    deadline.tv_sec += AWAIT_S;
    while (sem_timedwait(semaphore, &deadline) != 0)
        cr_assert_eq(errno, EINTR, "not within %d s", AWAIT_S);
}

static void send_progress(const struct fake_request *request) {
    Fb__Progress progress = FB__PROGRESS__INIT;
    Fb__ClientNotice notice = FB__CLIENT_NOTICE__INIT;
    notice.note_case = FB__CLIENT_NOTICE__NOTE_PROGRESS;
    notice.progress = &progress;
    fake_broker_notice(request, request->header.request_id, &notice);
}

static void tell(const struct fake_request *request, uint32_t item, uint64_t transfer,
                 uint64_t extent_offset, uint64_t bytes) {
    Fb__Landed landed = FB__LANDED__INIT;
    Fb__ClientNotice notice = FB__CLIENT_NOTICE__INIT;
    landed.item = item;
    landed.transfer = transfer;
    landed.extent_offset = extent_offset;
    landed.bytes = bytes;
    notice.note_case = FB__CLIENT_NOTICE__NOTE_LANDED;
    notice.landed = &landed;
    fake_broker_notice(request, request->header.request_id, &notice);
}

static void await_looked(struct script *script, const struct fake_request *request) {
    send_progress(request);
    await(&script->looked);
}

/* Of the index-th sample put. */
static uint64_t extent(const struct script *script, unsigned index) {
    return script->f->broker.samples[index].extent_offset;
}

static void flip(struct script *script, unsigned index, uint64_t at) {
    script->f->broker.arena[extent(script, index) + at] ^= 1;
}

/* Lets the whole of it land, a MiB at a time, and be looked at. */
static void land(struct script *script, const struct fake_request *request, uint32_t item,
                 unsigned index) {
    for (uint64_t bytes = MIB; bytes < EXTENT_BYTES; bytes += MIB)
        tell(request, item, script->told, extent(script, index), bytes);
    tell(request, item, script->told, extent(script, index), EXTENT_BYTES);
    await_looked(script, request);
}

static enum fake_verdict on_request(struct fake_broker *broker,
                                    const struct fake_request *request) {
    struct script *script = broker->context;
    if (request->message->op_case != FB__CLIENT_REQUEST__OP_GET)
        return FAKE_ANSWER;
    script->wanted = request->message->get->want_landed;
    script->gets++;
    return script->at_get ? script->at_get(script, request, script->gets) : FAKE_ANSWER;
}

static void on_reply(struct fake_broker *broker, const struct fake_request *request,
                     Fb__ClientReply *reply) {
    const struct script *script = broker->context;
    (void)request;
    if (reply->result_case != FB__CLIENT_REPLY__RESULT_GET)
        return;
    for (size_t i = 0; i < reply->get->n_items; i++)
        reply->get->items[i]->transfer = script->transfer;
}

static void script_init(struct script *script) {
    *script = (struct script){.f = fixture_new(), .told = TRANSFER, .transfer = TRANSFER};
    sem_init(&script->looked, 0, 0);
    script->f->broker.over_network = true;
    script->f->broker.context = script;
    script->f->broker.on_request = on_request;
    script->f->broker.on_reply = on_reply;
}

static void script_deinit(struct script *script) {
    fixture_free(script->f);
    sem_destroy(&script->looked);
}

static int get(struct script *script, const struct feature_key *key, struct feature_view **out) {
    struct feature_get_options options = {
        .size = sizeof options, .progress = show_progress, .progress_context = script};
    return feature_get(script->f->store, key, &options, out);
}

/* Gets the ref, which must come as it was put, after so many requests. */
static void get_good(struct script *script, const struct feature_ref *ref, unsigned gets) {
    struct feature_view *view;
    OK(get(script, FEATURE_BY_REF(ref), &view));
    assert_two_tensors(view, LARGE_BYTES, 1);
    cr_assert_eq(script->gets, gets, "%u gets, not %u", script->gets, gets);
    OK(feature_release(view, FEATURE_RELEASE_RETURNED));
}

/* ---- who asks ---- */

Test(client_landing, is_asked_for_large_samples_that_are_checked) {
    struct script script;
    struct feature_view *view;
    script_init(&script);
    struct feature_ref *large = put_two_tensors(script.f->store, "large", LARGE_BYTES, 1);
    struct feature_ref *small = put_two_tensors(script.f->store, "small", MIB, 1);
    OK(get(&script, FEATURE_BY_REF(large), &view));
    cr_assert(script.wanted);
    OK(feature_release(view, FEATURE_RELEASE_RETURNED));
    OK(get(&script, FEATURE_BY_REF(small), &view));
    cr_assert_not(script.wanted, "of a small one");
    OK(feature_release(view, FEATURE_RELEASE_RETURNED));
    OK(get(&script, FEATURE_BY_ID("large"), &view));
    cr_assert_not(script.wanted, "by id: what it looks like is not known yet");
    OK(feature_release(view, FEATURE_RELEASE_RETURNED));
    feature_store_close(script.f->store);
    script.f->broker.checksum = FB__CHECKSUM_POLICY__NEVER;
    fake_broker_drop_sessions(&script.f->broker);
    OK(feature_store_open(script.f->feature, FAKE_STORE, NULL, &script.f->store));
    OK(get(&script, FEATURE_BY_REF(large), &view));
    cr_assert_not(script.wanted, "nobody checks");
    OK(feature_release(view, FEATURE_RELEASE_RETURNED));
    feature_ref_free(large);
    feature_ref_free(small);
    script_deinit(&script);
}

/* ---- what counts ---- */

static enum fake_verdict
spoil_after_it_landed(struct script *script, const struct fake_request *request, unsigned number) {
    if (number == 1) {
        land(script, request, 0, 0);
        flip(script, 0, 10);
    } else if (number == 2) {
        flip(script, 0, 10);
    }
    return FAKE_ANSWER;
}

/* No broker does this; it shows that the check happened before the answer, and once. */
Test(client_landing, what_landed_is_not_read_again) {
    struct script script;
    struct feature_view *view;
    script_init(&script);
    struct feature_ref *ref = put_two_tensors(script.f->store, "s", LARGE_BYTES, 1);
    script.at_get = spoil_after_it_landed;
    OK(get(&script, FEATURE_BY_REF(ref), &view));
    cr_assert_eq(script.gets, 1);
    OK(feature_release(view, FEATURE_RELEASE_RETURNED));
    feature_ref_free(ref);
    script_deinit(&script);
}

Test(client_landing, what_landed_by_another_transfer_is_read_again) {
    struct script script;
    script_init(&script);
    struct feature_ref *ref = put_two_tensors(script.f->store, "s", LARGE_BYTES, 1);
    script.at_get = spoil_after_it_landed;
    script.transfer = TRANSFER + 1;
    get_good(&script, ref, 2);
    script.gets = 0;
    script.transfer = 0; /* the bytes were there before */
    get_good(&script, ref, 2);
    script.gets = 0;
    script.told = 0;
    get_good(&script, ref, 2);
    feature_ref_free(ref);
    script_deinit(&script);
}

static enum fake_verdict land_elsewhere(struct script *script, const struct fake_request *request,
                                        unsigned number) {
    if (number == 1)
        land(script, request, 0, 1);
    flip(script, 0, 10);
    return FAKE_ANSWER;
}

Test(client_landing, what_landed_elsewhere_is_read_again) {
    struct script script;
    script_init(&script);
    struct feature_ref *ref = put_two_tensors(script.f->store, "s", LARGE_BYTES, 1);
    feature_ref_free(put_two_tensors(script.f->store, "same bytes", LARGE_BYTES, 1));
    script.at_get = land_elsewhere;
    get_good(&script, ref, 2);
    feature_ref_free(ref);
    script_deinit(&script);
}

static enum fake_verdict land_and_close(struct script *script, const struct fake_request *request,
                                        unsigned number) {
    if (number == 1) {
        land(script, request, 0, 0);
        flip(script, 0, 10);
        return FAKE_CLOSE;
    }
    if (number == 3)
        flip(script, 0, 10);
    return FAKE_ANSWER;
}

/* A broker that starts anew numbers its transfers anew. */
Test(client_landing, what_landed_before_the_connection_broke_is_read_again) {
    struct script script;
    script_init(&script);
    struct feature_ref *ref = put_two_tensors(script.f->store, "s", LARGE_BYTES, 1);
    script.at_get = land_and_close;
    get_good(&script, ref, 3);
    feature_ref_free(ref);
    script_deinit(&script);
}

/* ---- what is found ---- */

static enum fake_verdict land_at_each(struct script *script, const struct fake_request *request,
                                      unsigned number) {
    (void)number;
    land(script, request, 0, 0);
    return FAKE_ANSWER;
}

Test(client_landing, a_wrong_byte_is_found_wherever_it_is) {
    static const struct {
        uint64_t at;
        const char *tensor;
    } places[] = {{0, "tensor a"},           {MIB - 1, "tensor a"},
                  {MIB, "tensor a"},         {LARGE_BYTES - 1, "tensor a"},
                  {LARGE_BYTES, "tensor b"}, {LARGE_BYTES + 99, "tensor b"}};
    struct script script;
    struct feature_view *view;
    script_init(&script);
    struct feature_ref *ref = put_two_tensors(script.f->store, "s", LARGE_BYTES, 1);
    script.at_get = land_at_each;
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        script.gets = 0;
        flip(&script, 0, places[i].at);
        FAILS(FEATURE_E_CORRUPT, get(&script, FEATURE_BY_REF(ref), &view));
        SAYS(places[i].tensor);
        cr_assert_eq(script.gets, 2, "it is asked for once more");
        flip(&script, 0, places[i].at);
        script.gets = 0;
        get_good(&script, ref, 1);
    }
    feature_ref_free(ref);
    script_deinit(&script);
}

static enum fake_verdict land_both(struct script *script, const struct fake_request *request,
                                   unsigned number) {
    if (number > 1) { /* of the corrupt one alone */
        land(script, request, 0, 1);
        return FAKE_ANSWER;
    }
    for (uint64_t bytes = MIB; bytes <= LARGE_BYTES; bytes += MIB)
        for (uint32_t item = 0; item < 2; item++)
            tell(request, item, TRANSFER, extent(script, item), bytes);
    await_looked(script, request);
    return FAKE_ANSWER;
}

Test(client_landing, each_sample_of_a_batch_is_checked_by_itself) {
    struct script script;
    struct feature_ref *refs[2];
    script_init(&script);
    refs[0] = put_two_tensors(script.f->store, "s0", LARGE_BYTES, 1);
    refs[1] = put_two_tensors(script.f->store, "s1", LARGE_BYTES, 2);
    struct feature_get_item items[2] = {FEATURE_GET_ITEM_INIT, FEATURE_GET_ITEM_INIT};
    items[0].ref = refs[0], items[1].ref = refs[1];
    struct feature_get_options options = {
        .size = sizeof options, .progress = show_progress, .progress_context = &script};
    script.at_get = land_both;
    flip(&script, 1, 3 * MIB);
    FAILS(FEATURE_E_CORRUPT, feature_get_batch(script.f->store, items, 2, &options));
    cr_assert_eq(items[0].status, FEATURE_OK);
    cr_assert_eq(items[1].status, FEATURE_E_CORRUPT);
    cr_assert_eq(script.gets, 2);
    assert_two_tensors(items[0].view, LARGE_BYTES, 1);
    OK(feature_release(items[0].view, FEATURE_RELEASE_RETURNED));
    feature_ref_free(refs[0]);
    feature_ref_free(refs[1]);
    script_deinit(&script);
}

/* ---- nonsense ---- */

static enum fake_verdict tell_nonsense(struct script *script, const struct fake_request *request,
                                       unsigned number) {
    uint64_t at = extent(script, 0);
    (void)number;
    tell(request, 1, TRANSFER, at, MIB);
    tell(request, UINT32_MAX, TRANSFER, at, MIB);
    tell(request, 0, TRANSFER, UINT64_MAX, MIB);
    tell(request, 0, TRANSFER, UINT64_MAX - 4095, MIB);
    tell(request, 0, TRANSFER, FAKE_ARENA_BYTES, MIB);
    tell(request, 0, TRANSFER, FAKE_ARENA_BYTES - MIB, UINT64_MAX);
    tell(request, 0, TRANSFER, at + 64, MIB);
    tell(request, 0, TRANSFER, at, 0);
    tell(request, 0, TRANSFER, at, 3 * MIB);
    tell(request, 0, TRANSFER, at, MIB); /* less than before */
    tell(request, 0, TRANSFER, at, UINT64_MAX);
    tell(request, 0, TRANSFER, at, MIB);
    await_looked(script, request);
    return FAKE_ANSWER;
}

Test(client_landing, nonsense_is_ignored) {
    struct script script;
    script_init(&script);
    struct feature_ref *ref = put_two_tensors(script.f->store, "s", LARGE_BYTES, 1);
    script.at_get = tell_nonsense;
    get_good(&script, ref, 1);
    feature_ref_free(ref);
    script_deinit(&script);
}

/* ---- other threads ---- */

struct bystander {
    struct script *script;
    struct fake_request asked; /* the get, answered later */
    sem_t busy, go_on;
};

static void be_busy(void *context, uint64_t bytes_done, uint64_t bytes_total) {
    struct bystander *bystander = context;
    (void)bytes_done, (void)bytes_total;
    sem_post(&bystander->busy);
    await(&bystander->go_on);
}

static void *get_busily(void *context) {
    struct bystander *bystander = context;
    struct feature_view *view;
    struct feature_get_options options = {
        .size = sizeof options, .progress = be_busy, .progress_context = bystander};
    OK(feature_get(bystander->script->f->store, FEATURE_BY_ID("s"), &options, &view));
    OK(feature_release(view, FEATURE_RELEASE_RETURNED));
    return NULL;
}

static enum fake_verdict hold_both(struct fake_broker *broker, const struct fake_request *request) {
    struct bystander *bystander = broker->context;
    switch (request->message->op_case) {
    case FB__CLIENT_REQUEST__OP_GET:
        bystander->asked = *request;
        return FAKE_HOLD;
    case FB__CLIENT_REQUEST__OP_HEALTH:
        send_progress(&bystander->asked);
        return FAKE_HOLD;
    default:
        return FAKE_ANSWER;
    }
}

static void *answer_when_busy(void *context) {
    struct bystander *bystander = context;
    await(&bystander->busy);
    fake_broker_answer_held(&bystander->script->f->broker);
    return NULL;
}

/* The getting thread receives for both, and is called away while the other waits for its answer. */
Test(client_landing, a_thread_that_checks_does_not_hold_up_another, .timeout = 60) {
    struct script script;
    struct bystander bystander = {.script = &script};
    pthread_t getting, answering;
    script_init(&script);
    feature_ref_free(put_two_tensors(script.f->store, "s", 100, 1));
    sem_init(&bystander.busy, 0, 0);
    sem_init(&bystander.go_on, 0, 0);
    script.f->broker.context = &bystander;
    script.f->broker.on_request = hold_both;
    script.f->broker.on_reply = NULL;
    cr_assert_eq(pthread_create(&getting, NULL, get_busily, &bystander), 0);
    cr_assert(fake_broker_await(&script.f->broker, FB__CLIENT_REQUEST__OP_GET, 1));
    cr_assert_eq(pthread_create(&answering, NULL, answer_when_busy, &bystander), 0);
    struct feature_health health = {.size = sizeof health};
    OK(feature_health(script.f->feature, &health));
    sem_post(&bystander.go_on);
    pthread_join(getting, NULL);
    pthread_join(answering, NULL);
    sem_destroy(&bystander.busy);
    sem_destroy(&bystander.go_on);
    script_deinit(&script);
}
