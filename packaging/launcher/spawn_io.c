/* What the program finds at 0, 1, 2, and from 3 on. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "spawn.h"

/* Read-write, so that there is always a reader: the unit sees neither SIGPIPE nor end of file while no daemon lives,
 * and what it writes waits in the pipe for the next one. */
void open_output(const char *path, const char *size, const char *uid)
{
    int fd = open(path, O_RDWR | O_NOCTTY);
    if (fd < 0)
        fail("open output", path);
    if (uid && fchown(fd, number(uid, 10, "read uid"), -1) < 0) /* so that it may open /dev/stderr again */
        fail("hand over output", path);
    if (size)
        fcntl(fd, F_SETPIPE_SZ, (int)number(size, 10, "read output size")); /* refused: the usual 64 KiB will do */
    if (dup2(fd, STDOUT_FILENO) < 0 || dup2(fd, STDERR_FILENO) < 0)
        fail("open output", path);
    if (fd > STDERR_FILENO)
        close(fd);
}

void open_input(const char *path)
{
    int fd = open(path, O_RDONLY | O_NOCTTY);
    /* An empty root has no /dev/null, and a strict device policy does not allow it: an empty pipe reads the same. */
    if (fd < 0 && (errno == ENOENT || errno == EPERM)) {
        int ends[2];
        if (pipe(ends) < 0)
            fail("open input", path);
        close(ends[1]);
        fd = ends[0];
    }
    if (fd < 0 || dup2(fd, STDIN_FILENO) < 0)
        fail("open input", path);
    if (fd > STDERR_FILENO)
        close(fd);
}

/* They come as 4, 5, ... (3 is the report) and become 3, 4, ... (sd_listen_fds(3)). Only here is our pid known. */
void pass_descriptors(const char *names)
{
    int count = (int)names_in(names);
    if (report == REPORT) {
        report = fcntl(REPORT, F_DUPFD_CLOEXEC, REPORT + 1 + count);
        if (report < 0) {
            report = REPORT;
            fail("pass descriptors", names);
        }
    }
    for (int at = 0; at < count; at++)
        if (dup2(REPORT + 1 + at, REPORT + at) < 0)
            fail("pass descriptors", names);
    char text[24];
    snprintf(text, sizeof text, "%d", count);
    int bad = setenv("LISTEN_FDS", text, 1);
    snprintf(text, sizeof text, "%ld", (long)getpid());
    if (bad || setenv("LISTEN_PID", text, 1) || setenv("LISTEN_FDNAMES", names, 1))
        fail("pass descriptors", names);
}

static void close_between(unsigned first, unsigned last)
{
    if (first > last || syscall(SYS_close_range, first, last, 0) == 0)
        return;
    struct rlimit files; /* before Linux 5.9 */
    rlim_t most = getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < 65536 ? files.rlim_cur : 65536;
    for (unsigned fd = first; fd <= last && fd < most; fd++)
        close((int)fd);
}

void close_rest(const char *names)
{
    unsigned first = REPORT + (names ? names_in(names) : 0);
    if (report < REPORT) {
        close_between(first, ~0U);
        return;
    }
    close_between(first, (unsigned)report - 1);
    close_between((unsigned)report + 1, ~0U);
}
