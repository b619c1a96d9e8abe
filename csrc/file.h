/* The bytes of a file: a growing buffer to write to, and a reader that never goes past its end. Little-endian. */
#ifndef PF_FILE_H
#define PF_FILE_H
#include "internal.h"

typedef struct {
    unsigned char *bytes;
    size_t n, room;
    pf_status status; /* once not PF_OK, writes do nothing */
} pf_writer;

void pf_put(pf_writer *w, const void *bytes, size_t n);
void pf_put_int(pf_writer *w, int64_t i);
void pf_put_array(pf_writer *w, const void *a, ptrdiff_t count, size_t size); /* its count, then its bytes */

typedef struct {
    const unsigned char *bytes;
    size_t n, at;
    size_t whole;     /* bytes of the whole file, of which this may read a section */
    pf_status status; /* once not PF_OK, reads give zeros */
} pf_reader;

void pf_get(pf_reader *r, void *bytes, size_t n);
int64_t pf_get_int(pf_reader *r, int64_t least, int64_t most); /* a number outside is PF_BAD_FILE */
/* A new copy of an array that must have this count; NULL and r->status otherwise. Free with free(). */
void *pf_get_array(pf_reader *r, ptrdiff_t count, size_t size);
/* The same, copied to array. */
void pf_get_into(pf_reader *r, void *array, ptrdiff_t count, size_t size);

/* The whole of a file, with free(); and a file replaced as a whole: written aside, then renamed. */
pf_status pf_file_read(unsigned char **bytes, size_t *n, const char *path);
pf_status pf_file_write(const char *path, const void *bytes, size_t n);

/* A pyflow file: magic, format version, precision in bits, a JSON header for people and tools (no code, and not needed
 * to read the rest), what it holds, and a check sum over all of it. pf_file_begin(&w, 32, json); pf_put...;
 * pf_file_end(&w); pf_file_open(&r, bytes, n, 32); pf_get...; pf_file_close(&r); */
enum { PF_FILE_VERSION = 2 };
void pf_file_begin(pf_writer *w, int bits, const char *json);
void pf_file_end(pf_writer *w);
pf_status pf_file_open(pf_reader *r, const void *bytes, size_t n, int bits);
pf_status pf_file_close(pf_reader *r); /* PF_BAD_FILE if anything is left unread */

/* The check sum of ECMA-182 (CRC-64) that ends a file. */
uint64_t pf_crc64(const void *bytes, size_t n);
#endif
