#define _GNU_SOURCE
#include "record.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char FIRST_LINE[] = "appliance-slots 1";
static const char CHECK[] = "check ";

static uint32_t crc32_of(const char *bytes, size_t length) {
    uint32_t crc = ~0u;
    for (size_t i = 0; i < length; i++) {
        crc ^= (unsigned char)bytes[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
    }
    return ~crc;
}

// How many bytes of the copy stand before its check line; 0 when the check line is missing or does not hold.
static size_t checked_length(const char copy[RECORD_COPY]) {
    for (size_t start = 0; start < RECORD_COPY;) {
        const char *end = memchr(copy + start, '\n', RECORD_COPY - start);
        if (!end)
            return 0;
        size_t length = end - (copy + start);
        if (length == sizeof CHECK - 1 + 8 && !memcmp(copy + start, CHECK, sizeof CHECK - 1)) {
            char wanted[9];
            snprintf(wanted, sizeof wanted, "%08x", crc32_of(copy, start));
            return memcmp(copy + start + sizeof CHECK - 1, wanted, 8) ? 0 : start;
        }
        start += length + 1;
    }
    return 0;
}

// The next word of a line, which ends at `end`. False when there is none or it does not fit.
static bool next_word(const char **at, const char *end, char word[RECORD_WORD]) {
    while (*at < end && **at == ' ')
        ++*at;
    size_t length = 0;
    while (*at < end && **at != ' ') {
        if (length == RECORD_WORD - 1)
            return false;
        word[length++] = *(*at)++;
    }
    word[length] = 0;
    return length > 0;
}

static bool number_of(const char *digits, uint64_t max, uint64_t *number) {
    uint64_t value = 0;
    if (!*digits)
        return false;
    for (; *digits; digits++) {
        uint64_t digit = *digits - '0';
        if (*digits < '0' || *digits > '9' || digit > max || value > (max - digit) / 10)
            return false;
        value = value * 10 + digit;
    }
    *number = value;
    return true;
}

// "NAME=7" -> 7
static bool setting_of(const char *word, const char *name, uint64_t max, uint64_t *number) {
    size_t length = strlen(name);
    return !strncmp(word, name, length) && word[length] == '=' && number_of(word + length + 1, max, number);
}

static bool parse_slot(const char *at, const char *end, struct record *record, bool seen[2]) {
    char word[RECORD_WORD];
    if (!next_word(&at, end, word) || (strcmp(word, "a") && strcmp(word, "b")))
        return false;
    int which = word[0] - 'a';
    struct slot *slot = &record->slot[which];
    uint64_t priority, tries, blessed;
    if (seen[which] || !next_word(&at, end, slot->version) || !next_word(&at, end, slot->sha256))
        return false;
    if (!next_word(&at, end, word) || !setting_of(word, "priority", 1000, &priority))
        return false;
    if (!next_word(&at, end, word) || !setting_of(word, "tries", 1000, &tries))
        return false;
    if (!next_word(&at, end, word) || !setting_of(word, "blessed", 1, &blessed))
        return false;
    slot->priority = priority;
    slot->tries = tries;
    slot->blessed = blessed;
    return seen[which] = true;
}

bool record_parse(const char copy[RECORD_COPY], struct record *record) {
    size_t length = checked_length(copy);
    if (length < sizeof FIRST_LINE || memcmp(copy, FIRST_LINE, sizeof FIRST_LINE - 1) || copy[sizeof FIRST_LINE - 1] != '\n')
        return false;
    bool seen_slot[2] = {false, false}, seen_sequence = false, seen_base = false, seen_deadline = false;
    for (const char *line = copy; line < copy + length;) {
        const char *end = memchr(line, '\n', copy + length - line);
        if (!end)
            return false;
        const char *at = line;
        char key[RECORD_WORD], word[RECORD_WORD];
        uint64_t number;
        if (!next_word(&at, end, key))
            return false;
        if (!strcmp(key, "sequence")) {
            if (seen_sequence || !next_word(&at, end, word) || !number_of(word, UINT64_MAX - 1, &record->sequence))
                return false;
            seen_sequence = true;
        } else if (!strcmp(key, "base")) {
            if (seen_base || !next_word(&at, end, record->base))
                return false;
            seen_base = true;
        } else if (!strcmp(key, "slot")) {
            if (!parse_slot(at, end, record, seen_slot))
                return false;
        } else if (!strcmp(key, "deadline")) {
            if (seen_deadline || !next_word(&at, end, word) || !number_of(word, 1000000, &number))
                return false;
            record->deadline_seconds = number;
            seen_deadline = true;
        }
        line = end + 1;
    }
    return seen_sequence && seen_base && seen_slot[0] && seen_slot[1] && seen_deadline;
}

int record_newest(const char file[RECORD_SIZE], struct record *record) {
    struct record copies[2];
    bool valid[2] = {record_parse(file, &copies[0]), record_parse(file + RECORD_COPY, &copies[1])};
    if (!valid[0] && !valid[1])
        return -1;
    int newest = !valid[0] || (valid[1] && copies[1].sequence > copies[0].sequence);
    *record = copies[newest];
    return newest;
}

int record_pick(const struct record *record, const bool exists[2], bool may_try) {
    int best = -1;
    for (int i = 0; i < 2; i++) {
        const struct slot *slot = &record->slot[i];
        if (!exists[i] || !(slot->blessed || (may_try && slot->tries > 0)))
            continue;
        if (best < 0 || slot->priority > record->slot[best].priority)
            best = i;
    }
    return best;
}

bool record_spend(const char copy[RECORD_COPY], int slot, char out[RECORD_COPY]) {
    struct record record;
    if (!record_parse(copy, &record) || record.slot[slot].tries < 1)
        return false;
    size_t length = checked_length(copy), used = 0;
    char slot_key[] = {'s', 'l', 'o', 't', ' ', "ab"[slot], ' ', 0};
    for (const char *line = copy; line < copy + length;) {
        const char *end = (const char *)memchr(line, '\n', copy + length - line) + 1;
        int line_length = end - line, written;
        size_t room = RECORD_COPY - used;
        const char *tries = memmem(line, line_length, " tries=", 7);
        if (!strncmp(line, "sequence ", 9))
            written = snprintf(out + used, room, "sequence %llu\n", (unsigned long long)record.sequence + 1);
        else if (!strncmp(line, slot_key, 7) && tries) {
            const char *rest = tries + 7 + strspn(tries + 7, "0123456789");
            written = snprintf(out + used, room, "%.*s tries=%ld%.*s", (int)(tries - line), line,
                               record.slot[slot].tries - 1, (int)(end - rest), rest);
        } else
            written = snprintf(out + used, room, "%.*s", line_length, line);
        if (written < 0 || (size_t)written >= room)
            return false;
        used += written;
        line = end;
    }
    int written = snprintf(out + used, RECORD_COPY - used, "%s%08x\n", CHECK, crc32_of(out, used));
    if (written < 0 || (size_t)written >= RECORD_COPY - used)
        return false;
    used += written;
    memset(out + used, '\n', RECORD_COPY - used);
    struct record check;
    return record_parse(out, &check) && check.sequence == record.sequence + 1 &&
           check.slot[slot].tries == record.slot[slot].tries - 1;
}
