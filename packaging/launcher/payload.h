// The payload at the end of a launcher's file, read as one stream of unpacked bytes in bounded memory.
#pragma once
#include "archive.h"

#include <zstd.h>

struct payload {
    int fd;
    struct footer footer;
    struct footer_text text;
};

// Finds the payload of the open file. False, with why_not(), when there is none.
bool payload_find(int fd, struct payload *payload);

enum { PACKED_CHUNK = 128 << 10, UNPACKED_CHUNK = 256 << 10 };

struct payload_source {
    struct source source;  // first, so that the one is the other
    int fd;
    uint64_t at, end;      // what is still to be read of the file
    uint64_t left;         // unpacked bytes still to come
    bool ended;            // the packed stream, checksum included
    ZSTD_DStream *stream;
    ZSTD_inBuffer in;
    char packed[PACKED_CHUNK];
};

struct payload_source *payload_open(const struct payload *payload);
// False when the stream did not end where it should (its checksum is then not verified).
bool payload_close(struct payload_source *from);
