#define _GNU_SOURCE
#include "payload.h"
#include "say.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { WINDOW_LOG_MAX = 23 };  // 8 MB, what zstd -19 uses: bounds our memory

bool payload_find(int fd, struct payload *payload) {
    struct stat info;
    if (fstat(fd, &info))
        return cannot("look at the launcher's own file");
    payload->fd = fd;
    off_t start = info.st_size - (off_t)sizeof payload->footer;
    errno = 0;
    if (start < 0 || pread(fd, &payload->footer, sizeof payload->footer, start) != sizeof payload->footer ||
        !footer_check(&payload->footer, info.st_size, &payload->text))
        return cannot("find the payload at the end of the file: it is cut short or damaged");
    return true;
}

static bool refill(struct payload_source *from) {
    size_t wanted = from->end - from->at < PACKED_CHUNK ? from->end - from->at : PACKED_CHUNK;
    ssize_t got = wanted ? pread(from->fd, from->packed, wanted, from->at) : 0;
    if (got <= 0)
        return cannot("read the payload at byte %llu", (unsigned long long)from->at);
    from->at += got;
    from->in = (ZSTD_inBuffer){from->packed, got, 0};
    return true;
}

static bool read_unpacked(struct source *source, void *buffer, size_t length) {
    struct payload_source *from = (struct payload_source *)source;
    ZSTD_outBuffer out = {buffer, length, 0};
    errno = 0;
    if (length > from->left)
        return cannot("unpack: the payload is damaged: it is longer than it says");
    while (out.pos < length) {
        size_t before = out.pos;
        size_t result = ZSTD_decompressStream(from->stream, &out, &from->in);
        if (ZSTD_isError(result))
            return cannot("unpack: the payload is damaged: %s", ZSTD_getErrorName(result));
        from->ended = result == 0;
        if (out.pos < length && out.pos == before && from->in.pos == from->in.size && !refill(from))
            return false;
    }
    from->left -= length;
    return true;
}

struct payload_source *payload_open(const struct payload *payload) {
    struct payload_source *from = calloc(1, sizeof *from);
    if (!from || !(from->stream = ZSTD_createDStream())) {
        free(from);
        cannot("unpack");
        return NULL;
    }
    ZSTD_DCtx_setParameter(from->stream, ZSTD_d_windowLogMax, WINDOW_LOG_MAX);
    from->source.read = read_unpacked;
    from->fd = payload->fd;
    from->at = payload->footer.offset;
    from->end = payload->footer.offset + payload->footer.packed;
    from->left = payload->footer.unpacked;
    from->in = (ZSTD_inBuffer){from->packed, 0, 0};
    return from;
}

bool payload_close(struct payload_source *from) {
    char none;
    ZSTD_outBuffer out = {&none, 0, 0};
    bool whole = from->left == 0;
    while (whole && !from->ended) {  // the checksum stands behind the last byte
        size_t result = ZSTD_decompressStream(from->stream, &out, &from->in);
        from->ended = result == 0;
        whole = from->ended || (!ZSTD_isError(result) && (from->in.pos < from->in.size || refill(from)));
    }
    if (!whole) {
        errno = 0;
        cannot("unpack: the payload is damaged: its end is wrong");
    }
    ZSTD_freeDStream(from->stream);
    free(from);
    return whole;
}
