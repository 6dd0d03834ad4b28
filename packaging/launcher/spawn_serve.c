/* spawn --serve: one program per request. See spawn.c for what is asked and answered. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "spawn.h"

enum { REQUEST_BYTES_MAX = 128 << 10, FDS_MAX = 4 + PASSED_MAX, HIGH = 256 };

/* Newer kernels (seen with 6.18) kill a process at birth when the cgroup it is born in and that of its maker have not
 * seen cgroup.kill equally often: kill_seq is read before the target is known. Who asks gives us fresh cgroups; whether
 * our own one is as fresh, one trial tells. */
static int can_be_born_in(int fd)
{
    static int answer = -1;
    if (answer < 0) {
        struct clone_args how = {.flags = CLONE_INTO_CGROUP, .cgroup = (uint64_t)fd, .exit_signal = SIGCHLD};
        long pid = syscall(SYS_clone3, &how, sizeof how);
        if (pid == 0)
            _exit(0);
        int status = -1;
        answer = pid > 0 && waitpid((pid_t)pid, &status, 0) == pid && status == 0;
    }
    return answer;
}

/* A child of our parent, born in that cgroup where the kernel can do it (Linux 5.7). 0 in the child. */
static pid_t fork_sibling(const char *cgroup, int *in_cgroup)
{
    int fd = cgroup ? open(cgroup, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    long pid = -1;
    if (fd >= 0 && can_be_born_in(fd)) {
        struct clone_args how = {.flags = CLONE_PARENT | CLONE_INTO_CGROUP, .cgroup = (uint64_t)fd};
        *in_cgroup = 1; /* before the copy is made */
        pid = syscall(SYS_clone3, &how, sizeof how);
    }
    if (fd >= 0 && pid != 0)
        close(fd);
    if (pid < 0) { /* no cgroup, an old kernel, or a sandbox that knows no clone3: it moves itself, and says why not */
        *in_cgroup = 0;
        pid = syscall(SYS_clone, CLONE_PARENT | SIGCHLD, 0, 0, 0, 0);
    }
    return (pid_t)pid;
}

/* One request, cut into words; answers with the number of received descriptors, or -1 at the end. */
static int receive(char *buffer, char **words, uint32_t *counts, int *fds)
{
    union { char space[CMSG_SPACE(FDS_MAX * sizeof(int))]; struct cmsghdr align; } attached;
    struct iovec piece = {buffer, REQUEST_BYTES_MAX};
    struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1, .msg_control = &attached, .msg_controllen = sizeof attached};
    ssize_t size;
    do
        size = recvmsg(REPORT, &message, MSG_CMSG_CLOEXEC);
    while (size < 0 && errno == EINTR);
    if (size < (ssize_t)(2 * sizeof *counts) || buffer[size - 1] != 0 || message.msg_flags & (MSG_TRUNC | MSG_CTRUNC))
        return -1;
    memcpy(counts, buffer, 2 * sizeof *counts);
    if (counts[0] > WORDS_MAX || counts[1] > WORDS_MAX)
        return -1;
    char *at = buffer + 2 * sizeof *counts, *end = buffer + size;
    char **place = words;
    *place++ = "spawn";
    for (uint32_t word = 0; word < counts[0] + counts[1]; word++, at += strlen(at) + 1) {
        if (at >= end)
            return -1;
        if (word == counts[0])
            *place++ = NULL;
        *place++ = at;
    }
    if (counts[1] == 0)
        *place++ = NULL;
    *place = NULL;
    struct cmsghdr *first = CMSG_FIRSTHDR(&message);
    if (!first || first->cmsg_level != SOL_SOCKET || first->cmsg_type != SCM_RIGHTS)
        return -1;
    int count = (int)((first->cmsg_len - CMSG_LEN(0)) / sizeof(int));
    memcpy(fds, CMSG_DATA(first), (size_t)count * sizeof(int));
    return count;
}

static const char *find_option(char **words, uint32_t count, const char *name)
{
    for (uint32_t word = 1; word < count && strcmp(words[word], "--") != 0; word++)
        if (strcmp(words[word], name) == 0)
            return words[word + 1];
    return NULL;
}

/* In the child: what was received becomes (perhaps) 0, 1, 2, then the report, in place of the server's socket, then
 * those to pass. First all out of the way: where they lie now, another one may have to go. */
static void place(int *fds, int count, int passed)
{
    for (int at = 0; at < count; at++) {
        int moved = fcntl(fds[at], F_DUPFD_CLOEXEC, HIGH);
        if (moved < 0) {
            report = fds[0];
            fail("place", "descriptors");
        }
        fds[at] = moved;
    }
    dup2(fds[0], REPORT);
    fcntl(REPORT, F_SETFD, FD_CLOEXEC);
    report = REPORT;
    int standard = count - 1 - passed;
    if (standard != 0 && standard != 3)
        refuse("place", "descriptors");
    for (int at = 0; at < standard; at++)
        dup2(fds[1 + at], at);
    for (int at = 0; at < passed; at++)
        if (dup2(fds[1 + standard + at], REPORT + 1 + at) < 0)
            fail("place", "descriptors");
}

_Noreturn void serve(void)
{
    static char buffer[REQUEST_BYTES_MAX];
    static char *words[2 * WORDS_MAX + 4];
    uint32_t counts[2];
    static int fds[FDS_MAX];
    int count;
    setsid(); /* a Ctrl-C on the daemon's terminal is not for us */
    while ((count = receive(buffer, words, counts, fds)) > 0) {
        const char *cgroup = find_option(words, counts[0], "--cgroup");
        int in_cgroup = 0;
        int32_t pid = fork_sibling(cgroup, &in_cgroup);
        if (pid == 0) {
            place(fds, count, (int)names_in(find_option(words, counts[0], "--pass")));
            environ = words + counts[0] + 2;
            become_program((int)counts[0] + 1, words, in_cgroup);
        }
        int32_t answer = pid < 0 ? -errno : pid;
        for (int fd = 0; fd < count; fd++)
            close(fds[fd]);
        if (send(REPORT, &answer, sizeof answer, MSG_NOSIGNAL) < 0)
            break;
    }
    _exit(0);
}
