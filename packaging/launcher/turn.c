#define _GNU_SOURCE
#include "turn.h"
#include "say.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

enum { PAUSE_MICROSECONDS = 20000, SPARE_SECONDS = 3, LONGEST_SECONDS = 600 };

static int turn = -1;

// In the directory of the slots, where a try is written too; only root and us may even open it.
static int open_lock(const struct slots *slots, int flags) {
    char path[PATH_MAX];
    if (!path_of(path, "%s/starting", slots->directory))
        return -1;
    return open(path, flags | O_NOFOLLOW | O_CLOEXEC, 0600);
}

bool turn_take(const struct slots *slots) {
    turn_end();
    turn = open_lock(slots, O_RDWR | O_CREAT);
    if (turn < 0)
        return cannot("open %s/starting", slots->directory);
    long patience = slots->record.deadline_seconds ? slots->record.deadline_seconds : LONGEST_SECONDS;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    time_t limit = now.tv_sec + patience + SPARE_SECONDS;  // by then its guard has killed a trial that hangs
    for (bool told = false; flock(turn, LOCK_EX | LOCK_NB); told = true) {
        clock_gettime(CLOCK_MONOTONIC, &now);
        if (errno != EWOULDBLOCK || now.tv_sec > limit) {
            cannot("lock %s/starting", slots->directory);
            turn_end();
            return false;
        }
        if (!told)
            fprintf(stderr, "appliance: a new version is being started already; this start waits for it\n");
        usleep(PAUSE_MICROSECONDS);
    }
    return true;
}

void turn_pass_on(void) {
    char number[16];
    if (turn < 0 || fcntl(turn, F_SETFD, 0))
        return;
    snprintf(number, sizeof number, "%d", turn);
    setenv("APPLIANCE_START_FD", number, 1);
}

void turn_end(void) {
    const char *given = getenv("APPLIANCE_START_FD");  // by the launcher that started us
    if (turn < 0 && given)
        turn = atoi(given);
    if (turn >= 0)
        close(turn);
    turn = -1;
    unsetenv("APPLIANCE_START_FD");
}

bool turn_is_taken(const struct slots *slots) {
    int fd = open_lock(slots, O_RDONLY);
    bool taken = fd >= 0 && flock(fd, LOCK_SH | LOCK_NB) && errno == EWOULDBLOCK;
    if (fd >= 0)
        close(fd);
    return taken;
}
