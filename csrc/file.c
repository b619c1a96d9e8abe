/* Bytes in and out: see file.h. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>
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

void pf_put_text(pf_writer *w, const char *text) { pf_put_array(w, text, (ptrdiff_t)strlen(text), 1); }

size_t pf_put_section(pf_writer *w, const char *kind)
{
    char padded[PF_SECTION_KIND] = {0};
    assert(strlen(kind) < sizeof padded);
    memcpy(padded, kind, strlen(kind));
    pf_put(w, padded, sizeof padded);
    pf_put_int(w, 0); /* the length, when it is known */
    return w->n;
}

void pf_end_section(pf_writer *w, size_t start)
{
    int64_t length = (int64_t)(w->n - start);
    if (!w->status) memcpy(w->bytes + start - sizeof length, &length, sizeof length);
}

static void corrupt(pf_reader *r)
{
    if (!r->status) r->status = pf_fail(PF_BAD_FILE, "the file is damaged: its contents make no sense");
}

size_t pf_left(const pf_reader *r) { return r->status ? 0 : r->n - r->at; }

/* The next count items of size bytes, which the reader then is behind; NULL if they are not all there. Nothing is
 * allocated for more than that. */
static const void *take(pf_reader *r, ptrdiff_t count, size_t size)
{
    if (r->status || count < 0 || pf_left(r) / size < (size_t)count) {
        corrupt(r);
        return NULL;
    }
    const void *items = r->bytes + r->at;
    r->at += (size_t)count * size;
    return items;
}

/* An array: the count that it must have, and its items. */
static const void *take_array(pf_reader *r, ptrdiff_t count, size_t size)
{
    pf_get_int(r, count, count);
    return take(r, count, size);
}

/* 1 if none of count floats (size 4) or doubles (size 8) is NaN or infinite. */
static int all_finite(const void *a, ptrdiff_t count, size_t size)
{
    for (ptrdiff_t i = 0; i < count; i++) {
        float f;
        double d;
        if (size == sizeof f) memcpy(&f, (const char *)a + i * (ptrdiff_t)sizeof f, sizeof f), d = (double)f;
        else memcpy(&d, (const char *)a + i * (ptrdiff_t)sizeof d, sizeof d);
        if (!isfinite(d)) return 0;
    }
    return 1;
}

static const void *take_reals(pf_reader *r, ptrdiff_t count, size_t size)
{
    const void *items = take_array(r, count, size);
    if (items && all_finite(items, count, size)) return items;
    corrupt(r);
    return NULL;
}

/* A copy of what was taken */
static void *copied(pf_reader *r, const void *items, ptrdiff_t count, size_t size)
{
    void *a = items ? pf_alloc(count, size) : NULL;
    if (a && count) memcpy(a, items, (size_t)count * size);
    if (items && !a) r->status = PF_NO_MEMORY;
    return a;
}

void pf_get(pf_reader *r, void *bytes, size_t n)
{
    const void *items = take(r, (ptrdiff_t)n, 1);
    if (items) memcpy(bytes, items, n);
    else memset(bytes, 0, n);
}

int64_t pf_get_int(pf_reader *r, int64_t least, int64_t most)
{
    int64_t i;
    pf_get(r, &i, sizeof i);
    if (!r->status && i >= least && i <= most) return i;
    corrupt(r);
    return least;
}

double pf_get_real(pf_reader *r, double least, double most)
{
    double x;
    pf_get(r, &x, sizeof x);
    if (!r->status && isfinite(x) && x >= least && x <= most) return x;
    corrupt(r);
    return least;
}

void *pf_get_array(pf_reader *r, ptrdiff_t count, size_t size)
{
    return copied(r, take_array(r, count, size), count, size);
}

void *pf_get_reals(pf_reader *r, ptrdiff_t count, size_t size)
{
    return copied(r, take_reals(r, count, size), count, size);
}

void pf_get_into(pf_reader *r, void *array, ptrdiff_t count, size_t size)
{
    const void *items = take_array(r, count, size);
    if (items && count) memcpy(array, items, (size_t)count * size);
}

void pf_get_reals_into(pf_reader *r, void *array, ptrdiff_t count, size_t size)
{
    const void *items = take_reals(r, count, size);
    if (items && count) memcpy(array, items, (size_t)count * size);
}

char *pf_get_text(pf_reader *r)
{
    int64_t n = pf_get_int(r, 0, INT64_MAX);
    const void *items = take(r, n, 1);
    if (items && memchr(items, 0, (size_t)n)) corrupt(r), items = NULL;
    char *text = items ? PF_CALLOC(char, n + 1) : NULL;
    if (text) memcpy(text, items, (size_t)n);
    else if (items) r->status = PF_NO_MEMORY;
    return text;
}

pf_reader pf_get_section(pf_reader *r, char kind[PF_SECTION_KIND])
{
    pf_get(r, kind, PF_SECTION_KIND);
    if (kind[PF_SECTION_KIND - 1]) corrupt(r);
    kind[PF_SECTION_KIND - 1] = 0; /* whoever reads it comes to an end */
    int64_t n = pf_get_int(r, 0, INT64_MAX);
    const unsigned char *bytes = take(r, n, 1);
    return (pf_reader){.bytes = bytes, .n = bytes ? (size_t)n : 0, .status = r->status};
}

pf_status pf_close_section(pf_reader *r, pf_reader *section)
{
    pf_status status = pf_file_close(section);
    if (!r->status) r->status = status;
    return r->status;
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

/* ---- a file replaced as a whole --------------------------------------------------------------------------- */

/* What errno says, of the file as the caller named it. */
static pf_status io_error(const char *name)
{
    return pf_fail(PF_IO_ERROR, "cannot write %s: %s", name, strerror(errno));
}

/* How many characters of a path are its folder, with the slash at its end. */
static int folder_length(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? (int)(slash + 1 - path) : 0;
}

/* The path that this one leads to when symbolic links are followed, whether or not a file is there. Free with free(). */
static pf_status follow_links(char **end, const char *path)
{
    char link[4096];
    ptrdiff_t room = (ptrdiff_t)strlen(path) + 1, n;
    char *at = PF_ALLOC(char, room);
    *end = NULL;
    if (!at) return PF_NO_MEMORY;
    memcpy(at, path, (size_t)room);
    for (int links = 0; (n = readlink(at, link, sizeof link - 1)) >= 0; links++) {
        link[n] = 0;
        int folder = link[0] == '/' ? 0 : folder_length(at);
        room = folder + n + 1;
        char *next = links < 40 ? PF_ALLOC(char, room) : NULL;
        if (next) snprintf(next, (size_t)room, "%.*s%s", folder, at, link);
        free(at);
        if (!next) return links < 40 ? PF_NO_MEMORY : (errno = ELOOP, io_error(path));
        at = next;
    }
    *end = at; /* not a link: a file, or nothing yet */
    return PF_OK;
}

/* After EINTR: PF_OK to go on, unless the caller's interrupt check, which looks every 50 ms only, says stop. */
static pf_status after_signal(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 60 * 1000 * 1000}, NULL);
    return pf_check_interrupt();
}

/* Closes the file too: a full disk or quota may show no sooner. */
static pf_status write_all(int fd, const char *bytes, size_t n, int sync, const char *name)
{
    pf_status status = PF_OK;
    while (n && !status) {
        ssize_t written = write(fd, bytes, PF_MIN(n, (size_t)1 << 30));
        if (written >= 0) bytes += written, n -= (size_t)written;
        else status = errno == EINTR ? after_signal() : io_error(name);
    }
    if (!status && sync && fsync(fd)) status = io_error(name);
    if (close(fd) && !status) status = io_error(name);
    return status;
}

/* Into a device or a pipe: it is no file's place, and has no contents to lose. Opening a pipe waits for its reader. */
static pf_status write_through(const char *path, const void *bytes, size_t n)
{
    int fd;
    while ((fd = open(path, O_WRONLY | O_TRUNC | O_NOCTTY | O_CLOEXEC)) < 0) {
        if (errno != EINTR) return io_error(path);
        PF_TRY(after_signal());
    }
    return write_all(fd, bytes, n, 0, path);
}

/* Opens a new file beside path and writes its name, that long at most, to aside. */
static int open_aside(char *aside, size_t room, const char *path, mode_t mode)
{
    int folder = folder_length(path), fd = -1;
    for (uint64_t attempt = 0; attempt < 100 && fd < 0; attempt++) {
        struct timespec now;
        uint32_t r[4];
        clock_gettime(CLOCK_REALTIME, &now);
        pf_philox(r, (uint64_t)now.tv_sec, (uint64_t)now.tv_nsec, (uint64_t)getpid() << 8 | attempt);
        /* of a long name only the beginning, or this one would be longer than names may be */
        snprintf(aside, room, "%.*s%.200s.%08x%08x", folder, path, path + folder, r[0], r[1]);
        fd = open(aside, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
        if (fd < 0 && errno != EEXIST) break;
    }
    return fd;
}

/* A rename is on the disk when its folder is. Some file systems do not sync folders: only a failing disk matters. */
static pf_status sync_folder(const char *path, const char *name)
{
    char folder[4096];
    snprintf(folder, sizeof folder, "%.*s.", folder_length(path), path);
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return PF_OK;
    pf_status status = fsync(fd) && errno == EIO ? io_error(name) : PF_OK;
    close(fd);
    return status;
}

/* old: what is known of the file that is to be replaced, or NULL. It is there until the new one is complete. */
static pf_status replace(const char *path, const struct stat *old, const void *bytes, size_t n, const char *name)
{
    size_t room = strlen(path) + 32;
    char *aside = PF_ALLOC(char, (ptrdiff_t)room);
    if (!aside) return PF_NO_MEMORY;
    /* The kernel applies the umask to 0666. In place of a file that may be private, nobody else ever reads this one. */
    int fd = open_aside(aside, room, path, old ? 0600 : 0666);
    pf_status status = fd < 0 ? io_error(name) : PF_OK;
    if (fd >= 0 && old) {
        /* Another's file becomes the caller's who may not give files away. The mode comes last: chown alters it. */
        int kept = !fchown(fd, old->st_uid, old->st_gid) || !fchown(fd, (uid_t)-1, old->st_gid);
        (void)kept;
        if (fchmod(fd, old->st_mode & 07777)) status = io_error(name);
    }
    if (fd >= 0 && status) close(fd);
    else if (fd >= 0) status = write_all(fd, bytes, n, 1, name);
    if (!status && rename(aside, path)) status = io_error(name);
    if (fd >= 0 && status) unlink(aside);
    free(aside);
    return status ? status : sync_folder(path, name);
}

pf_status pf_file_write(const char *path, const void *bytes, size_t n)
{
    struct stat old, end;
    char *target;
    int there = !stat(path, &old);
    if (!there && errno != ENOENT) return io_error(path);
    if (there && S_ISDIR(old.st_mode)) return errno = EISDIR, io_error(path);
    if (there && !S_ISREG(old.st_mode)) return write_through(path, bytes, n);
    PF_TRY(follow_links(&target, path));
    /* what /dev/stdout leads to may have no name any more */
    int named = !there || (!stat(target, &end) && end.st_dev == old.st_dev && end.st_ino == old.st_ino);
    pf_status status = named ? replace(target, there ? &old : NULL, bytes, n, path) : write_through(path, bytes, n);
    free(target);
    return status;
}

pf_status pf_save_bytes(const char *path, const void *bytes, size_t n)
{
    pf_begin();
    return pf_end(pf_file_write(path, bytes, n));
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
    take(r, pf_get_int(r, 0, INT64_MAX), 1); /* the header */
    return r->status;
}

pf_status pf_file_close(pf_reader *r)
{
    if (!r->status && r->at != r->n) corrupt(r);
    return r->status;
}
