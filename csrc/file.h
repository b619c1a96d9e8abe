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
void pf_put_text(pf_writer *w, const char *text);

typedef struct {
    const unsigned char *bytes;
    size_t n, at;
    size_t whole;     /* bytes of the whole file, of which this may read a section */
    pf_status status; /* once not PF_OK, reads give zeros */
} pf_reader;

/* What is read is believed only as far as it is there: a length is compared with pf_left() before anything is
 * allocated. Whatever else is sized by numbers from the file must be compared with pf_left() too. */
size_t pf_left(const pf_reader *r); /* bytes; 0 once the status is not PF_OK */
void pf_get(pf_reader *r, void *bytes, size_t n);
int64_t pf_get_int(pf_reader *r, int64_t least, int64_t most); /* a number outside is PF_BAD_FILE */
double pf_get_real(pf_reader *r, double least, double most);   /* a finite number in the range, else the same */
/* A new copy of an array that must have this count, with free(), or NULL; the same, copied to array. Reals are float
 * (size 4) or double (8), and must be finite. */
void *pf_get_array(pf_reader *r, ptrdiff_t count, size_t size);
void *pf_get_reals(pf_reader *r, ptrdiff_t count, size_t size);
void pf_get_into(pf_reader *r, void *array, ptrdiff_t count, size_t size);
void pf_get_reals_into(pf_reader *r, void *array, ptrdiff_t count, size_t size);
char *pf_get_text(pf_reader *r); /* a new string, "" at least; or NULL. Free with free() */

/* A section: its kind, its length in bytes, and what it holds.
 *
 *     size_t start = pf_put_section(&w, "affine");      char kind[PF_SECTION_KIND];
 *     pf_put...(&w, ...);                               pf_reader section = pf_get_section(&r, kind);
 *     pf_end_section(&w, start);                        pf_get...(&section, ...);
 *                                                       pf_close_section(&r, &section);
 *
 * Its reader ends where the section ends, and r goes on behind it. */
enum { PF_SECTION_KIND = 16 }; /* characters of a kind, with the zero at its end */
size_t pf_put_section(pf_writer *w, const char *kind);
void pf_end_section(pf_writer *w, size_t start);
pf_reader pf_get_section(pf_reader *r, char kind[PF_SECTION_KIND]);
pf_status pf_close_section(pf_reader *r, pf_reader *section); /* r's status; PF_BAD_FILE if anything is left unread */

/* The whole of a file; free with free(). */
pf_status pf_file_read(unsigned char **bytes, size_t *n, const char *path);
/* Writes a file, or replaces one as a whole: written aside and renamed, so that whatever fails, an old file stays as it
 * was, and no other is left. Symbolic links stay, and the file that they lead to is replaced; mode, group and owner (if
 * the caller may) are the old file's. What is not a regular file (a device, a pipe) is written into. */
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
