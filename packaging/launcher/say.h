// What the launcher tells people: why something cannot be done, and each step when APPLIANCE_LAUNCHER=debug.
#pragma once
#include <limits.h>
#include <stdbool.h>
#include <stddef.h>

extern bool debugging;

// Remembers "cannot ...", with errno's text when it is set, and returns false, so that a caller writes `return cannot(...)`.
bool cannot(const char *format, ...) __attribute__((format(printf, 1, 2)));
const char *why_not(void);  // the last thing that could not be done

void debug(const char *format, ...) __attribute__((format(printf, 1, 2)));

// Adds a sentence to what Python shall report (APPLIANCE_NOTE).
void note(const char *format, ...) __attribute__((format(printf, 1, 2)));
const char *notes(void);

// A path made by format. False when it is longer than PATH_MAX.
bool path_of(char path[PATH_MAX], const char *format, ...) __attribute__((format(printf, 2, 3)));
