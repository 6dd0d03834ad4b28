/* hold: `spawn --hold` keeps file descriptors while the appliance dies, is killed, or becomes another version.
 *
 * It serves on descriptor 3, a listening SOCK_SEQPACKET socket of the unix family. A request is one packet: a letter,
 * then a key and a name, each ended by a NUL. Every answer begins with a packet of one int32.
 *   P key name + one descriptor   keep it (one that is the same open file under that key and name is kept once): 0
 *   T key ""                      hand out copies: how many, then a packet with the name and the descriptor for each
 *   D key name                    let go of those with that name ("" means all of that key): how many are left in all
 *   L "" ""                       how many, then a packet with the key for each one held
 *   E "" ""                       0, and it is over
 * A negative answer is an errno. An appliance of any version may meet a holder of any other: letters are only added.
 *
 * It ends by itself once it holds nothing and nobody is connected.
 */
#define _GNU_SOURCE
#include "hold.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { LISTENER = 3, CALLERS_MAX = 8, REQUEST_BYTES_MAX = 8192 };

struct held {
    char *key, *name;
    int fd;
};

static struct held *table;
static size_t held_count, held_space;
static struct pollfd watched[1 + CALLERS_MAX];
static int callers;

static int same_file(int one, int other)
{
    pid_t self = getpid();
    return syscall(SYS_kcmp, self, self, KCMP_FILE, one, other) == 0; /* where it is forbidden: kept twice */
}

static int32_t keep(const char *key, const char *name, int fd)
{
    for (size_t at = 0; at < held_count; at++)
        if (strcmp(table[at].key, key) == 0 && strcmp(table[at].name, name) == 0 && same_file(table[at].fd, fd)) {
            close(fd);
            return 0;
        }
    if (held_count == held_space) {
        size_t space = held_space ? 2 * held_space : 16;
        struct held *bigger = realloc(table, space * sizeof *bigger);
        if (!bigger)
            return -ENOMEM;
        table = bigger;
        held_space = space;
    }
    struct held one = {strdup(key), strdup(name), fd};
    if (!one.key || !one.name) {
        free(one.key);
        free(one.name);
        return -ENOMEM;
    }
    table[held_count++] = one;
    return 0;
}

static int32_t drop(const char *key, const char *name)
{
    size_t left = 0;
    for (size_t at = 0; at < held_count; at++) {
        if (strcmp(table[at].key, key) == 0 && (!*name || strcmp(table[at].name, name) == 0)) {
            close(table[at].fd);
            free(table[at].key);
            free(table[at].name);
        } else {
            table[left++] = table[at]; /* in the order in which they came */
        }
    }
    held_count = left;
    return (int32_t)left;
}

static int say(int caller, const void *data, size_t size, int fd)
{
    union { char space[CMSG_SPACE(sizeof(int))]; struct cmsghdr align; } attached = {0};
    struct iovec piece = {(void *)data, size};
    struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1};
    if (fd >= 0) {
        message.msg_control = &attached;
        message.msg_controllen = sizeof attached;
        struct cmsghdr *first = CMSG_FIRSTHDR(&message);
        first->cmsg_level = SOL_SOCKET;
        first->cmsg_type = SCM_RIGHTS;
        first->cmsg_len = CMSG_LEN(sizeof fd);
        memcpy(CMSG_DATA(first), &fd, sizeof fd);
    }
    ssize_t sent;
    do
        sent = sendmsg(caller, &message, MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    return sent >= 0;
}

static int say_number(int caller, int32_t number)
{
    return say(caller, &number, sizeof number, -1);
}

static int hand_out(int caller, const char *key)
{
    int32_t count = 0;
    for (size_t at = 0; at < held_count; at++)
        count += strcmp(table[at].key, key) == 0;
    int well = say_number(caller, count);
    for (size_t at = 0; well && at < held_count; at++)
        if (strcmp(table[at].key, key) == 0)
            well = say(caller, table[at].name, strlen(table[at].name) + 1, table[at].fd);
    return well;
}

static int list(int caller)
{
    int well = say_number(caller, (int32_t)held_count);
    for (size_t at = 0; well && at < held_count; at++)
        well = say(caller, table[at].key, strlen(table[at].key) + 1, -1);
    return well;
}

/* One request; 0 when the caller is gone or talks nonsense. */
static int serve(int caller)
{
    static char buffer[REQUEST_BYTES_MAX];
    union { char space[CMSG_SPACE(sizeof(int))]; struct cmsghdr align; } attached;
    struct iovec piece = {buffer, sizeof buffer};
    struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1, .msg_control = &attached, .msg_controllen = sizeof attached};
    ssize_t size;
    do
        size = recvmsg(caller, &message, MSG_CMSG_CLOEXEC);
    while (size < 0 && errno == EINTR);
    int fd = -1;
    struct cmsghdr *first = size > 0 ? CMSG_FIRSTHDR(&message) : NULL;
    if (first && first->cmsg_level == SOL_SOCKET && first->cmsg_type == SCM_RIGHTS)
        memcpy(&fd, CMSG_DATA(first), sizeof fd);
    const char *key = buffer + 1;
    const char *end = size > 2 ? memchr(key, 0, (size_t)size - 1) : NULL;
    const char *name = end ? end + 1 : NULL;
    if (!name || name >= buffer + size || buffer[size - 1] != 0 || message.msg_flags & MSG_TRUNC) {
        if (fd >= 0)
            close(fd);
        return 0;
    }
    if (buffer[0] == 'P') {
        int32_t answer = fd < 0 ? (message.msg_flags & MSG_CTRUNC ? -EMFILE : -EBADF) : keep(key, name, fd);
        if (answer < 0 && fd >= 0)
            close(fd);
        return say_number(caller, answer);
    }
    if (fd >= 0)
        close(fd);
    switch (buffer[0]) {
    case 'T':
        return hand_out(caller, key);
    case 'D':
        return say_number(caller, drop(key, name));
    case 'L':
        return list(caller);
    case 'E': /* whoever has the answer may rely on it that nothing listens any more */
        for (size_t at = 0; at < held_count; at++)
            close(table[at].fd);
        say_number(caller, 0);
        _exit(0);
    default:
        return say_number(caller, -ENOSYS);
    }
}

static void welcome(void)
{
    int caller = accept4(LISTENER, NULL, NULL, SOCK_CLOEXEC);
    struct ucred who;
    socklen_t size = sizeof who;
    if (caller < 0)
        return;
    if (callers == CALLERS_MAX || getsockopt(caller, SOL_SOCKET, SO_PEERCRED, &who, &size) < 0
        || (who.uid != 0 && who.uid != geteuid())) {
        close(caller);
        return;
    }
    watched[1 + callers++] = (struct pollfd){.fd = caller, .events = POLLIN};
}

/* Nothing of our maker's stays open here but the socket, least of all the pipe that somebody reads its output from. */
static void settle(void)
{
    setsid();
    prctl(PR_SET_NAME, "appliance-hold");
    int nowhere = open("/dev/null", O_RDWR);
    for (int fd = 0; fd < LISTENER; fd++)
        if (nowhere < 0 || dup2(nowhere, fd) < 0)
            close(fd);
    syscall(SYS_close_range, LISTENER + 1, ~0U, 0);
    fcntl(LISTENER, F_SETFD, FD_CLOEXEC);
    if (chdir("/") < 0)
        _exit(1);
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    int score = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC); /* so small, and so much hangs on it */
    if (score >= 0) {
        if (write(score, "-900", 4) < 0) { /* not root: as it is */
        }
        close(score);
    }
    for (int number = 1; number < NSIG; number++)
        signal(number, SIG_DFL);
    signal(SIGHUP, SIG_IGN);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

_Noreturn void hold(void)
{
    settle();
    watched[0] = (struct pollfd){.fd = LISTENER, .events = POLLIN};
    int seen = 0; /* whoever started us has called */
    while (!seen || held_count || callers) {
        if (poll(watched, (nfds_t)(1 + callers), seen ? -1 : 60000) <= 0) {
            if (!seen && errno != EINTR)
                break; /* it was killed before it could */
            continue;
        }
        for (int at = callers; at >= 1; at--) {
            if (!watched[at].revents || (watched[at].revents & POLLIN && serve(watched[at].fd)))
                continue;
            close(watched[at].fd);
            watched[at] = watched[callers--];
        }
        if (watched[0].revents) {
            welcome();
            seen = 1;
        }
    }
    _exit(0);
}
