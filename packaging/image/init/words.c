// What it says and reads: the console, the kernel's command line, small files.
#define _GNU_SOURCE
#include "init.h"
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

char command_line[8192];

void say(const char *format, ...) {
    char text[512] = "<5>appliance: ";
    size_t start = strlen(text);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text + start, sizeof text - start - 1, format, arguments);
    va_end(arguments);
    strcat(text, "\n");
    int fd = open("/dev/kmsg", O_WRONLY | O_CLOEXEC);
    if (fd >= 0) {
        if (write(fd, text, strlen(text)) < 0)
            dprintf(2, "%s", text);
        close(fd);
    }
    dprintf(2, "%s", text + 3);
}

void end(const char *what) {
    say("cannot start: %s; %s", what, strerror(errno));
    sync();
    sleep(1);
    exit(1);  // the end of the first process is a panic, and panic=-1 restarts: the try is spent
}

// The value of `key=` on the kernel's command line; empty when it is not there.
const char *argument(const char *key, char *value, size_t size) {
    size_t length = strlen(key);
    *value = 0;
    for (const char *at = command_line; *at;) {
        size_t word = strcspn(at, " \n");
        if (!strncmp(at, key, length) && at[length] == '=' && word - length - 1 < size) {
            memcpy(value, at + length + 1, word - length - 1);
            value[word - length - 1] = 0;
        }
        at += word;
        at += strspn(at, " \n");
    }
    return value;
}

bool command_line_is_whole(void) {
    static const char KEY[] = " appliance.sum=";
    const char *end = strstr(command_line, KEY);
    return end && strtoul(end + strlen(KEY), NULL, 16) == crc32_of((const uint8_t *)command_line, end - command_line);
}

// That of zip and PNG, eight bytes at a time: a kernel image is summed at each start.
uint32_t crc32_of(const uint8_t *data, size_t size) {
    static uint32_t table[8][256];
    if (!table[0][1])
        for (int step = 0; step < 8; step++)
            for (uint32_t byte = 0; byte < 256; byte++) {
                uint32_t sum = step ? table[step - 1][byte] : byte;
                for (int bit = 0; !step && bit < 8; bit++)
                    sum = sum >> 1 ^ (sum & 1 ? 0xEDB88320u : 0);
                table[step][byte] = step ? sum >> 8 ^ table[0][sum & 255] : sum;
            }
    uint32_t sum = ~0u;
    for (; size >= 8; data += 8, size -= 8) {
        uint64_t word;
        memcpy(&word, data, 8);
        word ^= sum;
        sum = 0;
        for (int step = 0; step < 8; step++)
            sum ^= table[7 - step][word >> 8 * step & 255];
    }
    for (; size; data++, size--)
        sum = sum >> 8 ^ table[0][(sum ^ *data) & 255];
    return ~sum;
}

void read_file(const char *path, char *into, size_t size) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t length = fd < 0 ? 0 : read(fd, into, size - 1);
    into[length < 0 ? 0 : length] = 0;
    if (fd >= 0)
        close(fd);
}

void write_file(const char *path, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0 || vdprintf(fd, format, arguments) < 0)
        say("cannot write %s: %s", path, strerror(errno));
    va_end(arguments);
    close(fd);
}
