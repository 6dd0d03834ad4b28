// The first program of our own image: /init of the initramfs, static, no shell beside it.
//
//     1. Mount proc, sys and dev; load the modules listed in /modules/order; arm the watchdog.
//     2. Find the disk we were booted from, and on it the slot whose dm-verity tree has the root hash of our command line
//        (which is part of the signed kernel image). When an earlier try of this entry came to nothing, read the slot
//        from end to end: what has rotted on the disk is found now (appliance.verify=always does so at each start).
//     3. Mount it read-only, move there, become /usr/bin/appliance run.
//
// When no slot fits, our own boot entry is condemned: it is renamed to have no tries left, so that systemd-boot takes the
// other one. A kernel that dies counts as a spent try (systemd.io/AUTOMATIC_BOOT_ASSESSMENT).
//
// Command line: roothash=HEX appliance.verity=BLOCKS:SALT:UUID appliance.watchdog=SECONDS appliance.version=TEXT
//               appliance.image=CRC-32 of the kernel image but for the command line itself (loader.c)
//               appliance.sum=CRC-32 of all that stands before it: a bit that rots on the ESP may have turned a word of
//               it into another one that is valid, and nothing but Secure Boot looks at it before us.
#define _GNU_SOURCE
#include "init.h"
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { WAIT_TENTHS = 300, RETRY_SECONDS = 60 };

static void remove_all(int directory_fd, dev_t device) {
    DIR *directory = fdopendir(directory_fd);
    for (struct dirent *entry; directory && (entry = readdir(directory));) {
        struct stat info;
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..") ||
            fstatat(directory_fd, entry->d_name, &info, AT_SYMLINK_NOFOLLOW) || info.st_dev != device)
            continue;
        if (S_ISDIR(info.st_mode)) {
            int inner = openat(directory_fd, entry->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
            if (inner >= 0)
                remove_all(inner, device);
            unlinkat(directory_fd, entry->d_name, AT_REMOVEDIR);
        } else
            unlinkat(directory_fd, entry->d_name, 0);
    }
    if (directory)
        closedir(directory);
}

static void move_in(void) {
    static const char *const MOUNTS[] = {"proc", "sys", "dev", "run", NULL};
    struct stat old;
    int initramfs = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (stat("/", &old))
        end("stat /");
    for (int i = 0; MOUNTS[i]; i++) {
        char from[32], to[32];
        snprintf(from, sizeof from, "/%s", MOUNTS[i]);
        snprintf(to, sizeof to, "/sysroot/%s", MOUNTS[i]);
        if (mount(from, to, NULL, MS_MOVE, NULL))
            end(to);
    }
    if (chdir("/sysroot") || mount(".", "/", NULL, MS_MOVE, NULL) || chroot(".") || chdir("/"))
        end("move to the new root");
    remove_all(initramfs, old.st_dev);  // it is memory
    setenv("PATH", "/usr/sbin:/usr/bin", 1);
    char *const arguments[] = {"appliance", "run", NULL};
    execv("/usr/bin/appliance", arguments);
    end("start /usr/bin/appliance");
}

static double uptime(void) {
    struct timespec now;
    clock_gettime(CLOCK_BOOTTIME, &now);
    return now.tv_sec + now.tv_nsec / 1e9;
}

// There is nothing to go back to. Said again and again, and tried again: what failed may have been a cable.
static void give_up(const struct disk *disk, const char *version) {
    say("THIS MACHINE CANNOT START: %s holds version %s no more as it was made, and no other version", disk->parent, version);
    say("what it has stored, on %s, was not touched; docs/machine.md says how to repair it", disk->state);
    say("trying again in %d seconds; ctrl-alt-del: now", RETRY_SECONDS);
    for (int second = 0; second < RETRY_SECONDS; second++) {
        feed_watchdog();
        sleep(1);
    }
}

int main(void) {
    char hash[200], verity[300], esp_uuid[64], version[100], entry[256];
    struct disk disk;
    mkdir("/proc", 0555), mkdir("/sys", 0555), mkdir("/dev", 0755), mkdir("/run", 0755), mkdir("/sysroot", 0755);
    mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    mount("sys", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    mount("dev", "/dev", "devtmpfs", MS_NOSUID | MS_NOEXEC, "mode=0755");
    mount("run", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755");
    read_file("/proc/cmdline", command_line, sizeof command_line);
    double started = uptime();
    load_modules();
    arm_watchdog();
    mount("efivarfs", EFIVARS, "efivarfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    if (!strcmp(argument("appliance.test", version, sizeof version), "hang"))
        pause();  // of a kernel image that was made for it: its command line is signed with it
    if (!loader_variable("LoaderDevicePartUUID", esp_uuid, sizeof esp_uuid))
        *esp_uuid = 0;
    argument("roothash", hash, sizeof hash);
    argument("appliance.verity", verity, sizeof verity);
    argument("appliance.version", version, sizeof version);
    char *blocks = strtok(verity, ":"), *salt = strtok(NULL, ":"), *uuid = strtok(NULL, ":");
    if (!*hash || !blocks || !salt || !uuid)
        end("the command line names no root");
    for (int tenth = 0; !find_partitions(&disk, esp_uuid) && tenth < WAIT_TENTHS; tenth++)
        usleep(100000);
    if (!*disk.root[0] || !*disk.root[1])
        end("there is no disk with root-a and root-b");
    int mapper = open("/dev/mapper/control", O_RDWR | O_CLOEXEC), slot = -1;
    char verify[16];
    bool thorough = failed_before() || !strcmp(argument("appliance.verify", verify, sizeof verify), "always");
    double looked = uptime();
    bool whole = command_line_is_whole();
    if (!whole)
        say("the command line is not what was built");
    else if (!(whole = kernel_image_is_whole(&disk)))
        say("the kernel image is not what was built");
    for (int i = 0; i < 2 && slot < 0 && whole; i++) {
        if (!has_identity(disk.root[i], blocks, uuid))
            continue;
        if (!open_verity(mapper, disk.root[i], hash, blocks, salt))
            say("slot %c: its tree is refused: %s", 'a' + i, strerror(errno));
        else if (thorough && !read_through("/dev/mapper/root"))
            say("slot %c: it does not hold what was signed: %s", 'a' + i, strerror(errno));
        else if (mount("/dev/mapper/root", "/sysroot", "erofs", MS_RDONLY | MS_NOSUID | MS_NODEV, NULL))
            say("slot %c: cannot mount it: %s", 'a' + i, strerror(errno));
        else
            slot = i;
        if (slot < 0)
            close_verity(mapper);
    }
    if (slot < 0) {
        if (!condemn(&disk))
            give_up(&disk, version);
        sync();
        sleep(1);
        reboot(RB_AUTOBOOT);
        end("no slot holds what this kernel was signed for");
    }
    if (!own_entry(entry, sizeof entry))
        *entry = 0;
    mkdir("/run/appliance", 0755);
    write_file("/run/appliance/boot",
               "version=%s\nslot=%c\nroothash=%s\ndisk=%s\nesp=%s\nroot_a=%s\nroot_b=%s\nstate=%s\nentry=%s\n"
               "seconds_kernel=%.3f\nseconds_drivers=%.3f\nseconds_verity=%.3f\n",
               version, 'a' + slot, hash, disk.parent, disk.esp, disk.root[0], disk.root[1], disk.state,
               entry, started, looked, uptime());
    say("version %s, slot %c%s", version, 'a' + slot, thorough ? ", read to its end" : "");
    if (mapper >= 0)
        close(mapper);
    move_in();
}
