/* SPDX-License-Identifier: Apache-2.0
 *
 * What the control group of this process may use.
 *
 * /proc/PID/cgroup says which group ("4:memory:/docker/abc" in version 1, "0::/docker/abc" in
 * version 2), /proc/PID/mountinfo where the tree of groups is mounted, and which group is its root
 * there: in a container that may be the container's own, and then the path begins with it. See
 * cgroups(7), proc_pid_mountinfo(5).
 *
 * A limit of any group above ours holds for us, too; the tightest one counts. Groups above the root
 * of what is mounted cannot be seen from here.
 */
#include "host/cgroup.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PATH_BYTES 1024
#define LINE_BYTES 4096
/* Version 1 writes "no limit" as the largest number of whole pages. */
#define UNLIMITED_BYTES (1ull << 62)

struct group {
    bool version_2;
    char path[PATH_BYTES];  /* as /proc/PID/cgroup gives it */
    char mount[PATH_BYTES]; /* where the tree is mounted */
    char top[PATH_BYTES];   /* the group that is its root there */
};

/* A whole word of a list with commas: "memory" is not in "memory_migrate". */
static bool cgroup_list_has(const char *list, const char *word) {
    size_t length = strlen(word);
    for (const char *at = list; (at = strstr(at, word)); at += length)
        if ((at == list || at[-1] == ',') && (at[length] == ',' || !at[length]))
            return true;
    return false;
}

/* Calls line_is(group, line) for each line of DIRECTORY/NAME until it says yes. */
static bool cgroup_find_line(const char *directory, const char *name, struct group *group,
                             const char *controller,
                             bool (*line_is)(struct group *group, char *line,
                                             const char *controller)) {
    char path[PATH_BYTES], line[LINE_BYTES];
    bool found = false;
    snprintf(path, sizeof path, "%s/%s", directory, name);
    FILE *file = fopen(path, "re");
    while (file && !found && fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = '\0';
        found = line_is(group, line, controller);
    }
    if (file)
        fclose(file);
    return found;
}

/* "4:memory:/path"; a line of version 2 has no controllers. */
static bool cgroup_group_is(struct group *group, char *line, const char *controller) {
    char *controllers = strchr(line, ':'), *path = controllers ? strchr(controllers + 1, ':') : 0;
    if (!path)
        return false;
    *path++ = '\0';
    controllers++;
    if (controller ? !cgroup_list_has(controllers, controller) : *controllers != '\0')
        return false;
    group->version_2 = !controller;
    snprintf(group->path, sizeof group->path, "%s", path);
    return true;
}

/* "35 31 0:32 /top /mount rw,relatime shared:1 - cgroup cgroup rw,memory" */
static bool cgroup_mount_is(struct group *group, char *line, const char *controller) {
    char top[PATH_BYTES], mount[PATH_BYTES], type[32], options[256];
    const char *rest = strstr(line, " - ");
    if (!rest || sscanf(line, "%*s %*s %*s %1023s %1023s", top, mount) != 2 ||
        sscanf(rest, " - %31s %*s %255s", type, options) != 2)
        return false;
    if (strcmp(type, group->version_2 ? "cgroup2" : "cgroup") != 0 ||
        (!group->version_2 && !cgroup_list_has(options, controller)))
        return false;
    memcpy(group->top, top, sizeof top);
    memcpy(group->mount, mount, sizeof mount);
    return true;
}

/* Version 1 has a tree per controller, version 2 one for all; on some machines both are there, and
 * then a controller is in one of them only. So the first is looked for first. */
static bool cgroup_group_find(const char *proc, const char *controller, struct group *out) {
    if (cgroup_find_line(proc, "cgroup", out, controller, cgroup_group_is))
        return cgroup_find_line(proc, "mountinfo", out, controller, cgroup_mount_is);
    return cgroup_find_line(proc, "cgroup", out, NULL, cgroup_group_is) &&
           cgroup_find_line(proc, "mountinfo", out, NULL, cgroup_mount_is);
}

/* The group's path below the mount point; "" is the root there. */
static const char *cgroup_path_below(const struct group *group) {
    size_t length = strcmp(group->top, "/") == 0 ? 0 : strlen(group->top);
    const char *below = group->path + length;
    if (strncmp(group->path, group->top, length) != 0 || (*below && *below != '/') ||
        strstr(below, "/.."))
        return ""; /* a group outside of what is mounted here */
    return strcmp(below, "/") == 0 ? "" : below;
}

/* A file that is not there, or says "max", is no limit. */
static void cgroup_take_limit(const char *directory, const char *name,
                              struct cgroup_limit *tightest) {
    char path[sizeof tightest->file], text[64] = "";
    uint64_t bytes;
    if ((size_t)snprintf(path, sizeof path, "%s/%s", directory, name) >= sizeof path)
        return;
    FILE *file = fopen(path, "re");
    bool good = file && fgets(text, sizeof text, file) && *text >= '0' && *text <= '9';
    if (file)
        fclose(file);
    if (!good)
        return; /* "max", or no such file: the root group has none */
    bytes = strtoull(text, NULL, 10);
    if (bytes >= UNLIMITED_BYTES || bytes >= tightest->bytes)
        return;
    tightest->bytes = bytes;
    memcpy(tightest->file, path, sizeof path);
}

/* From the group up to the root of what is mounted. name NULL: this version has no such limit. */
static void cgroup_tightest_limit(const struct group *group, const char *root, const char *name_1,
                                  const char *name_2, struct cgroup_limit *out) {
    const char *name = group->version_2 ? name_2 : name_1;
    char directory[3 * PATH_BYTES];
    size_t least = (size_t)snprintf(directory, sizeof directory, "%s%s", root, group->mount);
    snprintf(directory + least, sizeof directory - least, "%s", cgroup_path_below(group));
    while (name && strlen(directory) >= least) {
        cgroup_take_limit(directory, name, out);
        char *slash = strrchr(directory, '/');
        if (!slash)
            return;
        *slash = '\0';
    }
}

/* memory.high is a limit of version 2 only, and kills nobody: the kernel slows the group down. */
void cgroup_limits_read(const char *proc, const char *root, struct cgroup_limits *out) {
    struct group group;
    *out =
        (struct cgroup_limits){{CGROUP_NO_LIMIT, ""}, {CGROUP_NO_LIMIT, ""}, {CGROUP_NO_LIMIT, ""}};
    if (cgroup_group_find(proc, "memory", &group)) {
        cgroup_tightest_limit(&group, root, "memory.limit_in_bytes", "memory.max", &out->memory);
        cgroup_tightest_limit(&group, root, NULL, "memory.high", &out->slow);
    }
    if (cgroup_group_find(proc, "hugetlb", &group))
        cgroup_tightest_limit(&group, root, "hugetlb.2MB.limit_in_bytes", "hugetlb.2MB.max",
                              &out->huge_pages);
}
