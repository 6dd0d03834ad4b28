/* How much the program may use, and how urgent it is: what needs no cgroup. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "spawn.h"

enum { IOPRIO_WHO_PROCESS = 1, IOPRIO_CLASS_SHIFT = 13 };

static rlim_t limit_value(const char *text)
{
    return strcmp(text, "infinity") == 0 ? RLIM_INFINITY : number(text, 10, "read limit");
}

/* As systemd: where we may not go that far (no CAP_SYS_RESOURCE, as in many containers), as far as we may. A limit that
 * is lower than what we have can always be set, so this never lets a program use more than was wanted. */
static int set_closest(int which, struct rlimit values, const char *limit)
{
    struct rlimit ours;
    if (setrlimit(which, &values) == 0)
        return 0;
    if (errno != EPERM || getrlimit(which, &ours) < 0)
        return -1;
    if (values.rlim_max > ours.rlim_max)
        values.rlim_max = ours.rlim_max;
    if (values.rlim_cur > values.rlim_max)
        values.rlim_cur = values.rlim_max;
    if (setrlimit(which, &values) < 0)
        return -1;
    dprintf(STDERR_FILENO, "appliance: limit %s is lowered to %llu: we may not raise it\n", limit,
            (unsigned long long)values.rlim_max);
    return 0;
}

/* RESOURCE:SOFT:HARD, as often as wanted. */
void set_limits(const struct options *o)
{
    int at = 0;
    for (const char *limit; (limit = next_option(o, "--limit", &at)); ) {
        char text[128], *rest = text;
        if (strlen(limit) >= sizeof text)
            refuse("read limit", limit);
        strcpy(text, limit);
        char *which = strsep(&rest, ":"), *soft = strsep(&rest, ":");
        if (!soft || !rest)
            refuse("read limit", limit);
        struct rlimit values = {limit_value(soft), limit_value(rest)};
        if (set_closest((int)number(which, 10, "read limit"), values, limit) < 0)
            fail("set limit", limit);
    }
}

static long signed_number(const char *text, const char *what)
{
    return *text == '-' ? -(long)number(text + 1, 10, what) : (long)number(text, 10, what);
}

static void split(const char *text, unsigned long pair[2], const char *what)
{
    char copy[64], *rest = copy;
    if (strlen(text) >= sizeof copy || !strchr(text, ':'))
        refuse(what, text);
    strcpy(copy, text);
    pair[0] = number(strsep(&rest, ":"), 10, what);
    pair[1] = number(rest, 10, what);
}

static void set_cpus(const char *list)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    char *copy = strdup(list), *rest = copy;
    for (char *word; copy && (word = strsep(&rest, ",")); )
        CPU_SET(number(word, 10, "read cpus"), &set);
    free(copy);
    if (sched_setaffinity(0, sizeof set, &set) < 0)
        fail("set cpus", list);
}

void set_priorities(const struct options *o)
{
    unsigned long pair[2];
    if (o->oom_score_adjust) {
        int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
        if (fd < 0 || write(fd, o->oom_score_adjust, strlen(o->oom_score_adjust)) < 0) {
            if (errno != EACCES && errno != EPERM) /* in a container we may not lower it: as systemd, go on */
                fail("set oom_score_adjust", o->oom_score_adjust);
            dprintf(STDERR_FILENO, "appliance: oom_score_adjust stays as it is: we may not set %s\n",
                    o->oom_score_adjust);
        }
        close(fd);
    }
    if (o->nice && setpriority(PRIO_PROCESS, 0, (int)signed_number(o->nice, "read nice")) < 0)
        fail("set nice", o->nice);
    if (o->scheduling) {
        split(o->scheduling, pair, "read scheduling");
        struct sched_param priority = {.sched_priority = (int)pair[1]};
        if (sched_setscheduler(0, (int)pair[0], &priority) < 0)
            fail("set cpu_scheduling", o->scheduling);
    }
    if (o->io_scheduling) {
        split(o->io_scheduling, pair, "read io_scheduling");
        if (syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, pair[0] << IOPRIO_CLASS_SHIFT | pair[1]) < 0)
            fail("set io_scheduling", o->io_scheduling);
    }
    if (o->cpus)
        set_cpus(o->cpus);
}
