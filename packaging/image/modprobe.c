// modprobe NAME: what the kernel calls when it lacks a module (kernel.modprobe). Reads the index that root.py makes:
// "module NAME FILE NEED,NEED" and "alias PATTERN NAME". Options before NAME are the kernel's ("-q --").
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

enum { COMPRESSED = 4, DEPTH_MAX = 16 };

static char directory[PATH_MAX - 600], *index_text;

static bool read_index(void) {
    struct utsname own;
    char path[PATH_MAX];
    uname(&own);
    snprintf(directory, sizeof directory, "/usr/lib/modules/%s", own.release);
    snprintf(path, sizeof path, "%s/index", directory);
    FILE *file = fopen(path, "re");
    size_t size = 0;
    bool done = file && getdelim(&index_text, &size, 0, file) > 0;
    if (file)
        fclose(file);
    return done;
}

// The next line of the index from `at` on, in a buffer; NULL at the end.
static const char *next_line(const char *at, char *line, size_t size) {
    if (!*at)
        return NULL;
    size_t length = strcspn(at, "\n");
    snprintf(line, size, "%.*s", (int)length, at);
    return at + length + (at[length] == '\n');
}

// Of these each makes an interface when it is loaded, which nobody asked for and which has the name that somebody wants.
static const char *options_for(const char *name) {
    return !strcmp(name, "bonding") ? "max_bonds=0" : !strcmp(name, "dummy") ? "numdummies=0" : "";
}

static bool insert(const char *name, const char *file) {
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", directory, file);
    int fd = open(path, O_RDONLY | O_CLOEXEC), flags = strstr(file, ".ko.") ? COMPRESSED : 0;
    bool done = fd >= 0 && (!syscall(SYS_finit_module, fd, options_for(name), flags) || errno == EEXIST);
    if (fd >= 0)
        close(fd);
    return done;
}

static bool load(const char *name, int depth) {
    char line[4096], kind[16], own[256], file[512], needs[2048];
    if (depth > DEPTH_MAX)
        return false;
    for (const char *at = index_text; (at = next_line(at, line, sizeof line));) {
        *needs = 0;
        if (sscanf(line, "%15s %255s %511s %2047s", kind, own, file, needs) < 3 || strcmp(kind, "module") || strcmp(own, name))
            continue;
        char *rest = needs, *need;
        while ((need = strsep(&rest, ",")))
            if (*need)
                load(need, depth + 1);
        return insert(name, file);
    }
    return false;
}

int main(int argc, char **argv) {
    char line[4096], kind[16], pattern[2048], name[256], wanted[256];
    if (argc < 2 || !read_index())
        return 1;
    snprintf(wanted, sizeof wanted, "%s", argv[argc - 1]);
    char plain[256];
    snprintf(plain, sizeof plain, "%s", wanted);
    for (char *at = plain; *at; at++)
        if (*at == '-')
            *at = '_';
    bool done = load(plain, 0);
    for (const char *at = index_text; !done && (at = next_line(at, line, sizeof line));)
        if (sscanf(line, "%15s %2047s %255s", kind, pattern, name) == 3 && !strcmp(kind, "alias") && !fnmatch(pattern, wanted, 0))
            done = load(name, 0) || done;
    return done ? 0 : 1;
}
