// The slot record: which of two versions to start, and how many tries a new one has left.
//
// The file is two copies of 4096 bytes, each of ASCII lines padded with newlines:
//     appliance-slots 1
//     sequence 17
//     base <payload id of the file that seeded the slots, or "-">
//     slot a <version> <sha256> priority=2 tries=0 blessed=1
//     slot b <version or -> <sha256 or -> priority=3 tries=3 blessed=0
//     deadline 600                   seconds, 0 for none
//     denied <version> <sha256>
//     check <crc32 of all bytes before this line, 8 hex digits>
// Lines and words after those above are kept and ignored: an old launcher must be able to start a newer appliance.
//
// Nothing here touches the disk.
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { RECORD_COPY = 4096, RECORD_SIZE = 2 * RECORD_COPY, RECORD_WORD = 72 };

struct slot {
    char version[RECORD_WORD];
    char sha256[RECORD_WORD];
    long priority;
    long tries;
    bool blessed;
};

struct record {
    uint64_t sequence;
    char base[RECORD_WORD];
    struct slot slot[2];  // a, b
    long deadline_seconds;
};

// One copy. False when it is not whole: `record` is then not to be used.
bool record_parse(const char copy[RECORD_COPY], struct record *record);

// The valid copy with the higher sequence: 0 or 1; -1 when neither is valid.
int record_newest(const char file[RECORD_SIZE], struct record *record);

// The slot to start (0 or 1) among those that `exists`; -1 for none. Slots that need a try count only if `may_try`.
int record_pick(const struct record *record, const bool exists[2], bool may_try);

// Writes into `out` the copy that follows `copy`: one try less for `slot`, the next sequence. False when it cannot be.
bool record_spend(const char copy[RECORD_COPY], int slot, char out[RECORD_COPY]);
