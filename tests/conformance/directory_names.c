/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>

#include "conformance/directory_suite.h"

void directory_suite_node_name(uint32_t i, char out[16]) {
    snprintf(out, 16, "node-%u", i);
}

void directory_suite_node_address(uint32_t i, char out[32]) {
    snprintf(out, 32, "127.0.0.1:700%u", i);
}
