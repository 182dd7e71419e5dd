/* SPDX-License-Identifier: Apache-2.0
 *
 * Finds the functions of libibverbs and librdmacm by name when they are needed.
 *
 * Each is asked for with its version (dlvsym): libibverbs also has an older ibv_create_qp, for
 * programs of its first years, whose structs look different. Both libraries are loaded into the
 * global scope and the functions are looked up there, so that a library that was preloaded before
 * them gets its way: tests/vm/programs/qp_error.c breaks QPs like this, and tracers work like this.
 */
#include "transport/rdma/verbs.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>

struct verbs_function {
    const char *version, *name;
    size_t offset; /* of its pointer in the table */
};

static const struct verbs_function functions[] = {
#define VERBS_ROW(version, name) {(version), #name, offsetof(struct verbs, name)},
    VERBS_FUNCTIONS(VERBS_ROW)
#undef VERBS_ROW
};

/* dlerror() names the file and what is wrong with it: "libibverbs.so.1: cannot open shared object
 * file: No such file or directory". */
static int verbs_load_library(const char *file, char *why, size_t why_bytes) {
    if (dlopen(file, RTLD_NOW | RTLD_GLOBAL) != NULL)
        return 0;
    snprintf(why, why_bytes,
             "the RDMA libraries of this machine cannot be loaded (%s); install libibverbs and "
             "librdmacm (packages rdma-core, librdmacm1 or librdmacm)",
             dlerror());
    return -ENODEV;
}

int verbs_load(struct verbs *out, const char *libibverbs, const char *librdmacm, char *why,
               size_t why_bytes) {
    int r = verbs_load_library(libibverbs, why, why_bytes);
    if (r == 0)
        r = verbs_load_library(librdmacm, why, why_bytes);
    for (size_t i = 0; r == 0 && i < sizeof functions / sizeof *functions; i++) {
        void *found = dlvsym(RTLD_DEFAULT, functions[i].name, functions[i].version);
        if (found == NULL) {
            snprintf(why, why_bytes,
                     "%s and %s have no %s of version %s; install rdma-core 22 or newer",
                     libibverbs, librdmacm, functions[i].name, functions[i].version);
            r = -ENODEV;
        }
        *(void **)((char *)out + functions[i].offset) = found;
    }
    return r;
}
