// The partitions of the disk that we were started from.
#define _GNU_SOURCE
#include "init.h"
#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

static void uevent_value(const char *uevent, const char *key, char *value, size_t size) {
    const char *at = strstr(uevent, key);
    size_t length = at ? strcspn(at + strlen(key), "\n") : 0;
    snprintf(value, size, "%.*s", (int)length, at ? at + strlen(key) : "");
}

// The partition's own UUID, which the ESP's firmware variable names: the kernel tells it in uevent.
static bool is_ours(const char *uevent, const char *wanted) {
    char own[64];
    uevent_value(uevent, "PARTUUID=", own, sizeof own);
    return !*wanted || !*own || !strcasecmp(own, wanted);
}

static void parent_of(const char *name, char *parent, size_t size) {
    char link[PATH_MAX], path[300];
    snprintf(path, sizeof path, "/sys/class/block/%s", name);
    ssize_t length = readlink(path, link, sizeof link - 1);
    link[length < 0 ? 0 : length] = 0;
    char *slash = strrchr(link, '/');
    if (slash)
        *slash = 0;
    slash = strrchr(link, '/');
    snprintf(parent, size, "%s", slash ? slash + 1 : "");
}

// Fills in the partitions of the disk whose ESP we were started from; true once both slots are seen.
bool find_partitions(struct disk *disk, const char *esp_uuid) {
    char path[300], uevent[2048], name[64], label[64], parent[64];
    memset(disk, 0, sizeof *disk);
    for (int pass = 0; pass < 2; pass++) {  // first the ESP, then what lies beside it
        DIR *directory = opendir("/sys/class/block");
        for (struct dirent *entry; directory && (entry = readdir(directory));) {
            snprintf(path, sizeof path, "/sys/class/block/%s/uevent", entry->d_name);
            read_file(path, uevent, sizeof uevent);
            uevent_value(uevent, "PARTNAME=", label, sizeof label);
            uevent_value(uevent, "DEVNAME=", name, sizeof name);
            parent_of(entry->d_name, parent, sizeof parent);
            if (pass == 0 && !strcmp(label, "esp") && is_ours(uevent, esp_uuid)) {
                strcpy(disk->esp, name);
                strcpy(disk->parent, parent);
            }
            if (pass == 0 || strcmp(parent, disk->parent))
                continue;
            if (!strcmp(label, "root-a"))
                strcpy(disk->root[0], name);
            if (!strcmp(label, "root-b"))
                strcpy(disk->root[1], name);
            if (!strcmp(label, "state"))
                strcpy(disk->state, name);
        }
        if (directory)
            closedir(directory);
    }
    return *disk->root[0] && *disk->root[1];
}
