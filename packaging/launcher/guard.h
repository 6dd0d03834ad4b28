// The guard of a trial: a small process that starts the origin again when the new version dies or is not blessed in time.
#pragma once
#include "slots.h"

#include <sys/types.h>

// Forks it; it watches this process, which is about to become the daemon. Its pid, or -1.
pid_t guard_start(const struct slots *slots, int slot, const char *root, const char *origin, char **argv);

void guard_stop(pid_t guard);
