/* Bytes in and out (file.h): lengths and numbers that a file makes up; files replaced as a whole, whatever fails. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "check.h"
#include "file.h"

/* ---- system calls that fail when told to: these stand before libc's for the library too -------------------- */

static int calls_until_failure = -1, failure, umask_calls, short_writes, signals;

/* Whether this call, one of those that pf_file_write makes, is the one to fail. */
static int fails(void)
{
    if (calls_until_failure < 0 || calls_until_failure-- > 0) return 0;
    errno = failure;
    return 1;
}

mode_t umask(mode_t mask)
{
    umask_calls++;
    return (mode_t)syscall(SYS_umask, mask);
}

int open(const char *path, int flags, ...)
{
    va_list rest;
    va_start(rest, flags);
    mode_t mode = flags & O_CREAT ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    return fails() ? -1 : (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

ssize_t write(int fd, const void *bytes, size_t n)
{
    if (fails()) return -1;
    if (signals && signals--) return errno = EINTR, -1;
    return syscall(SYS_write, fd, bytes, short_writes && n > 7 ? 7 : n);
}

int fsync(int fd) { return fails() ? -1 : (int)syscall(SYS_fsync, fd); }
int fchmod(int fd, mode_t mode) { return fails() ? -1 : (int)syscall(SYS_fchmod, fd, mode); }
int rename(const char *from, const char *to)
{
    return fails() ? -1 : (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
}

int close(int fd)
{
    int failed = fails(), result = (int)syscall(SYS_close, fd); /* the descriptor is gone all the same */
    return failed ? errno = failure, -1 : result;
}

/* ---- a folder to work in ------------------------------------------------------------------------------------ */

static void put(const char *path, const char *text, mode_t mode)
{
    FILE *f = fopen(path, "wb");
    fputs(text, f);
    fclose(f);
    chmod(path, mode);
}

static int holds(const char *path, const char *text)
{
    char found[64] = {0};
    FILE *f = fopen(path, "rb");
    if (!f) return 0;
    size_t n = fread(found, 1, sizeof found - 1, f);
    fclose(f);
    return n == strlen(text) && !strcmp(found, text);
}

static int entries(const char *folder)
{
    int n = 0;
    DIR *d = opendir(folder);
    while (d && readdir(d)) n++;
    if (d) closedir(d);
    return n - 2; /* . and .. */
}

static mode_t mode_of(const char *path)
{
    struct stat info;
    return lstat(path, &info) ? 0 : info.st_mode;
}

static pf_status save(const char *path, const char *text)
{
    pf_begin();
    return pf_end(pf_file_write(path, text, strlen(text)));
}

/* ---- files replaced as a whole ------------------------------------------------------------------------------ */

static void test_links(void)
{
    mkdir("folder", 0755);
    put("folder/end", "old", 0640);
    CHECK(!symlink("end", "folder/next") && !symlink("folder/next", "link"), "%s", strerror(errno));
    CHECK(save("link", "new") == PF_OK, "%s", pf_message());
    CHECK(S_ISLNK(mode_of("link")) && S_ISLNK(mode_of("folder/next")), "a link was replaced");
    CHECK(holds("folder/end", "new") && mode_of("folder/end") == (S_IFREG | 0640), "%o", mode_of("folder/end"));
    CHECK(entries("folder") == 2, "%d", entries("folder"));

    char here[4096], there[4200];
    CHECK(getcwd(here, sizeof here) != NULL, "%s", strerror(errno));
    snprintf(there, sizeof there, "%s/folder/later", here);
    CHECK(!symlink(there, "dangling"), "%s", strerror(errno));
    CHECK(save("dangling", "made") == PF_OK, "%s", pf_message());
    CHECK(S_ISLNK(mode_of("dangling")) && holds("folder/later", "made"), "what a link leads to is made");

    CHECK(!symlink("nowhere/x", "lost") && !symlink("ring", "ring"), "%s", strerror(errno));
    CHECK(save("lost", "x") == PF_IO_ERROR && strstr(pf_message(), "lost: No such file"), "%s", pf_message());
    CHECK(save("ring", "x") == PF_IO_ERROR && strstr(pf_message(), "ring: "), "%s", pf_message());
    CHECK(S_ISLNK(mode_of("ring")), "the link stays");
    unlink("link"), unlink("dangling"), unlink("lost"), unlink("ring");
    unlink("folder/next"), unlink("folder/end"), unlink("folder/later"), rmdir("folder");
}

static void test_modes(void)
{
    static const mode_t modes[] = {0600, 0640, 0644, 0666, 0755, 0400};
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
        put("file", "old", modes[i]);
        CHECK(save("file", "new") == PF_OK && holds("file", "new"), "%s", pf_message());
        CHECK(mode_of("file") == (S_IFREG | modes[i]), "%o became %o", modes[i], mode_of("file"));
    }
    if (!geteuid()) { /* only root gives files away */
        struct stat info;
        CHECK(!chown("file", 12, 34) && !chmod("file", 04711), "%s", strerror(errno));
        CHECK(save("file", "new") == PF_OK && !stat("file", &info), "%s", pf_message());
        CHECK(info.st_uid == 12 && info.st_gid == 34, "now of %d, %d", (int)info.st_uid, (int)info.st_gid);
        CHECK(info.st_mode == (S_IFREG | 04711), "%o", info.st_mode);
    }
    for (mode_t mask = 0; mask < 0100; mask += 027) {
        unlink("file");
        syscall(SYS_umask, mask);
        CHECK(save("file", "new") == PF_OK && mode_of("file") == (S_IFREG | (0666 & ~mask)), "%o", mode_of("file"));
    }
    syscall(SYS_umask, 022);
    CHECK(!umask_calls, "the umask is the whole process's, other threads' too");
    unlink("file");
}

static void *drain(void *path)
{
    static char found[100000];
    FILE *f = fopen(path, "rb");
    size_t n = fread(found, 1, sizeof found, f);
    fclose(f);
    return (void *)n;
}

static void test_what_is_no_file(void)
{
    CHECK(save("/dev/null", "x") == PF_OK && S_ISCHR(mode_of("/dev/null")), "%s", pf_message());
    CHECK(save("/dev/full", "x") == PF_IO_ERROR && strstr(pf_message(), "No space left"), "%s", pf_message());
    CHECK(S_ISCHR(mode_of("/dev/full")), "a device was replaced");
    CHECK(save(".", "x") == PF_IO_ERROR && strstr(pf_message(), "Is a directory"), "%s", pf_message());

    static char text[90000]; /* more than a pipe holds at once */
    memset(text, 'x', sizeof text - 1);
    CHECK(!mkfifo("pipe", 0600) && !symlink("pipe", "to_pipe"), "%s", strerror(errno));
    pthread_t reader;
    void *n;
    pthread_create(&reader, NULL, drain, "pipe");
    CHECK(save("to_pipe", text) == PF_OK, "%s", pf_message());
    pthread_join(reader, &n);
    CHECK((size_t)n == sizeof text - 1 && S_ISFIFO(mode_of("pipe")), "%zu bytes", (size_t)n);
    unlink("pipe"), unlink("to_pipe");

    /* a file that has lost its name, as standard output may have: /dev/fd/N leads to "... (deleted)" */
    char name[40];
    put("gone", "older and longer", 0600);
    int fd = open("gone", O_RDWR);
    unlink("gone");
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    CHECK(save(name, "new") == PF_OK && holds(name, "new"), "%s", pf_message());
    close(fd);
    CHECK(entries(".") == 0, "%d", entries("."));
}

/* Every call of the system fails in turn: the file is the old or the new one, whole, and no other is left. */
static void test_failures(const char *path, int old, int reason)
{
    int told = 0;
    for (int k = 0;; k++) {
        if (old) put("file", "old", 0600);
        else unlink("file");
        failure = reason;
        calls_until_failure = k;
        pf_status status = save(path, "new");
        int all = calls_until_failure >= 0; /* as many calls as that there are not */
        calls_until_failure = -1;
        if (all) {
            CHECK(status == PF_OK && holds("file", "new"), "%s", pf_message());
            break;
        }
        int made = holds("file", "new"), kept = old ? holds("file", "old") : !mode_of("file");
        CHECK(made || kept, "call %d: the file is lost", k);
        /* when all is written, a folder that cannot be synced is no failure unless the disk fails */
        CHECK(status == PF_IO_ERROR || (status == PF_OK && made), "call %d: %d", k, status);
        told += status != PF_OK;
        CHECK(!status || strstr(pf_message(), strerror(reason)), "call %d: %s", k, pf_message());
        CHECK(entries(".") == (made || old) + (strcmp(path, "file") != 0), "call %d: %d files", k, entries("."));
    }
    /* open, fchmod, write, fsync, close, rename; and fsync of the folder */
    CHECK(told == 5 + old + (reason == EIO), "%d failures were told", told);
    unlink("file");
}

static int stop(void *user) { return ++*(int *)user > 1; }

static void test_writing_goes_on(void)
{
    short_writes = 1;
    signals = 2;
    CHECK(save("file", "in several parts, and interrupted") == PF_OK, "%s", pf_message());
    CHECK(holds("file", "in several parts, and interrupted"), "parts are missing");
    short_writes = 0;
    int asked = 0;
    signals = 100;
    pf_set_interrupt(stop, &asked);
    CHECK(save("file", "x") == PF_INTERRUPTED && asked == 2, "%d", asked);
    pf_set_interrupt(NULL, NULL);
    signals = 0;
    CHECK(holds("file", "in several parts, and interrupted") && entries(".") == 1, "%d", entries("."));
    unlink("file");
    char name[256] = {0}; /* as long as names may be */
    memset(name, 'n', 255);
    CHECK(save(name, "x") == PF_OK && holds(name, "x"), "%s", pf_message());
    unlink(name);
}

/* ---- bytes ---------------------------------------------------------------------------------------------------- */

static pf_reader reader_of(const void *bytes, size_t n)
{
    pf_begin();
    pf_end(PF_OK);
    return (pf_reader){.bytes = bytes, .n = n};
}

static void test_lengths(void)
{
    static const int64_t lengths[] = {-1, INT64_MIN, 4, 1 << 20, INT64_MAX, INT64_MAX / 8 + 1, (int64_t)1 << 61};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        int64_t bytes[4] = {lengths[i], 1, 2, 3}, into[4] = {0}; /* three numbers there are */
        pf_reader r = reader_of(bytes, sizeof bytes);
        CHECK(!pf_get_array(&r, lengths[i], 8) && r.status == PF_BAD_FILE, "%lld", (long long)lengths[i]);
        r = reader_of(bytes, sizeof bytes);
        CHECK(!pf_get_reals(&r, lengths[i], 8) && r.status == PF_BAD_FILE, "%lld", (long long)lengths[i]);
        r = reader_of(bytes, sizeof bytes);
        pf_get_into(&r, into, lengths[i], 8);
        pf_get_reals_into(&r, into, lengths[i], 8);
        CHECK(r.status == PF_BAD_FILE && !into[0], "%lld", (long long)lengths[i]);
        r = reader_of(bytes, sizeof bytes);
        if (lengths[i] != 4) CHECK(!pf_get_text(&r) && r.status == PF_BAD_FILE, "%lld", (long long)lengths[i]);
        CHECK(!pf_get_array(&r, 0, 8) && pf_left(&r) == (r.status ? 0 : 20), "a reader goes on after an error");
    }
    int64_t bytes[4] = {3, 1, 2, 3};
    pf_reader r = reader_of(bytes, sizeof bytes);
    int64_t *a = pf_get_array(&r, 3, 8);
    CHECK(a && !memcmp(a, bytes + 1, 24) && !pf_left(&r) && pf_file_close(&r) == PF_OK, "%s", pf_message());
    free(a);
    r = reader_of(bytes, sizeof bytes);
    CHECK(!pf_get_array(&r, 2, 8) && r.status == PF_BAD_FILE, "another count than wanted");
}

/* The JSON header is passed over: its length may not reach into the check sum, or beyond. */
static void test_header(void)
{
    for (int64_t more = 0; more < 20; more++) {
        pf_writer w = {0};
        pf_reader r;
        pf_file_begin(&w, PF_KIND_LAYERS, 64, "{}");
        int64_t length = 2 + more;
        memcpy(w.bytes + 32, &length, 8);
        pf_file_end(&w);
        pf_begin();
        pf_status status = pf_end(pf_file_open(&r, w.bytes, w.n, PF_KIND_LAYERS, 64));
        CHECK(status == (more ? PF_BAD_FILE : PF_OK) && r.at <= r.n, "%d more: %d", (int)more, status);
        free(w.bytes);
    }
}

static void test_reals(void)
{
    static const double bad[] = {NAN, -NAN, INFINITY, -INFINITY};
    for (int i = -1; i < 4; i++) {
        pf_writer w = {0};
        double d[2] = {1e300, i < 0 ? -5e-324 : bad[i]};
        float f[3] = {1, 2, i < 0 ? 3e38f : (float)bad[i]};
        pf_put_array(&w, d, 2, sizeof *d);
        pf_put_array(&w, f, 3, sizeof *f);
        pf_put(&w, d + 1, sizeof *d);
        pf_reader r = reader_of(w.bytes, w.n);
        double *e = pf_get_reals(&r, 2, sizeof *e);
        CHECK(i < 0 ? e && !memcmp(d, e, sizeof d) : !e && r.status == PF_BAD_FILE, "%d", i);
        r = reader_of(w.bytes, w.n);
        r.at = 8 + sizeof d;
        float g[3] = {0};
        pf_get_reals_into(&r, g, 3, sizeof *g);
        CHECK(i < 0 ? !memcmp(f, g, sizeof f) : !g[0] && r.status == PF_BAD_FILE, "%d", i);
        r = reader_of(w.bytes, w.n);
        r.at = w.n - 8;
        double got = pf_get_real(&r, -1, 1);
        CHECK(i < 0 ? got == d[1] && !r.status : got == -1 && r.status == PF_BAD_FILE, "%d: %g", i, got);
        r = reader_of(w.bytes, w.n);
        r.at = w.n - 8;
        CHECK(pf_get_real(&r, 0, 1) == 0 && r.status == PF_BAD_FILE, "less than the least");
        free(e);
        free(w.bytes);
    }
}

static void test_sections(void)
{
    pf_writer w = {0};
    size_t outer = pf_put_section(&w, "fifteen letters"), inner = pf_put_section(&w, "inner");
    pf_put_text(&w, "text");
    pf_end_section(&w, inner);
    pf_put_text(&w, "");
    pf_end_section(&w, outer);
    pf_put_int(&w, 42);

    char kind[PF_SECTION_KIND];
    for (int unread = 0; unread <= 1; unread++) {
        pf_reader r = reader_of(w.bytes, w.n), a = pf_get_section(&r, kind);
        CHECK(!strcmp(kind, "fifteen letters"), "%s", kind);
        pf_reader b = pf_get_section(&a, kind);
        CHECK(!strcmp(kind, "inner") && pf_left(&b) == 12, "%s", kind);
        char *text = pf_get_text(&b), *none = unread ? NULL : pf_get_text(&a);
        CHECK(text && !strcmp(text, "text") && (unread || (none && !*none)), "%s", pf_message());
        CHECK(pf_close_section(&a, &b) == PF_OK, "%s", pf_message());
        CHECK(pf_close_section(&r, &a) == (unread ? PF_BAD_FILE : PF_OK), "%d", unread);
        if (!unread) CHECK(pf_get_int(&r, 42, 42) == 42 && pf_file_close(&r) == PF_OK, "%s", pf_message());
        free(text), free(none);
    }

    /* numbers go on in the file, but not in the section */
    pf_reader r = reader_of(w.bytes, w.n), a = pf_get_section(&r, kind), b = pf_get_section(&a, kind);
    free(pf_get_text(&b));
    CHECK(!pf_get_text(&b) && pf_close_section(&a, &b) == PF_BAD_FILE && a.status == PF_BAD_FILE, "past the end");
    CHECK(pf_close_section(&r, &a) == PF_BAD_FILE && r.status == PF_BAD_FILE, "an error goes outwards");

    static const int64_t lengths[] = {-1, 1000, INT64_MAX};
    for (int i = 0; i < 3; i++) { /* a section longer than its file, and than the section that it is in */
        memcpy(w.bytes + inner - 8, lengths + i, 8);
        r = reader_of(w.bytes, w.n), a = pf_get_section(&r, kind), b = pf_get_section(&a, kind);
        CHECK(b.status == PF_BAD_FILE && !pf_left(&b), "%lld", (long long)lengths[i]);
    }
    int64_t length = (int64_t)(w.n - 8 - inner) + 8; /* as far as the file goes */
    memcpy(w.bytes + inner - 8, &length, 8);
    r = reader_of(w.bytes, w.n), a = pf_get_section(&r, kind), b = pf_get_section(&a, kind);
    CHECK(b.status == PF_BAD_FILE, "longer than the section that it is in");
    w.bytes[15] = 'x';
    r = reader_of(w.bytes, w.n), a = pf_get_section(&r, kind);
    CHECK(a.status == PF_BAD_FILE, "a kind without end");
    free(w.bytes);

    static const char text[] = "\4\0\0\0\0\0\0\0a\0bc";
    r = reader_of(text, 12);
    CHECK(!pf_get_text(&r) && r.status == PF_BAD_FILE, "a text with a zero in it");
}

int main(void)
{
    char folder[] = "/tmp/pyflow-test-XXXXXX";
    if (!mkdtemp(folder) || chdir(folder)) return perror(folder), 1;
    syscall(SYS_umask, 022);
    test_links();
    test_modes();
    test_what_is_no_file();
    for (int old = 0; old <= 1; old++) {
        test_failures("file", old, ENOSPC);
        test_failures("file", old, EIO);
    }
    CHECK(!symlink("file", "link"), "%s", strerror(errno));
    test_failures("link", 1, ENOSPC);
    test_failures("link", 0, EIO);
    unlink("link");
    test_writing_goes_on();
    CHECK(entries(".") == 0, "%d", entries("."));
    CHECK(!chdir("/") && !rmdir(folder), "%s", strerror(errno));
    test_lengths();
    test_header();
    test_reals();
    test_sections();
    return check_result();
}
