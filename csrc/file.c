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
            w->status = pf_fail(PF_NO_MEMORY, "out of memory: a flow of %zu bytes", w->n + n);
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

void pf_get(pf_reader *r, void *bytes, size_t n)
{
    memset(bytes, 0, n);
    if (r->status || r->n - r->at < n) {
        corrupt(r);
        return;
    }
    memcpy(bytes, r->bytes + r->at, n);
    r->at += n;
}

int64_t pf_get_int(pf_reader *r, int64_t least, int64_t most)
{
    int64_t i;
    pf_get(r, &i, sizeof i);
    if (r->status || i < least || i > most) {
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

void pf_get_into(pf_reader *r, void *array, ptrdiff_t count, size_t size)
{
    void *read = r->status ? NULL : pf_get_array(r, count, size);
    if (read && count) memcpy(array, read, (size_t)count * size);
    free(read);
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

static const unsigned char magic[8] = {0x93, 'P', 'Y', 'F', 'L', 'O', 'W', '\n'};

void pf_file_begin(pf_writer *w, int bits, const char *json)
{
    pf_put(w, magic, sizeof magic);
    pf_put_int(w, PF_FILE_VERSION);
    pf_put_int(w, bits);
    pf_put_array(w, json, (ptrdiff_t)strlen(json), 1);
}

void pf_file_end(pf_writer *w)
{
    uint64_t crc = pf_crc64(w->bytes, w->n);
    pf_put(w, &crc, sizeof crc);
}

/* magic, version, bits, length of the header, check sum */
enum { FILE_LEAST = 8 + 3 * 8 + 8 };

int pf_flow_bits(const void *bytes, size_t n)
{
    int64_t bits;
    if (n < FILE_LEAST || memcmp(bytes, magic, sizeof magic)) return 0;
    memcpy(&bits, (const char *)bytes + 16, sizeof bits);
    return bits == 32 || bits == 64 ? (int)bits : 0;
}

pf_status pf_file_open(pf_reader *r, const void *bytes, size_t n, int bits)
{
    *r = (pf_reader){.bytes = bytes, .n = n, .at = sizeof magic, .whole = n};
    if (n < sizeof magic || memcmp(bytes, magic, sizeof magic))
        return pf_fail(PF_BAD_FILE, "this is not a pyflow flow: it begins with other bytes");
    if (n < FILE_LEAST) return pf_fail(PF_BAD_FILE, "the file is cut short: %zu bytes", n);
    int64_t version;
    pf_get(r, &version, sizeof version);
    if (version < PF_FILE_VERSION)
        return pf_fail(PF_BAD_FILE, "the file was written by a pyflow before the first release: its format is %lld",
                       (long long)version);
    if (version > PF_FILE_VERSION)
        return pf_fail(PF_BAD_FILE,
                       "the file was written by a newer pyflow: its format is %lld, this one reads up to %d",
                       (long long)version, PF_FILE_VERSION);
    uint64_t crc;
    memcpy(&crc, r->bytes + n - sizeof crc, sizeof crc);
    r->n = n - sizeof crc;
    if (crc != pf_crc64(bytes, r->n))
        return pf_fail(PF_BAD_FILE, "the file is cut short or altered: its check sum is wrong");
    pf_get_int(r, bits, bits);
    int64_t header = pf_get_int(r, 0, (int64_t)(r->n - r->at));
    if (!r->status) r->at += (size_t)header;
    return r->status;
}

pf_status pf_file_close(pf_reader *r)
{
    if (!r->status && r->at != r->n) corrupt(r);
    return r->status;
}
