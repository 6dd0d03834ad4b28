#define _GNU_SOURCE
#include "guard.h"
#include "say.h"
#include "turn.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static bool has_ended(int daemon, int timeout_ms) {
    struct pollfd wait = {.fd = daemon, .events = POLLIN};
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    long long limit = now.tv_sec * 1000LL + now.tv_nsec / 1000000 + timeout_ms;
    while (true) {
        int ready = poll(&wait, 1, timeout_ms);
        if (ready >= 0 || errno != EINTR)
            return ready > 0;
        if (timeout_ms >= 0) {  // a signal: wait what is left
            clock_gettime(CLOCK_MONOTONIC, &now);
            long long left = limit - now.tv_sec * 1000LL - now.tv_nsec / 1000000;
            timeout_ms = left < 0 ? 0 : left;
        }
    }
}

// Whether the version on trial is the one that the record calls good by now.
static bool is_blessed(const char *root, int slot, const char *sha256) {
    struct slots now;
    return slots_read(root, &now) && now.has_record && now.record.slot[slot].blessed &&
           !strcmp(now.record.slot[slot].sha256, sha256);
}

static void guard(int daemon, const struct slots *slots, int slot, const char *root, const char *origin, char **argv) {
    const struct slot *trial = &slots->record.slot[slot];
    turn_end();  // the daemon's alone
    struct sigaction ignore = {.sa_handler = SIG_IGN}, obey = {.sa_handler = SIG_DFL}, old_interrupt, old_hangup;
    sigset_t none;
    sigemptyset(&none);
    sigaction(SIGTERM, &obey, NULL);  // whatever we were started with: this is how the daemon dismisses us
    sigprocmask(SIG_SETMASK, &none, NULL);
    sigaction(SIGINT, &ignore, &old_interrupt);  // the daemon hears Ctrl-C too, and then tells us by SIGTERM
    sigaction(SIGHUP, &ignore, &old_hangup);
    prctl(PR_SET_NAME, "appliance-guard");
    const char *fate = "died";
    long deadline = slots->record.deadline_seconds;
    if (!has_ended(daemon, deadline ? deadline * 1000 : -1)) {
        fate = "was not blessed in time";
        syscall(SYS_pidfd_send_signal, daemon, SIGKILL, NULL, 0);
        has_ended(daemon, -1);
    }
    if (is_blessed(root, slot, trial->sha256))
        _exit(0);
    sleep(1);
    if (turn_is_taken(slots) || slots_daemon_runs(slots))
        _exit(0);  // our init was faster
    note("%s in slot %c %s", trial->version, "ab"[slot], fate);
    setenv("APPLIANCE_NOTE", notes(), 1);
    sigaction(SIGINT, &old_interrupt, NULL);
    sigaction(SIGHUP, &old_hangup, NULL);
    execve(origin, argv, environ);
    execve("/proc/self/exe", argv, environ);  // origin was removed: this is still its program
    _exit(127);
}

pid_t guard_start(const struct slots *slots, int slot, const char *root, const char *origin, char **argv) {
    int daemon = syscall(SYS_pidfd_open, getpid(), 0);
    if (daemon < 0) {
        note("no guard: pidfd_open: %s", strerror(errno));  // Linux before 5.3
        return -1;
    }
    pid_t pid = fork();
    if (pid == 0)
        guard(daemon, slots, slot, root, origin, argv);
    close(daemon);
    return pid;
}

void guard_stop(pid_t guard) {
    if (guard > 0) {
        kill(guard, SIGKILL);
        waitpid(guard, NULL, 0);
    }
}
