/* SPDX-License-Identifier: Apache-2.0
 *
 * `ref`: decodes a ref and prints every field. Asks no broker.
 *
 * A ref in base64 has everything that is known of a generation. A URI has names and numbers
 * only, so that "tensors" is unknown then.
 */
#include <inttypes.h>
#include <stdlib.h>

#include "featurectl/memory.h"
#include "featurectl/select.h"
#include "featurectl/shown.h"
#include "featurectl/units.h"
#include "proto/text.h"

/* Checksums are 16 hexadecimal digits, as xxhsum prints them; null where the store keeps none. */
static json_t *ref_tensor_json(const struct feature_tensor *tensor, bool has_checksum) {
    char checksum[17];
    json_t *shape = json_array();
    for (uint32_t i = 0; i < tensor->rank; i++)
        json_array_append_new(shape, json_integer((json_int_t)tensor->shape[i]));
    snprintf(checksum, sizeof checksum, "%016" PRIx64, tensor->checksum);
    return json_pack("{s:o, s:s, s:o, s:I, s:s?}", "name", shown_json(tensor->name), "dtype",
                     feature_dtype_name(tensor->dtype), "shape", shape, "bytes",
                     (json_int_t)tensor->bytes, "checksum", has_checksum ? checksum : NULL);
}

/* "[4, 4096]"; a scalar is "[]". */
static char *ref_shape_text(const struct feature_tensor *tensor) {
    char *text = memory_copy("[");
    for (uint32_t i = 0; i < tensor->rank; i++) {
        char *longer = memory_print("%s%s%" PRIu64, text, i ? ", " : "", tensor->shape[i]);
        free(text);
        text = longer;
    }
    char *closed = memory_print("%s]", text);
    free(text);
    return closed;
}

/* For people, as a table of its own behind the fields. In JSON the tensors are a list in the one
 * object.
 */
static void ref_print_tensors(struct context *context, const struct feature_ref *ref) {
    static const struct table_column columns[] = {
        {"name", "TENSOR", TABLE_LEFT},      {"dtype", "DTYPE", TABLE_LEFT},
        {"shape", "SHAPE", TABLE_LEFT},      {"bytes", "SIZE", TABLE_RIGHT},
        {"checksum", "XXH3-64", TABLE_LEFT},
    };
    struct table table;
    CONTEXT_TABLE(context, &table, columns);
    for (uint32_t i = 0; i < feature_ref_tensor_count(ref); i++) {
        const struct feature_tensor *tensor = feature_ref_tensor(ref, i);
        char checksum[17], *shape = ref_shape_text(tensor);
        snprintf(checksum, sizeof checksum, "%016" PRIx64, tensor->checksum);
        table_text(&table, tensor->name);
        table_text(&table, feature_dtype_name(tensor->dtype));
        table_text(&table, shape);
        table_bytes(&table, tensor->bytes);
        table_text(&table, feature_ref_has_checksums(ref) ? checksum : NULL);
        table_end_row(&table);
        free(shape);
    }
    table_finish(&table, TABLE_ROWS);
}

/* Opaque bytes: people see them when they are text. */
static void ref_add_metadata(struct table *table, const struct feature_ref *ref) {
    size_t bytes;
    const char *metadata = feature_ref_metadata(ref, &bytes);
    if (bytes == 0) {
        table_text(table, NULL);
        return;
    }
    char *text = text_is_utf8(metadata, bytes) ? shown_bytes(metadata, bytes)
                                               : memory_print("%zu bytes", bytes);
    table_cell(table, shown_json_bytes(metadata, bytes), text);
    free(text);
}

/* Every field, in the order in which a person asks: which sample, where, how large, what is in
 * it.
 */
static void ref_print_ref(struct context *context, const struct feature_ref *ref) {
    static const struct table_column columns[] = {
        {"store", "store", TABLE_LEFT},
        {"sample_id", "sample", TABLE_LEFT},
        {"generation", "generation", TABLE_LEFT},
        {"home", "home", TABLE_LEFT},
        {"incarnation", "incarnation", TABLE_LEFT},
        {"bytes", "bytes", TABLE_LEFT},
        {"metadata", "metadata", TABLE_LEFT},
        {"uri", "uri", TABLE_LEFT},
        {"tensors", "tensors", TABLE_LEFT},
    };
    char count[UNITS_ROOM], *uri = refs_to_uri(ref);
    uint32_t tensor_count = feature_ref_tensor_count(ref);
    json_t *tensors = json_array();
    for (uint32_t i = 0; i < tensor_count; i++)
        json_array_append_new(
            tensors, ref_tensor_json(feature_ref_tensor(ref, i), feature_ref_has_checksums(ref)));
    snprintf(count, sizeof count, "%" PRIu32, tensor_count);
    struct table table;
    CONTEXT_TABLE(context, &table, columns);
    table_text(&table, feature_ref_store(ref));
    table_text(&table, feature_ref_sample_id(ref));
    table_id(&table, feature_ref_generation(ref));
    table_text(&table, feature_ref_home(ref));
    table_id(&table, feature_ref_incarnation(ref));
    table_bytes(&table, feature_ref_bytes(ref));
    ref_add_metadata(&table, ref);
    table_text(&table, uri);
    table_cell(&table, tensors, tensor_count ? count : "not known (a URI carries none)");
    table_end_row(&table);
    table_finish(&table, TABLE_FIELDS);
    free(uri);
    if (!context->json && tensor_count) {
        fputc('\n', context->out);
        ref_print_tensors(context, ref);
    }
}

/* Stops at the first that is no ref, for what follows would be about something else than was
 * asked.
 */
static int ref_run_ref(struct context *context) {
    struct targets targets;
    int status = select_targets(context, &targets);
    for (size_t i = 0; i < targets.count && !status; i++) {
        if (!targets.list[i].ref)
            status = context_refuse(context, FEATURE_E_INVALID, targets.list[i].text,
                                    "STORE/SAMPLE is not a ref: there is nothing to decode");
        else
            ref_print_ref(context, targets.list[i].ref);
    }
    status = status ? status : targets.damage;
    refs_free(&targets);
    return status;
}

static const struct option_spec options[] = {OPTION_MANIFEST, OPTION_ID, {0}};

const struct command command_ref = {
    .name = "ref",
    .arguments = "[REF...]",
    .summary = "decode a ref and print every field; asks no broker",
    .options = options,
    .arguments_max = COMMAND_ARGUMENTS_ANY,
    .offline = true,
    .run = ref_run_ref,
};
