// The slots on the disk: which file to start, and the try spent before it is.
#pragma once
#include "record.h"

#include <limits.h>

struct slots {
    char directory[PATH_MAX];    // <root>/var/lib/appliance/slots
    char lock_file[PATH_MAX];    // held by the daemon of this root
    struct record record;
    bool has_record;
    bool exists[2];
};

struct choice {
    int slot;                    // 0, 1; -1: run this very file
    bool trial;
    char file[PATH_MAX];         // of the slot
};

// Reads what there is below `root`. False when there is nothing to pick from, or nothing that can be trusted.
bool slots_read(const char *root, struct slots *slots);

// Whether the open file is one of the slots' own.
bool slots_hold(const struct slots *slots, int fd);

// The slot to start. For `run`, a new version's try is spent on the disk before this returns.
struct choice slots_choose(struct slots *slots, bool for_run);

bool slots_daemon_runs(const struct slots *slots);
