/* Rows that are in both the training and the validation data. As layers sharpen on such rows their log p rises without
 * end, on both sides, and validation never says stop: when they are more than a few, each is used on one side only. */
#ifndef real
#include "working.h"

enum {
    CHANCE = 3,   /* so many rows may be in both by chance, */
    FEW = 10,     /* and one in so many: with fewer a fit without them gains nothing, with 40 % it gains much */
    HELD_OUT = 5, /* one in so many of those that are in both is validated on, the others are trained on */
    CROWD = 50,   /* equal rows that are more than one in so many are a spike: training without it would miss a mode */
};

/* Hashes of the validation rows, by open addressing, and how many training rows have each. */
typedef struct {
    uint64_t *hash; /* [size], 0: free */
    ptrdiff_t *count;
    ptrdiff_t size; /* a power of two, at most half full */
} hash_table;

typedef struct {
    ptrdiff_t rows, both, kept; /* rows with a weight; in both; on this side once each is on one side only */
} tally;

static uint64_t mixed(uint64_t h)
{
    h = (h ^ (h >> 30)) * 0xbf58476d1ce4e5b9; /* splitmix64 (Steele et al. 2014) */
    h = (h ^ (h >> 27)) * 0x94d049bb133111eb;
    return h ^ (h >> 31);
}

/* Where the hash is, or the free place where it belongs. */
static ptrdiff_t place(const hash_table *t, uint64_t hash)
{
    ptrdiff_t at = (ptrdiff_t)(hash & (uint64_t)(t->size - 1));
    while (t->hash[at] && t->hash[at] != hash) at = (at + 1) & (t->size - 1);
    return at;
}

static int held_out(uint64_t hash) { return (hash >> 32) % HELD_OUT == 0; }

#define TWICE "overlap.c"
#include "twice.h"
#else

/* Hashes of the rows of tile t and their labels: 0 for a row without weight. */
static void X(hash_tile)(uint64_t hash[TILE_MOST], const X(working) *s, ptrdiff_t t)
{
    X(tile) tile = X(working_tile)(s, t);
    for (ptrdiff_t i = 0; i < tile.n; i++) hash[i] = mixed(tile.label ? (uint64_t)tile.label[i] + 1 : 1);
    for (ptrdiff_t j = 0; j < s->d; j++)
        for (ptrdiff_t i = 0; i < tile.n; i++) {
            double x = (double)tile.x[j * s->ld + i] + 0.0; /* -0 is 0 */
            uint64_t bits;
            memcpy(&bits, &x, 8);
            hash[i] = mixed(hash[i] + bits);
        }
    for (ptrdiff_t i = 0; i < tile.n; i++) hash[i] = s->weight && !s->weight[t * s->ld + i] ? 0 : PF_MAX(hash[i], 1);
}

/* Goes through the rows that have a weight; if `drop`, takes the weight of those in both that belong to the other side.
 */
static pf_status X(take_side)(tally *sum, X(working) *s, const hash_table *table, int validate, int drop)
{
    uint64_t hash[TILE_MOST];
    int64_t found[3] = {0}; /* rows, both, kept */
    if (drop && !s->weight) {
        if (!(s->weight = PF_ALLOC(int64_t, s->n))) return PF_NO_MEMORY;
        for (ptrdiff_t i = 0; i < s->n; i++) s->weight[i] = 1;
    }
    for (ptrdiff_t t = 0; t < s->tiles; t++) {
        X(hash_tile)(hash, s, t);
        for (ptrdiff_t i = 0; i < X(working_tile)(s, t).n; i++) {
            if (!hash[i]) continue;
            int both = table->count[place(table, hash[i])] > 0, keep = !both || held_out(hash[i]) == validate;
            found[0]++, found[1] += both, found[2] += keep;
            if (drop && !keep) s->weight[t * s->ld + i] = 0;
        }
    }
    PF_TRY(pf_ranks_sum(s->ranks, found, 3));
    *sum = (tally){found[0], found[1], found[2]};
    if (drop) PF_TRY(X(working_count)(s));
    return pf_check_interrupt();
}

static pf_status X(fill_table)(hash_table *table, const X(working) *train, const X(working) *validate)
{
    uint64_t hash[TILE_MOST], *all = PF_CALLOC(uint64_t, validate->all); /* of all ranks' validation rows */
    if (!all) return PF_NO_MEMORY;
    for (ptrdiff_t t = 0; t < validate->tiles; t++) {
        X(hash_tile)(hash, validate, t);
        memcpy(all + X(working_row)(validate, t * validate->ld), hash,
               (size_t)X(working_tile)(validate, t).n * sizeof *hash);
    }
    pf_status status = pf_ranks_sum(validate->ranks, all, validate->all);
    for (ptrdiff_t i = 0; i < validate->all && !status; i++)
        if (all[i]) table->hash[place(table, all[i])] = all[i];
    free(all);
    if (status) return status;
    for (ptrdiff_t t = 0; t < train->tiles; t++) {
        X(hash_tile)(hash, train, t);
        for (ptrdiff_t i = 0; i < X(working_tile)(train, t).n; i++) {
            ptrdiff_t at = place(table, hash[i]);
            if (hash[i] && table->hash[at]) table->count[at]++;
        }
    }
    return pf_ranks_sum(train->ranks, table->count, table->size);
}

pf_status X(overlap_split)(pf_overlap *o, X(working) *train, X(working) *validate)
{
    hash_table table = {.size = 16};
    tally fitted, judged;
    ptrdiff_t most = 0; /* equal rows */
    *o = (pf_overlap){0};
    while (table.size < 2 * validate->all) table.size *= 2;
    table.hash = PF_CALLOC(uint64_t, table.size), table.count = PF_CALLOC(ptrdiff_t, table.size);
    pf_status status = table.hash && table.count ? PF_OK : PF_NO_MEMORY;
    if (!status) status = X(fill_table)(&table, train, validate);
    if (!status) {
        for (ptrdiff_t i = 0; i < table.size; i++) most = PF_MAX(most, table.count[i]);
        status = X(take_side)(&judged, validate, &table, 1, 0);
    }
    if (!status && judged.both > CHANCE + judged.rows / FEW) {
        o->rows = judged.rows, o->both = judged.both;
        status = X(take_side)(&fitted, train, &table, 0, 0);
        o->split = judged.kept >= 1 && fitted.kept >= 2 && (most == 1 || most * CROWD <= fitted.rows);
        if (!status && o->split) status = X(take_side)(&fitted, train, &table, 0, 1);
        if (!status && o->split) status = X(take_side)(&judged, validate, &table, 1, 1);
    }
    free(table.hash);
    free(table.count);
    return status;
}
#endif
