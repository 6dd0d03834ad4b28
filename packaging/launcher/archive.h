// The payload's format: entries one after the other, each a header, a path, and the data. Little-endian, as the machine is.
//
// Nothing here touches the disk: bytes come from a source, and the caller writes what it is told.
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { ARCHIVE_PATH_MAX = 400 };

// What the last bytes of the launcher's file say about the payload in front of them.
struct footer {
    uint64_t offset;       // of the packed payload in the file
    uint64_t packed;       // its length
    uint64_t unpacked;     // length of the archive inside it
    char payload_id[64];   // sha256 of the packed bytes, hex
    char version[64];      // NUL-padded
    char magic[16];
};

struct footer_text {  // the same as C strings, checked
    char payload_id[65];
    char version[65];
};

// False when these are not the last bytes of a whole launcher file of that size.
bool footer_check(const struct footer *footer, uint64_t file_size, struct footer_text *text);

struct source {
    bool (*read)(struct source *source, void *buffer, size_t length);  // all of it, or false
};

struct entry_header {
    char kind;             // one of the below
    uint8_t flags;
    uint16_t path_length;
    uint32_t zero;
    uint64_t size;         // of the data; 0 unless a file
};

enum { KIND_DIRECTORY = 'd', KIND_FILE = 'f', KIND_END = 'e' };
enum { FLAG_EXECUTABLE = 1, FLAG_RELOCATE = 2 };

struct entry {
    char kind;
    bool executable;
    bool relocate;         // names the directory it is unpacked into: see unpack.c
    uint64_t size;
    char path[ARCHIVE_PATH_MAX + 1];  // relative, without "." and ".." and empty parts
};

// The next entry; the caller then reads entry->size bytes from the source. False when the archive is damaged or ends.
bool archive_next(struct source *source, struct entry *entry);
