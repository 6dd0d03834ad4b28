/* A world of its own: network, IPC, host name, users. Mounts: spawn_mounts.c. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "spawn.h"

static void loopback_up(void)
{
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct ifreq lo = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
    if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &lo) < 0)
        fail_fence("bring up", "lo");
    close(fd);
}

void enter_namespaces(const char *flags)
{
    static const struct { int flag; const char *name; } known[] = {
        {CLONE_NEWNET, "network"}, {CLONE_NEWIPC, "ipc"}, {CLONE_NEWUTS, "uts"}, {CLONE_NEWCGROUP, "cgroup"},
    };
    int wanted = (int)number(flags, 16, "read namespaces");
    for (size_t at = 0; at < sizeof known / sizeof *known; at++)
        if (wanted & known[at].flag) {
            if (unshare(known[at].flag) < 0)
                fail_fence("make a namespace:", known[at].name);
            else if (known[at].flag == CLONE_NEWNET)
                loopback_up();
        }
}

static int write_file(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    int good = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
    int cause = errno;
    if (fd >= 0)
        close(fd);
    errno = cause;
    return good;
}

/* Two ids mean themselves, root and the unit's own; all others are nobody's. */
static void map_of(const char *id, char *text, size_t size)
{
    if (id && strcmp(id, "0") != 0)
        snprintf(text, size, "0 0 1\n%s %s 1\n", id, id);
    else
        snprintf(text, size, "0 0 1\n");
}

static void map_from_outside(const struct options *o, pid_t whose)
{
    char path[64], uids[64], gids[64];
    map_of(o->uid, uids, sizeof uids);
    map_of(o->gid, gids, sizeof gids);
    snprintf(path, sizeof path, "/proc/%ld/uid_map", (long)whose);
    int good = write_file(path, uids);
    snprintf(path, sizeof path, "/proc/%ld/gid_map", (long)whose);
    _exit(good && write_file(path, gids) ? 0 : errno);
}

/* Who has no privileges maps only himself; root has a child do it, which stays outside. */
void enter_user_namespace(const struct options *o, int privileged)
{
    if (!o->namespaces || !(number(o->namespaces, 16, "read namespaces") & CLONE_NEWUSER))
        return;
    char text[64];
    int ends[2], status = 0;
    uid_t uid = geteuid();
    gid_t gid = getegid();
    if (!privileged) {
        if (unshare(CLONE_NEWUSER) < 0) {
            fail_fence("make a namespace:", "user");
            return;
        }
        snprintf(text, sizeof text, "%u %u 1\n", uid, uid);
        int good = write_file("/proc/self/uid_map", text) && write_file("/proc/self/setgroups", "deny");
        snprintf(text, sizeof text, "%u %u 1\n", gid, gid);
        if (!good || !write_file("/proc/self/gid_map", text))
            fail("map", "users");
        return;
    }
    pid_t us = getpid(), mapper;
    if (pipe2(ends, O_CLOEXEC) < 0 || (mapper = fork()) < 0)
        fail("map", "users");
    if (mapper == 0) {
        close(ends[1]);
        if (read(ends[0], text, 1) != 1) /* until we are in it */
            _exit(0);
        map_from_outside(o, us);
    }
    int inside = unshare(CLONE_NEWUSER) == 0, cause = errno;
    if (inside && write(ends[1], "x", 1) != 1)
        fail("map", "users");
    close(ends[0]);
    close(ends[1]);
    while (waitpid(mapper, &status, 0) < 0 && errno == EINTR)
        ;
    errno = cause;
    if (!inside) {
        fail_fence("make a namespace:", "user");
    } else if (status != 0) {
        errno = WEXITSTATUS(status);
        fail("map", "users");
    }
}
