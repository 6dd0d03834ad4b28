// Drivers, and the hardware's watchdog.
#define _GNU_SOURCE
#include "init.h"
#include <cpuid.h>
#include <fcntl.h>
#include <linux/watchdog.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

// QEMU without KVM. There a vector instruction is a call, and hashing by them takes many times what plain code does.
static bool is_emulated(void) {
    unsigned highest, name[3];
    __cpuid(0x40000000, highest, name[0], name[1], name[2]);
    return !memcmp(name, "TCGTCGTCGTCG", sizeof name);
}

void load_modules(void) {
    char order[8192], path[300];
    bool emulated = is_emulated();
    read_file("/modules/order", order, sizeof order);
    for (char *name = strtok(order, "\n"); name; name = strtok(NULL, "\n")) {
        snprintf(path, sizeof path, "/modules/%s", name);
        if (emulated && strstr(name, "sha256")) {
            unlink(path);
            continue;
        }
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0 || (syscall(SYS_finit_module, fd, "", 0) && errno != EEXIST && errno != ENODEV && errno != ENOENT))
            say("cannot load %s: %s", name, strerror(errno));
        close(fd);
        unlink(path);
    }
}

// Armed before anything can hang; whoever comes next keeps the descriptor and feeds it.
void arm_watchdog(void) {
    char value[32];
    int seconds = atoi(argument("appliance.watchdog", value, sizeof value));
    int fd = seconds > 0 ? open("/dev/watchdog", O_WRONLY) : -1;
    if (fd < 0) {
        if (seconds > 0)
            say("no watchdog on this machine");
        return;
    }
    if (ioctl(fd, WDIOC_SETTIMEOUT, &seconds))
        say("the watchdog keeps its own time: %s", strerror(errno));
    if (fd != WATCHDOG_FD) {
        dup2(fd, WATCHDOG_FD);
        close(fd);
    }
    setenv("APPLIANCE_WATCHDOG_FD", "9", 1);
}

// While we wait for somebody to come.
void feed_watchdog(void) {
    ioctl(WATCHDOG_FD, WDIOC_KEEPALIVE, 0);
}
