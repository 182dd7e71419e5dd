/* SPDX-License-Identifier: Apache-2.0
 *
 * Memory limits of control groups, from trees made up in a temporary directory.
 */
#include <criterion/criterion.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "environment.h"
#include "host/cgroup.h"
#include "support/checks.h"
#include "support/process.h"

#define MiB (1ull << 20)
#define GiB (1ull << 30)

static char root[] = "/tmp/featured-cgroup-XXXXXX", proc[64];

static void remove_tree(void) {
    struct process_output result;
    process_run(&result, (const char *[]){"/bin/rm", "-r", root, NULL}, 20000);
    process_output_deinit(&result);
}

static void make_root(void) {
    cr_assert_not_null(mkdtemp(root));
    snprintf(proc, sizeof proc, "%s/proc", root);
}

TestSuite(cgroup, .init = make_root, .fini = remove_tree, .timeout = 60);

/* Writes below the root, and makes the directories on the way. */
__attribute__((format(printf, 2, 3))) static void put(const char *name, const char *format, ...) {
    char path[512];
    va_list args;
    snprintf(path, sizeof path, "%s/%s", root, name);
    for (char *slash = path + strlen(root) + 1; (slash = strchr(slash, '/')); slash++) {
        *slash = '\0';
        mkdir(path, 0700);
        *slash = '/';
    }
    FILE *file = fopen(path, "we");
    cr_assert_not_null(file, "%s", path);
    va_start(args, format);
    vfprintf(file, format, args);
    va_end(args);
    fclose(file);
}

static struct cgroup_limits read_limits(void) {
    struct cgroup_limits limits;
    cgroup_limits_read(proc, root, &limits);
    return limits;
}

static const char mounts_1[] =
    "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n"
    "32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct\n"
    "35 31 0:32 %s /sys/fs/cgroup/memory rw shared:14 - cgroup cgroup rw,memory\n"
    "36 31 0:33 / /sys/fs/cgroup/hugetlb rw - cgroup cgroup rw,hugetlb\n";

Test(cgroup, version_1_has_the_tightest_limit_of_the_groups_above) {
    put("proc/cgroup", "5:hugetlb:/\n4:memory:/kube/pod/box\n2:cpu,cpuacct:/kube\n0::/\n");
    put("proc/mountinfo", mounts_1, "/");
    put("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
    put("sys/fs/cgroup/memory/kube/memory.limit_in_bytes", "%llu\n", 8 * GiB);
    put("sys/fs/cgroup/memory/kube/pod/memory.limit_in_bytes", "%llu\n", 2 * GiB);
    put("sys/fs/cgroup/memory/kube/pod/box/memory.limit_in_bytes", "%llu\n", 4 * GiB);
    put("sys/fs/cgroup/hugetlb/hugetlb.2MB.limit_in_bytes", "%llu\n", 6 * MiB);
    struct cgroup_limits limits = read_limits();
    cr_expect_eq(limits.memory.bytes, 2 * GiB);
    cr_expect_not_null(strstr(limits.memory.file, "/kube/pod/memory.limit_in_bytes"), "%s",
                       limits.memory.file);
    cr_expect_eq(limits.slow.bytes, CGROUP_NO_LIMIT);
    cr_expect_eq(limits.huge_pages.bytes, 6 * MiB);
}

/* docker without a cgroup namespace: the path is the host's, the mount shows the container's part.
 */
Test(cgroup, version_1_in_a_container_begins_at_the_containers_group) {
    put("proc/cgroup", "4:memory:/docker/abc/inner\n");
    put("proc/mountinfo", mounts_1, "/docker/abc");
    put("sys/fs/cgroup/memory/memory.limit_in_bytes", "%llu\n", 1 * GiB);
    put("sys/fs/cgroup/memory/inner/memory.limit_in_bytes", "%llu\n", 3 * GiB);
    struct cgroup_limits limits = read_limits();
    cr_expect_eq(limits.memory.bytes, 1 * GiB);
}

Test(cgroup, version_2_tells_death_from_slowness) {
    put("proc/cgroup", "0::/system.slice/featured.service\n");
    put("proc/mountinfo",
        "29 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n");
    put("sys/fs/cgroup/system.slice/memory.max", "max\n");
    put("sys/fs/cgroup/system.slice/memory.high", "%llu\n", 1 * GiB);
    put("sys/fs/cgroup/system.slice/featured.service/memory.max", "%llu\n", 2 * GiB);
    put("sys/fs/cgroup/system.slice/featured.service/memory.high", "max\n");
    put("sys/fs/cgroup/system.slice/featured.service/hugetlb.2MB.max", "%llu\n", 4 * MiB);
    struct cgroup_limits limits = read_limits();
    cr_expect_eq(limits.memory.bytes, 2 * GiB);
    cr_expect_eq(limits.slow.bytes, 1 * GiB);
    cr_expect_eq(limits.huge_pages.bytes, 4 * MiB);
}

/* Hybrid: version 2 is mounted beside and has no controllers. */
Test(cgroup, the_version_that_has_the_memory_is_asked) {
    put("proc/cgroup", "4:memory:/a\n0::/b\n");
    put("proc/mountinfo", "%s41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
        "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n");
    put("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "%llu\n", 1 * GiB);
    put("sys/fs/cgroup/unified/b/memory.max", "%llu\n", 1 * MiB);
    cr_expect_eq(read_limits().memory.bytes, 1 * GiB);
}

Test(cgroup, what_cannot_be_read_limits_nothing) {
    cr_expect_eq(read_limits().memory.bytes, CGROUP_NO_LIMIT);
    put("proc/cgroup", "0::/../elsewhere\n");
    put("proc/mountinfo", "29 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
    put("sys/fs/elsewhere/memory.max", "1\n");
    cr_expect_eq(read_limits().memory.bytes, CGROUP_NO_LIMIT);
    put("proc/cgroup", "nonsense\n0:\n");
    cr_expect_eq(read_limits().memory.bytes, CGROUP_NO_LIMIT);
}

/* ---- what it means for a configuration ---- */

static struct config_store stores[2];
static struct config config;

static void two_stores(uint64_t resident_bytes, uint64_t landing_bytes) {
    config_defaults(&config);
    for (size_t i = 0; i < 2; i++) {
        stores[i] = config.store_defaults;
        stores[i].max_resident_bytes = resident_bytes;
        stores[i].landing_bytes = landing_bytes;
    }
    config.stores = stores;
    config.store_count = 2;
}

static struct cgroup_limits limit(uint64_t bytes) {
    return (struct cgroup_limits){.memory = {bytes, "/the/file"},
                                  .slow = {CGROUP_NO_LIMIT, ""},
                                  .huge_pages = {CGROUP_NO_LIMIT, ""}};
}

static enum environment_verdict judge(uint64_t bytes, char *sentence) {
    struct cgroup_limits limits = limit(bytes);
    return environment_judge_memory(&config, &limits, sentence);
}

Test(cgroup, stores_that_cannot_fit_are_refused_with_limit_need_and_remedy) {
    char sentence[ENVIRONMENT_SENTENCE_BYTES];
    two_stores(512 * MiB, 256 * MiB);
    cr_expect_eq(judge(1536 * MiB - 1, sentence), ENVIRONMENT_TOO_SMALL);
    const char *said[] = {"memory limit", "cgroup", "1.5 GiB", "/the/file", "MemoryMax="};
    for (size_t i = 0; i < sizeof said / sizeof *said; i++)
        cr_expect_not_null(strstr(sentence, said[i]), "no %s in: %s", said[i], sentence);
    cr_expect_eq(judge(1536 * MiB, sentence), ENVIRONMENT_TIGHT, "the broker itself needs some");
    cr_expect_not_null(strstr(sentence, "may kill"), "%s", sentence);
    cr_expect_eq(judge(2 * GiB, sentence), ENVIRONMENT_FITS);
    cr_expect_not_null(strstr(sentence, "2 GiB"), "a limit is worth a line: %s", sentence);
    cr_expect_eq(judge(CGROUP_NO_LIMIT, sentence), ENVIRONMENT_FITS);
    cr_expect_str_eq(sentence, "");
}

Test(cgroup, huge_pages_are_judged_by_their_own_limit) {
    char sentence[ENVIRONMENT_SENTENCE_BYTES];
    two_stores(512 * MiB, 0);
    config.hugepages = 2; /* require */
    cr_expect_eq(judge(512 * MiB, sentence), ENVIRONMENT_FITS);
    struct cgroup_limits limits = limit(CGROUP_NO_LIMIT);
    limits.huge_pages = (struct cgroup_limit){1 * GiB - 1, "/huge"};
    cr_expect_eq(environment_judge_memory(&config, &limits, sentence), ENVIRONMENT_TOO_SMALL);
    cr_expect_not_null(strstr(sentence, "/huge"), "%s", sentence);
}

Test(cgroup, memory_high_is_told_of_and_goes_on) {
    char sentence[ENVIRONMENT_SENTENCE_BYTES];
    two_stores(512 * MiB, 0);
    struct cgroup_limits limits = limit(CGROUP_NO_LIMIT);
    limits.slow = (struct cgroup_limit){256 * MiB, "/the/high"};
    cr_expect_eq(environment_judge_memory(&config, &limits, sentence), ENVIRONMENT_TIGHT);
    cr_expect_not_null(strstr(sentence, "slows"), "%s", sentence);
}

Test(cgroup, limits_of_the_process_are_judged_too) {
    char sentence[ENVIRONMENT_SENTENCE_BYTES];
    two_stores(512 * MiB, 0);
    cr_expect_eq(environment_judge_address_space(&config, UINT64_MAX, sentence), ENVIRONMENT_FITS);
    cr_expect_eq(environment_judge_address_space(&config, 1 * GiB, sentence),
                 ENVIRONMENT_TOO_SMALL);
    cr_expect_not_null(strstr(sentence, "RLIMIT_AS"), "%s", sentence);
    config.max_sessions = 1024;
    cr_expect_eq(environment_judge_files(&config, 65536, sentence), ENVIRONMENT_FITS);
    cr_expect_eq(environment_judge_files(&config, 1024, sentence), ENVIRONMENT_TIGHT);
    cr_expect_not_null(strstr(sentence, "LimitNOFILE="), "%s", sentence);
    cr_expect_eq(environment_judge_file_size(&config, 512 * MiB, sentence), ENVIRONMENT_FITS);
    cr_expect_eq(environment_judge_file_size(&config, 512 * MiB - 1, sentence),
                 ENVIRONMENT_TOO_SMALL);
    cr_expect_not_null(strstr(sentence, "LimitFSIZE="), "%s", sentence);
}
