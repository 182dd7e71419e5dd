/* SPDX-License-Identifier: Apache-2.0
 *
 * The bytes of simulated samples. A sample is one tensor whose words are nonce, nonce + K,
 * nonce + 2K ...: whoever reads it sees which put it came from and whether all of it did.
 */
#include "model/cluster_sim.h"

#include <string.h>

#include "model/cluster_clients.h"

#define WORD_STEP 0x9e3779b97f4a7c15u

void clients_fill(uint8_t *at, uint64_t nonce, uint64_t bytes) {
    for (uint64_t k = 0; k < bytes / 8; k++) {
        uint64_t word = nonce + k * WORD_STEP;
        memcpy(at + 8 * k, &word, 8);
    }
}

uint64_t payload_nonce(const uint8_t *at) {
    uint64_t nonce;
    memcpy(&nonce, at, sizeof nonce);
    return nonce;
}

bool payload_matches(const uint8_t *at, uint64_t nonce, uint64_t bytes) {
    uint64_t wrong = 0;
    for (uint64_t k = 0; k < bytes / 8; k++) {
        uint64_t word;
        memcpy(&word, at + 8 * k, 8);
        wrong |= word ^ (nonce + k * WORD_STEP);
    }
    return wrong == 0;
}
