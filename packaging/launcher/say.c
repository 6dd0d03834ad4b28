#define _GNU_SOURCE
#include "say.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

bool debugging;
static char reason[1024];
static char all_notes[2048];

bool cannot(const char *format, ...) {
    int error = errno;
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(reason, sizeof reason, format, arguments);
    va_end(arguments);
    if (error && length > 0 && (size_t)length < sizeof reason)
        snprintf(reason + length, sizeof reason - length, ": %s", strerror(error));
    debug("cannot %s", reason);
    return false;
}

const char *why_not(void) { return reason; }

void debug(const char *format, ...) {
    if (!debugging)
        return;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    fprintf(stderr, "launcher %ld.%06ld: ", (long)now.tv_sec, now.tv_nsec / 1000);
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
}

void note(const char *format, ...) {
    size_t used = strlen(all_notes);
    if (used && used + 2 < sizeof all_notes) {
        strcpy(all_notes + used, "; ");
        used += 2;
    }
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(all_notes + used, sizeof all_notes - used, format, arguments);
    va_end(arguments);
    debug("note: %s", all_notes + used);
}

const char *notes(void) { return all_notes; }

bool path_of(char path[PATH_MAX], const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(path, PATH_MAX, format, arguments);
    va_end(arguments);
    if (length >= 0 && length < PATH_MAX)
        return true;
    errno = ENAMETOOLONG;
    return cannot("make a path from %.100s...", path);
}
