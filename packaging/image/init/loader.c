// What systemd-boot tells, and its entries on the ESP.
#define _GNU_SOURCE
#include "init.h"
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#define LOADER "-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"  // systemd-boot's variables (UAPI boot loader interface)
enum { IMAGE_MAX = 256 << 20 };

// A variable's UTF-16 as ASCII; the first four bytes are its attributes.
bool loader_variable(const char *name, char *value, size_t size) {
    char path[200];
    uint8_t bytes[1024];
    snprintf(path, sizeof path, EFIVARS "%s" LOADER, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t length = fd < 0 ? -1 : read(fd, bytes, sizeof bytes);
    if (fd >= 0)
        close(fd);
    size_t out = 0;
    for (ssize_t at = 4; at + 1 < length && out + 1 < size && (bytes[at] || bytes[at + 1]); at += 2)
        value[out++] = bytes[at + 1] ? '?' : bytes[at] == '\\' ? '/' : bytes[at];
    value[out] = 0;
    return out > 0;
}

// "appliance_2.0.0+1-2.efi": two starts were counted, this one among them, since one of them was well.
bool failed_before(void) {
    char entry[256];
    if (!loader_variable("LoaderBootCountPath", entry, sizeof entry))
        return false;
    const char *count = strrchr(entry, '+');
    const char *done = count ? strchr(count, '-') : NULL;
    return done && atoi(done + 1) > 1;
}

// The name that our kernel image has on the ESP right now; false where no loader of ours started us.
bool own_entry(char *name, size_t size) {
    char entry[256];
    if (!loader_variable("LoaderBootCountPath", entry, sizeof entry) &&
        !loader_variable("LoaderEntrySelected", entry, sizeof entry))
        return false;
    const char *slash = strrchr(entry, '/');
    snprintf(name, size, "%s", slash ? slash + 1 : entry);
    return true;
}

static bool mount_esp(const struct disk *disk, unsigned long flags) {
    char device[100];
    snprintf(device, sizeof device, "/dev/%s", disk->esp);
    mkdir("/mnt", 0755);
    return *disk->esp && !mount(device, "/mnt", "vfat", MS_NOSUID | MS_NODEV | MS_NOEXEC | flags, "umask=077");
}

static uint32_t number(const uint8_t *at) {
    return at[0] | at[1] << 8 | at[2] << 16 | (uint32_t)at[3] << 24;
}

// As uki.py sums it: all of the PE file but what comes or changes later, which is the checksum, the place of the
// signature and what stands behind the last section, and but the command line, which has a sum of its own.
static bool sum_image(uint8_t *image, size_t size, uint32_t *sum) {
    size_t pe = size < 64 ? size : number(image + 60), last = 0;
    if (pe + 24 > size || memcmp(image + pe, "PE\0", 4))
        return false;
    size_t sections = image[pe + 6] | image[pe + 7] << 8, optional = pe + 24;
    size_t table = optional + (image[pe + 20] | image[pe + 21] << 8);
    if (optional + 152 > size || table + 40 * sections > size)
        return false;
    memset(image + optional + 64, 0, 4);
    memset(image + optional + 144, 0, 8);
    for (uint8_t *one = image + table; sections; sections--, one += 40) {
        size_t length = number(one + 16), at = number(one + 20);
        if (at + length > size)
            return false;
        if (at + length > last)
            last = at + length;
        if (!memcmp(one, ".cmdline", 8))
            memset(image + at, 0, length);
    }
    *sum = crc32_of(image, last);
    return true;
}

// Nothing but Secure Boot looks at all of it before it is started: the code that unpacks the kernel has no sum that the
// kernel knows. What lies on the disk has one in the command line. True, too, of what cannot be read back.
bool kernel_image_is_whole(const struct disk *disk) {
    char wanted[32], name[256], path[300];
    struct stat info;
    if (!*argument("appliance.image", wanted, sizeof wanted) || !own_entry(name, sizeof name))
        return true;
    if (!mount_esp(disk, MS_RDONLY)) {
        say("cannot mount the ESP: %s", strerror(errno));
        return true;
    }
    snprintf(path, sizeof path, "/mnt/EFI/Linux/%s", name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    size_t size = fd >= 0 && !fstat(fd, &info) && info.st_size < IMAGE_MAX ? info.st_size : 0, have = 0;
    uint8_t *image = malloc(size + 1);
    for (ssize_t length = 1; image && have < size && length > 0; have += length > 0 ? length : 0)
        length = read(fd, image + have, size - have);
    bool whole = true;
    uint32_t sum;
    if (!size || have < size)
        say("cannot read %s back: %s", name, strerror(errno));
    else
        whole = sum_image(image, size, &sum) && sum == strtoul(wanted, NULL, 16);
    free(image);
    if (fd >= 0)
        close(fd);
    umount("/mnt");
    return whole;
}

// Whether the loader has another one to start that it has not given up.
static bool another_may_start(const char *own) {
    bool found = false;
    DIR *directory = opendir("/mnt/EFI/Linux");
    for (struct dirent *entry; directory && (entry = readdir(directory));) {
        const char *count = strrchr(entry->d_name, '+');
        size_t length = strlen(entry->d_name);
        if (length > 4 && !strcasecmp(entry->d_name + length - 4, ".efi") && strcasecmp(entry->d_name, own))
            found |= !count || atoi(count + 1) > 0;
    }
    if (directory)
        closedir(directory);
    return found;
}

// Our own entry gets a name without tries; true when the loader will take another one then.
bool condemn(const struct disk *disk) {
    char name[256], from[300], to[320];
    if (!own_entry(name, sizeof name)) {
        say("no boot loader names our entry: it stays as it is");
        return false;
    }
    size_t stem = strcspn(name, "+");
    if (stem == strlen(name) && stem > 4)
        stem -= 4;
    snprintf(from, sizeof from, "/mnt/EFI/Linux/%s", name);
    snprintf(to, sizeof to, "/mnt/EFI/Linux/%.*s+0-1.efi", (int)stem, name);
    if (!mount_esp(disk, MS_DIRSYNC) || (strcmp(from, to) && rename(from, to))) {
        say("cannot condemn %s: %s", from, strerror(errno));
        return false;
    }
    bool another = another_may_start(strrchr(to, '/') + 1);
    umount("/mnt");
    sync();
    say("condemned %s: it is not started any more", name);
    return another;
}
