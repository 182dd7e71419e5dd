/* SPDX-License-Identifier: Apache-2.0
 *
 * No state. The format is that of POSIX.1-2017, pax, "ustar Interchange Format": a header of 512
 * bytes with numbers in octal, the data, padded to a multiple of 512; two empty blocks at the end.
 * tar(1), Python's tarfile and every file manager read it.
 */
#include "featurectl/bundle_tar.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define BLOCK_BYTES 512u

/* The header's fields, in bytes; the strings end with a zero where there is room for it. */
struct ustar {
    char name[100], mode[8], uid[8], gid[8], size[12], mtime[12], checksum[8], type, link[100],
        magic[6], version[2], uname[32], gname[32], major[8], minor[8], prefix[155], pad[12];
};
_Static_assert(sizeof(struct ustar) == BLOCK_BYTES, "a header is a block");

/* The sum of all bytes of the header, its own field taken for blanks. */
static void bundle_tar_sum(struct ustar *header) {
    unsigned sum = 0;
    const unsigned char *bytes = (const unsigned char *)header;
    memset(header->checksum, ' ', sizeof header->checksum);
    for (size_t i = 0; i < sizeof *header; i++)
        sum += bytes[i];
    snprintf(header->checksum, sizeof header->checksum, "%06o", sum);
}

/* Owner and mode are always the same: whoever unpacks it gets files of his own. */
int bundle_tar_add(struct output_file *out, const char *name, const char *data, size_t bytes,
                   uint64_t mtime, char *why, size_t why_bytes) {
    static const char zeros[BLOCK_BYTES];
    struct ustar header = {.type = '0', .magic = "ustar", .version = {'0', '0'}};
    snprintf(header.name, sizeof header.name, "%s", name);
    snprintf(header.mode, sizeof header.mode, "%07o", 0600);
    snprintf(header.uid, sizeof header.uid, "%07o", 0);
    snprintf(header.gid, sizeof header.gid, "%07o", 0);
    snprintf(header.size, sizeof header.size, "%011" PRIo64, (uint64_t)bytes);
    snprintf(header.mtime, sizeof header.mtime, "%011" PRIo64, mtime);
    snprintf(header.uname, sizeof header.uname, "root");
    snprintf(header.gname, sizeof header.gname, "root");
    bundle_tar_sum(&header);
    int error = output_file_write(out, &header, sizeof header, NULL, NULL, why, why_bytes);
    if (!error)
        error = output_file_write(out, data, bytes, NULL, NULL, why, why_bytes);
    size_t pad = (BLOCK_BYTES - bytes % BLOCK_BYTES) % BLOCK_BYTES;
    return error ? error : output_file_write(out, zeros, pad, NULL, NULL, why, why_bytes);
}

int bundle_tar_end(struct output_file *out, char *why, size_t why_bytes) {
    static const char zeros[2 * BLOCK_BYTES];
    return output_file_write(out, zeros, sizeof zeros, NULL, NULL, why, why_bytes);
}
