// Where the payload lies unpacked: <base>/<payload id>, made once and shared by all that start this file.
#pragma once
#include "payload.h"

#include <limits.h>

struct place {
    char directory[PATH_MAX];
    int lock_fd;  // holds a shared flock on the directory, which keeps it from being swept; -1 when it was not to be had
};

// False, with why_not(), when nowhere is a directory of ours with room that may hold programs.
bool place_find_or_make(const struct payload *payload, struct place *place);
