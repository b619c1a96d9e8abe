/* Bytes in and out: see file.h. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "file.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "files are little-endian: on a big-endian machine pf_put and pf_get_array must swap bytes"
#endif

void pf_put(pf_writer *w, const void *bytes, size_t n)
{
    if (w->status) return;
    if (w->n + n > w->room) {
        size_t room = PF_MAX(2 * w->room, w->n + n + 4096);
        unsigned char *grown = realloc(w->bytes, room);
        if (!grown) {
            w->status = pf_fail(PF_NO_MEMORY, "out of memory: a model of %zu bytes", w->n + n);
            return;
        }
        w->bytes = grown;
        w->room = room;
    }
    if (n) memcpy(w->bytes + w->n, bytes, n);
    w->n += n;
}

void pf_put_int(pf_writer *w, int64_t i) { pf_put(w, &i, sizeof i); }

void pf_put_array(pf_writer *w, const void *a, ptrdiff_t count, size_t size)
{
    pf_put_int(w, count);
    pf_put(w, a, (size_t)count * size);
}

static void corrupt(pf_reader *r)
{
    if (!r->status) r->status = pf_fail(PF_BAD_FILE, "the file is damaged: its contents make no sense");
}

int64_t pf_get_int(pf_reader *r, int64_t least, int64_t most)
{
    int64_t i = 0;
    if (r->status || r->n - r->at < sizeof i) {
        corrupt(r);
        return least;
    }
    memcpy(&i, r->bytes + r->at, sizeof i);
    r->at += sizeof i;
    if (i < least || i > most) {
        corrupt(r);
        return least;
    }
    return i;
}

void *pf_get_array(pf_reader *r, ptrdiff_t count, size_t size)
{
    pf_get_int(r, count, count);
    if (r->status || (r->n - r->at) / size < (size_t)count) {
        corrupt(r);
        return NULL;
    }
    void *a = pf_alloc(count, size);
    if (!a) {
        r->status = PF_NO_MEMORY;
        return NULL;
    }
    memcpy(a, r->bytes + r->at, (size_t)count * size);
    r->at += (size_t)count * size;
    return a;
}

pf_status pf_file_read(unsigned char **bytes, size_t *n, const char *path)
{
    FILE *f = fopen(path, "rb");
    struct stat info;
    *bytes = NULL;
    if (!f || fstat(fileno(f), &info) || !S_ISREG(info.st_mode)) {
        pf_status status = pf_fail(PF_IO_ERROR, "cannot read %s: %s", path, f ? "not a regular file" : strerror(errno));
        if (f) fclose(f);
        return status;
    }
    *n = (size_t)info.st_size;
    *bytes = PF_ALLOC(unsigned char, (ptrdiff_t)*n);
    pf_status status = *bytes ? PF_OK : PF_NO_MEMORY;
    if (!status && fread(*bytes, 1, *n, f) != *n) status = pf_fail(PF_IO_ERROR, "cannot read all of %s", path);
    fclose(f);
    if (status) {
        free(*bytes);
        *bytes = NULL;
    }
    return status;
}

pf_status pf_file_write(const char *path, const void *bytes, size_t n)
{
    size_t room = strlen(path) + 16;
    char *aside = PF_ALLOC(char, (ptrdiff_t)room);
    if (!aside) return PF_NO_MEMORY;
    snprintf(aside, room, "%s.XXXXXX", path);
    int fd = mkstemp(aside);
    FILE *f = fd < 0 ? NULL : fdopen(fd, "wb");
    int failed = !f || fwrite(bytes, 1, n, f) != n || fflush(f) || fsync(fd);
    if (f) {
        mode_t mask = umask(0); /* mkstemp made it private; give it the mode that open() would have */
        umask(mask);
        failed |= fchmod(fd, 0666 & ~mask) != 0;
    }
    int reason = errno;
    if (f && fclose(f) && !failed) failed = 1, reason = errno;
    if (!failed && rename(aside, path)) failed = 1, reason = errno;
    if (failed && fd >= 0) unlink(aside);
    free(aside);
    return failed ? pf_fail(PF_IO_ERROR, "cannot write %s: %s", path, strerror(reason)) : PF_OK;
}

uint64_t pf_crc64(const void *bytes, size_t n)
{
    uint64_t table[256], crc = ~0ull;
    for (uint64_t i = 0; i < 256; i++) {
        uint64_t c = i << 56;
        for (int bit = 0; bit < 8; bit++) c = c << 1 ^ (c >> 63 ? 0x42F0E1EBA9EA3693 : 0);
        table[i] = c;
    }
    for (const unsigned char *p = bytes, *end = p + n; p < end; p++) crc = crc << 8 ^ table[(crc >> 56) ^ *p];
    return ~crc;
}
