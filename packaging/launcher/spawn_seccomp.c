/* Which system calls the program may do. The filter comes ready from the daemon (appliance/units/system_calls.py). */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <string.h>
#include <sys/prctl.h>

#include "spawn.h"

static int digit(char letter)
{
    return letter >= '0' && letter <= '9' ? letter - '0' : letter >= 'a' && letter <= 'f' ? letter - 'a' + 10 : -1;
}

void filter_system_calls(const char *program)
{
    static struct sock_filter code[BPF_MAXINSNS];
    size_t length = strlen(program) / 2;
    if (length == 0 || length > sizeof code || length % sizeof *code || strlen(program) % 2)
        refuse("read", "the system call filter");
    for (size_t at = 0; at < length; at++) {
        int high = digit(program[2 * at]), low = digit(program[2 * at + 1]);
        if (high < 0 || low < 0)
            refuse("read", "the system call filter");
        ((unsigned char *)code)[at] = (unsigned char)(high << 4 | low);
    }
    struct sock_fprog filter = {.len = (unsigned short)(length / sizeof *code), .filter = code};
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) < 0)
        fail_fence("filter", "system calls");
}
