/* spawn: the last steps between the appliance and a unit's own program, in the child, by exec (as s6's chain loading does).
 *
 *   spawn [--OPTION VALUE]... -- PROGRAM [ARGUMENT]...
 *
 * No Python runs between fork and exec. Steps are done in the order of become_program() below, whatever the order of
 * the options. When one fails, a line "STEP OBJECT: REASON" goes to descriptor 3 and the exit code is 127. Descriptor 3
 * closes itself at a successful execve: then the daemon reads an empty end. Without a descriptor 3 the line goes to
 * stderr.
 *
 *   spawn --serve
 *
 * Stays, and starts one program per request from descriptor 3, a SOCK_SEQPACKET socket, until its other end is gone.
 * The programs are the daemon's own children all the same (CLONE_PARENT), and born inside their cgroup
 * (CLONE_INTO_CGROUP): moving a process costs the kernel 6 ms and more, being born there nothing. And a fork of this
 * small process is ten times cheaper than one of the daemon. A request is
 *   uint32 words, uint32 variables, then so many NUL-terminated strings: [--OPTION VALUE]... -- PROGRAM [ARGUMENT]...,
 *   NAME=VALUE...; attached: the report descriptor, and perhaps those that become 0, 1 and 2.
 * The answer is an int32: the pid, or a negative errno.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/close_range.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { REPORT = 3, GROUPS_MAX = 256, FILES_SOFT = 1024, REQUEST_BYTES_MAX = 128 << 10, WORDS_MAX = 8192 };

struct options {
    const char *cgroup;    /* directory whose cgroup.procs takes us */
    const char *output;    /* named pipe for 1 and 2 */
    const char *output_size; /* wanted size of that pipe */
    const char *directory; /* working directory */
    const char *umask;     /* octal */
    const char *uid, *gid; /* numbers */
    const char *groups;    /* numbers with commas, "" for none */
    const char *input;     /* file for 0 */
};

static int report = STDERR_FILENO;

static void fail(const char *step, const char *object)
{
    int cause = errno;
    dprintf(report, "%s %s: %s\n", step, object, strerror(cause));
    _exit(127);
}

static void refuse(const char *what, const char *object)
{
    dprintf(report, "%s %s: Invalid argument\n", what, object);
    _exit(127);
}

static unsigned long number(const char *text, int radix, const char *what)
{
    char *end;
    errno = 0;
    unsigned long value = strtoul(text, &end, radix);
    if (errno || end == text || *end || *text == '-')
        refuse(what, text);
    return value;
}

static void enter_cgroup(const char *directory)
{
    char path[4096];
    if (snprintf(path, sizeof path, "%s/cgroup.procs", directory) >= (int)sizeof path)
        refuse("enter cgroup", directory);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, "0", 1) != 1)
        fail("enter cgroup", directory);
    close(fd);
}

/* Read-write, so that there is always a reader: the unit sees neither SIGPIPE nor end of file while no daemon lives,
 * and what it writes waits in the pipe for the next one. */
static void open_output(const char *path, const char *size, const char *uid)
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
    if (fd > STDERR_FILENO && fd != REPORT)
        close(fd);
}

static void open_input(const char *path)
{
    int fd = open(path, O_RDONLY | O_NOCTTY);
    if (fd < 0 && errno == ENOENT) { /* an empty root has no /dev/null: an empty pipe reads the same */
        int ends[2];
        if (pipe(ends) < 0)
            fail("open input", path);
        close(ends[1]);
        fd = ends[0];
    }
    if (fd < 0 || dup2(fd, STDIN_FILENO) < 0)
        fail("open input", path);
    if (fd > STDERR_FILENO && fd != REPORT)
        close(fd);
}

static void become(const struct options *o)
{
    if (o->groups) {
        gid_t list[GROUPS_MAX];
        size_t count = 0;
        char *copy = strdup(o->groups), *rest = copy;
        for (char *word; copy && (word = strsep(&rest, ",")); )
            if (*word && count < GROUPS_MAX)
                list[count++] = number(word, 10, "read group");
        if (setgroups(count, list) < 0)
            fail("set groups", o->groups);
        free(copy);
    }
    if (o->gid && setresgid(number(o->gid, 10, "read gid"), number(o->gid, 10, "read gid"), number(o->gid, 10, "read gid")) < 0)
        fail("set group", o->gid);
    if (o->uid && setresuid(number(o->uid, 10, "read uid"), number(o->uid, 10, "read uid"), number(o->uid, 10, "read uid")) < 0)
        fail("set user", o->uid);
}

/* What an ordinary program expects to find: default signals, none blocked, a select(2)-safe limit of open files. */
static void restore_defaults(void)
{
    for (int number_ = 1; number_ < NSIG; number_++)
        signal(number_, SIG_DFL); /* fails for SIGKILL, SIGSTOP and libc's own: they are at their default anyway */
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur > FILES_SOFT) {
        files.rlim_cur = FILES_SOFT;
        setrlimit(RLIMIT_NOFILE, &files);
    }
}

static void close_rest(void)
{
    unsigned first = report == REPORT ? REPORT + 1 : REPORT;
    if (syscall(SYS_close_range, first, ~0U, 0) == 0)
        return;
    struct rlimit files; /* before Linux 5.9 */
    rlim_t most = getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < 65536 ? files.rlim_cur : 65536;
    for (unsigned fd = first; fd < most; fd++)
        close((int)fd);
}

static int read_options(int argc, char **argv, struct options *o)
{
    const struct { const char *name; const char **place; } known[] = {
        {"--cgroup", &o->cgroup}, {"--output", &o->output}, {"--output-size", &o->output_size},
        {"--directory", &o->directory}, {"--umask", &o->umask}, {"--uid", &o->uid}, {"--gid", &o->gid},
        {"--groups", &o->groups}, {"--input", &o->input},
    };
    int at = 1;
    while (at < argc && strcmp(argv[at], "--") != 0) {
        size_t which = 0, count = sizeof known / sizeof *known;
        while (which < count && strcmp(argv[at], known[which].name) != 0)
            which++;
        if (which == count || at + 1 >= argc)
            refuse("read option", argv[at]);
        *known[which].place = argv[at + 1];
        at += 2;
    }
    return at + 1; /* behind "--" */
}

static _Noreturn void become_program(int argc, char **argv, int in_cgroup)
{
    struct options o = {0};
    int program = read_options(argc, argv, &o);
    if (program >= argc)
        refuse("read", "the program to start");

    setsid(); /* fails only where we lead a group already */
    if (o.cgroup && !in_cgroup)
        enter_cgroup(o.cgroup);
    if (o.input)
        open_input(o.input);
    if (o.output)
        open_output(o.output, o.output_size, o.uid);
    become(&o);
    if (o.directory && chdir(o.directory) < 0) /* as the user it will be */
        fail("enter directory", o.directory);
    if (o.umask)
        umask(number(o.umask, 8, "read umask"));
    close_rest();
    restore_defaults();
    execvp(argv[program], argv + program);
    fail("execute", argv[program]);
    _exit(127);
}

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
    union { char space[CMSG_SPACE(4 * sizeof(int))]; struct cmsghdr align; } attached;
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

static _Noreturn void serve(void)
{
    static char buffer[REQUEST_BYTES_MAX];
    static char *words[2 * WORDS_MAX + 4];
    uint32_t counts[2];
    int fds[4], count;
    setsid(); /* a Ctrl-C on the daemon's terminal is not for us */
    while ((count = receive(buffer, words, counts, fds)) > 0) {
        const char *cgroup = NULL;
        for (uint32_t word = 1; word < counts[0] && strcmp(words[word], "--") != 0; word++)
            if (strcmp(words[word], "--cgroup") == 0)
                cgroup = words[word + 1];
        int in_cgroup = 0;
        int32_t pid = fork_sibling(cgroup, &in_cgroup);
        if (pid == 0) {
            for (int fd = 1; fd < count; fd++)
                dup2(fds[fd], fd - 1);
            dup2(fds[0], REPORT); /* in place of the socket, which is the server's */
            fcntl(REPORT, F_SETFD, FD_CLOEXEC);
            report = REPORT;
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

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "--serve") == 0)
        serve();
    if (fcntl(REPORT, F_SETFD, FD_CLOEXEC) == 0)
        report = REPORT;
    become_program(argc, argv, 0);
}
