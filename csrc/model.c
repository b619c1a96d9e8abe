/* A stack of layers: densities, latents, samples and scores by tiles, each of which goes through all layers while it is
 * in cache; and the model's file. */
#ifndef real
#include <stdatomic.h>
#include <stdio.h>

#include "model.h"

typedef enum { FORWARD, INVERSE, LOGP, SCORE, SAMPLE } task;

#define TWICE "model.c"
#include "twice.h"
#else

/* ---- layers and stacks ------------------------------------------------------------------------------------ */

const X(layer_ops) *const X(layer_kinds)[] = {&X(columns_ops), &X(affine_ops), &X(sliced_ops), NULL};

X(layer) *X(layer_share)(X(layer) *l)
{
    __atomic_add_fetch(&l->references, 1, __ATOMIC_RELAXED);
    return l;
}

void X(layer_release)(X(layer) *l)
{
    if (l && __atomic_sub_fetch(&l->references, 1, __ATOMIC_ACQ_REL) == 0) l->ops->destroy(l);
}

pf_status X(model_new)(X(model) **model, ptrdiff_t d, int classes)
{
    *model = PF_CALLOC(X(model), 1);
    if (!*model) return PF_NO_MEMORY;
    (*model)->d = d;
    (*model)->classes = classes;
    return PF_OK;
}

pf_status X(model_append)(X(model) *model, X(layer) *layer, const double history[HISTORY])
{
    if (model->n_layers == model->room) {
        ptrdiff_t room = 2 * model->room + 16;
        X(layer) **layers = realloc(model->layers, (size_t)room * sizeof *layers);
        if (layers) model->layers = layers;
        double(*h)[HISTORY] = realloc(model->history, (size_t)room * sizeof *h);
        if (h) model->history = h;
        if (!layers || !h) {
            X(layer_release)(layer);
            return pf_fail(PF_NO_MEMORY, "out of memory: a model of %td layers", room);
        }
        model->room = room;
    }
    memcpy(model->history[model->n_layers], history, sizeof *model->history);
    model->layers[model->n_layers++] = layer;
    return PF_OK;
}

void X(model_truncate)(X(model) *model, ptrdiff_t n_layers)
{
    while (model->n_layers > n_layers) X(layer_release)(model->layers[--model->n_layers]);
}

void X(model_free)(X(model) *model)
{
    if (!model) return;
    X(model_truncate)(model, 0);
    free(model->layers);
    free(model->history);
    free(model->note);
    free(model);
}

static pf_status X(copy)(X(model) **copy, const X(model) *model, ptrdiff_t n_layers)
{
    *copy = NULL;
    if (n_layers < 0 || n_layers > model->n_layers)
        return pf_fail(PF_BAD_ARGUMENT, "n_layers: %td is not between 0 and %td", n_layers, model->n_layers);
    pf_status status = X(model_new)(copy, model->d, model->classes);
    for (ptrdiff_t i = 0; i < n_layers && !status; i++)
        status = X(model_append)(*copy, X(layer_share)(model->layers[i]), model->history[i]);
    if (!status && model->note) status = X(model_set_note)(*copy, model->note);
    if (status) {
        X(model_free)(*copy);
        *copy = NULL;
    }
    return status;
}

pf_status X(model_copy)(X(model) **copy, const X(model) *model, ptrdiff_t n_layers)
{
    pf_begin();
    return pf_end(X(copy)(copy, model, n_layers));
}

ptrdiff_t X(model_dim)(const X(model) *model) { return model->d; }
ptrdiff_t X(model_layers)(const X(model) *model) { return model->n_layers; }
int X(model_classes)(const X(model) *model) { return model->classes; }
const char *X(model_layer_name)(const X(model) *model, ptrdiff_t i) { return model->layers[i]->ops->name; }
const double *X(model_history)(const X(model) *model, ptrdiff_t i) { return model->history[i]; }
const char *X(model_note)(const X(model) *model) { return model->note ? model->note : ""; }

pf_status X(model_set_note)(X(model) *model, const char *json)
{
    char *note = PF_ALLOC(char, (ptrdiff_t)strlen(json) + 1);
    if (!note) return PF_NO_MEMORY;
    strcpy(note, json);
    free(model->note);
    model->note = note;
    return PF_OK;
}

ptrdiff_t X(model_work)(const X(model) *model, ptrdiff_t ld)
{
    ptrdiff_t most = 0;
    for (ptrdiff_t i = 0; i < model->n_layers; i++)
        most = PF_MAX(most, model->layers[i]->ops->work(model->layers[i], ld));
    return most;
}

/* ---- tiles ------------------------------------------------------------------------------------------------ */

ptrdiff_t X(tile_rows)(ptrdiff_t d)
{
    ptrdiff_t rows = 128 * 1024 / (ptrdiff_t)sizeof(real) / d / TILE_STEP * TILE_STEP;
    return PF_MIN(PF_MAX(rows, 2 * TILE_STEP), TILE_MOST);
}

int X(tile_load)(X(tile) *t, const real *x, ptrdiff_t d)
{
    int bad = 0;
    for (ptrdiff_t j = 0; j < d; j++) {
        for (ptrdiff_t i = 0; i < t->n; i++) {
            real v = x[i * d + j];
            bad |= !(v - v == 0);
            t->x[j * t->ld + i] = v;
        }
        for (ptrdiff_t i = t->n; i < t->ld; i++) t->x[j * t->ld + i] = 0;
    }
    return bad;
}

void X(tile_store)(real *x, const X(tile) *t, ptrdiff_t d)
{
    for (ptrdiff_t i = 0; i < t->n; i++)
        for (ptrdiff_t j = 0; j < d; j++) x[i * d + j] = t->x[j * t->ld + i];
}

void X(tile_logp)(double *logp, const X(tile) *t, ptrdiff_t d)
{
    double square[TILE_MOST] = {0};
    for (ptrdiff_t j = 0; j < d; j++)
        for (ptrdiff_t i = 0; i < t->n; i++) square[i] += (double)t->x[j * t->ld + i] * (double)t->x[j * t->ld + i];
    for (ptrdiff_t i = 0; i < t->n; i++) logp[i] = -0.5 * (square[i] + (double)d * PF_LOG_2PI);
}

/* ---- evaluation: one job, many tiles ---------------------------------------------------------------------- */

typedef struct {
    const X(model) *model;
    task task;
    const real *in;       /* [n][d] */
    real *out;            /* [n][d] or NULL */
    double *log;          /* [n] or NULL: logj or logp */
    const int32_t *label; /* [n] or NULL */
    ptrdiff_t n, rows;
    uint64_t seed;
    ptrdiff_t first;
    const double *bounds;    /* [d][2] or NULL */
    ptrdiff_t tiles;         /* in a block */
    struct X(piece) *pieces; /* [threads][tiles] */
    real *memory;            /* [threads][per_thread] */
    ptrdiff_t per_thread;
    atomic_ptrdiff_t bad_row; /* a row that is not finite, or out of bounds */
} X(job);

/* Rows outside the bounds are moved onto them; returns whether there were any, and says which if asked. */
static int X(clamp)(X(tile) *t, const double *bounds, ptrdiff_t d, char *outside)
{
    int any = 0;
    for (ptrdiff_t j = 0; j < d; j++) {
        double lo = bounds[2 * j], hi = bounds[2 * j + 1];
        for (ptrdiff_t i = 0; i < t->n; i++) {
            double x = t->x[j * t->ld + i];
            if (x >= lo && x <= hi) continue;
            t->x[j * t->ld + i] = (real)(x < lo ? lo : hi);
            if (outside) outside[i] = 1;
            any = 1;
        }
    }
    return any;
}

/* d log p / dx of a tile: the inputs of all layers are kept, then walked back. */
static void X(score_tile)(const X(model) *model, X(tile) *t, double *logp, real *kept, real *work)
{
    ptrdiff_t d = model->d, size = d * t->ld;
    double logj[TILE_MOST] = {0}, ones[TILE_MOST];
    for (ptrdiff_t l = 0; l < model->n_layers; l++) {
        memcpy(kept + l * size, t->x, (size_t)size * sizeof(real));
        model->layers[l]->ops->forward(model->layers[l], t, logj, work);
    }
    X(tile_logp)(logp, t, d);
    for (ptrdiff_t i = 0; i < t->n; i++) logp[i] += logj[i];
    for (ptrdiff_t i = 0; i < TILE_MOST; i++) ones[i] = 1;
    for (ptrdiff_t i = 0; i < size; i++) t->x[i] = -t->x[i]; /* d log N / dz */
    for (ptrdiff_t l = model->n_layers - 1; l >= 0; l--)
        model->layers[l]->ops->vjp(model->layers[l], t, NULL, ones, kept + l * size, work);
}

/* A tile and what is known of its rows. */
typedef struct X(piece) {
    X(tile) t;
    ptrdiff_t start; /* its first row */
    double log[TILE_MOST], log_normal[TILE_MOST];
    char outside[TILE_MOST]; /* the bounds */
} X(piece);

static void X(draw)(X(piece) *p, const X(job) *job)
{
    ptrdiff_t d = job->model->d;
    double z[TILE_MOST];
    memset(p->t.x, 0, (size_t)(d * p->t.ld) * sizeof(real));
    for (ptrdiff_t j = 0; j < d; j += 64) {
        ptrdiff_t m = PF_MIN(d - j, 64), rows = TILE_MOST / m;
        for (ptrdiff_t i = 0; i < p->t.n; i += rows) {
            ptrdiff_t n = PF_MIN(rows, p->t.n - i);
            pf_normal_rows(z, job->seed, (uint64_t)(job->first + p->start + i), (uint64_t)j, n, m);
            for (ptrdiff_t r = 0; r < n; r++)
                for (ptrdiff_t c = 0; c < m; c++) p->t.x[(j + c) * p->t.ld + i + r] = (real)z[r * m + c];
        }
    }
    X(tile_logp)(p->log_normal, &p->t, d);
}

/* Returns whether a row is refused. */
static int X(load)(X(piece) *p, const X(job) *job)
{
    ptrdiff_t d = job->model->d;
    if (X(tile_load)(&p->t, job->in + p->start * d, d)) return 1;
    if (!job->bounds || job->task == INVERSE) return 0;
    return X(clamp)(&p->t, job->bounds, d, p->outside) && job->task != LOGP;
}

static void X(finish)(X(piece) *p, const X(job) *job)
{
    ptrdiff_t d = job->model->d, n = p->t.n;
    if (job->task == SAMPLE)
        for (ptrdiff_t i = 0; i < n; i++) p->log[i] = p->log_normal[i] - p->log[i];
    if (job->task == LOGP) {
        X(tile_logp)(p->log_normal, &p->t, d);
        for (ptrdiff_t i = 0; i < n; i++) p->log[i] = p->outside[i] ? -INFINITY : p->log[i] + p->log_normal[i];
    }
    if (job->log) memcpy(job->log + p->start, p->log, (size_t)n * sizeof *p->log);
    if (job->out) X(tile_store)(job->out + p->start * d, &p->t, d);
}

/* A few tiles together: a large model's layers come from memory, and serve them all while they are in cache. */
static void X(run_tiles)(void *arg, ptrdiff_t block, int thread)
{
    X(job) *job = arg;
    const X(model) *model = job->model;
    X(piece) *pieces = job->pieces + thread * job->tiles;
    real *x = job->memory + thread * job->per_thread, *work = x + job->tiles * model->d * job->rows;
    ptrdiff_t first = block * job->tiles * job->rows, count = 0;
    for (ptrdiff_t start = first; start < job->n && count < job->tiles; start += job->rows, count++) {
        X(piece) *p = pieces + count;
        ptrdiff_t n = PF_MIN(job->rows, job->n - start);
        memset(p, 0, sizeof *p);
        p->start = start;
        p->t = (X(tile)){.x = x + count * model->d * job->rows, .n = n, .ld = tile_whole(n)};
        p->t.label = job->label ? job->label + start : NULL;
        if (job->task == SAMPLE) {
            X(draw)(p, job);
        } else if (X(load)(p, job)) {
            atomic_store(&job->bad_row, start);
            return;
        }
    }
    if (job->task == SCORE) {
        for (X(piece) *p = pieces; p < pieces + count; p++)
            X(score_tile)(model, &p->t, p->log, work + X(model_work)(model, p->t.ld), work);
    } else if (job->task == INVERSE || job->task == SAMPLE) {
        for (ptrdiff_t l = model->n_layers - 1; l >= 0; l--)
            for (X(piece) *p = pieces; p < pieces + count; p++)
                model->layers[l]->ops->inverse(model->layers[l], &p->t, p->log, work);
    } else {
        for (ptrdiff_t l = 0; l < model->n_layers; l++)
            for (X(piece) *p = pieces; p < pieces + count; p++)
                model->layers[l]->ops->forward(model->layers[l], &p->t, p->log, work);
    }
    for (X(piece) *p = pieces; p < pieces + count; p++) X(finish)(p, job);
}

/* Why the tile that holds row `start` was refused. */
static pf_status X(explain)(const X(job) *job, ptrdiff_t start)
{
    ptrdiff_t d = job->model->d;
    const char *name = job->task == INVERSE ? "z" : "x";
    int refused = job->bounds && (job->task == FORWARD || job->task == SCORE); /* points outside the bounds */
    for (ptrdiff_t i = start; i < job->n; i++)
        for (ptrdiff_t j = 0; j < d; j++) {
            double v = job->in[i * d + j];
            if (!isfinite(v))
                return pf_fail(PF_BAD_ARGUMENT, "%s: row %td, column %td is %s", name, i, j,
                               isnan(v) ? "NaN" : "infinite");
            if (refused && (v < job->bounds[2 * j] || v > job->bounds[2 * j + 1]))
                return pf_fail(PF_BAD_ARGUMENT, "%s: row %td, column %td is %g, outside the bounds [%g, %g]", name, i,
                               j, v, job->bounds[2 * j], job->bounds[2 * j + 1]);
        }
    return pf_fail(PF_BAD_ARGUMENT, "%s: not finite, or outside the bounds", name);
}

static pf_status X(check_labels)(const X(model) *model, const int32_t *label, ptrdiff_t n)
{
    if (!model->classes) return label ? pf_fail(PF_BAD_ARGUMENT, "label: this model was fitted without labels") : PF_OK;
    if (!label) return pf_fail(PF_BAD_ARGUMENT, "label: this model was fitted with labels and needs one for every row");
    for (ptrdiff_t i = 0; i < n; i++)
        if (label[i] < 0 || label[i] >= model->classes)
            return pf_fail(PF_BAD_ARGUMENT, "label: %d of row %td is not between 0 and %d", label[i], i,
                           model->classes - 1);
    return PF_OK;
}

static pf_status X(run)(X(job) *job)
{
    const X(model) *model = job->model;
    ptrdiff_t d = model->d;
    if (job->n < 0) return pf_fail(PF_BAD_ARGUMENT, "n: %td is negative", job->n);
    PF_TRY(X(check_labels)(model, job->label, job->n));
    if (model->n_layers) job->bounds = X(layer_bounds)(model->layers[0]);
    job->rows = X(tile_rows)(d);
    if (job->task == SCORE) { /* all layers' inputs are kept: fewer rows, so that they stay within 16 MiB */
        ptrdiff_t fit = (16 << 20) / (ptrdiff_t)sizeof(real) / (d * PF_MAX(model->n_layers, 1)) / TILE_STEP * TILE_STEP;
        job->rows = PF_MIN(job->rows, PF_MAX(fit, TILE_STEP));
    }
    ptrdiff_t all = (job->n + job->rows - 1) / job->rows, tile = d * job->rows;
    job->tiles = job->task == SCORE ? 1 : PF_MAX(PF_MIN(256 * 1024 / (ptrdiff_t)sizeof(real) / tile, 16), 1);
    job->tiles = PF_MAX(PF_MIN(job->tiles, all / pf_max_threads(all)), 1);
    ptrdiff_t blocks = (all + job->tiles - 1) / job->tiles, threads = pf_max_threads(blocks);
    job->per_thread = job->tiles * tile + X(model_work)(model, job->rows);
    if (job->task == SCORE) job->per_thread += model->n_layers * tile;
    job->per_thread = (job->per_thread + 15) / 16 * 16;
    job->memory = PF_ALLOC(real, job->per_thread * threads);
    job->pieces = PF_ALLOC(X(piece), job->tiles * threads);
    atomic_init(&job->bad_row, -1);
    pf_status status = job->memory && job->pieces ? pf_parallel(blocks, X(run_tiles), job) : PF_NO_MEMORY;
    free(job->memory);
    free(job->pieces);
    ptrdiff_t bad = atomic_load(&job->bad_row);
    return !status && bad >= 0 ? X(explain)(job, bad) : status;
}

pf_status X(model_forward)(const X(model) *model, real *z, double *logj, const real *x, const int32_t *label,
                           ptrdiff_t n)
{
    pf_begin();
    X(job) job = {.model = model, .task = FORWARD, .in = x, .out = z, .log = logj, .label = label, .n = n};
    return pf_end(X(run)(&job));
}

pf_status X(model_inverse)(const X(model) *model, real *x, double *logj, const real *z, const int32_t *label,
                           ptrdiff_t n)
{
    pf_begin();
    X(job) job = {.model = model, .task = INVERSE, .in = z, .out = x, .log = logj, .label = label, .n = n};
    return pf_end(X(run)(&job));
}

pf_status X(model_logp)(const X(model) *model, double *logp, const real *x, const int32_t *label, ptrdiff_t n)
{
    pf_begin();
    X(job) job = {.model = model, .task = LOGP, .in = x, .log = logp, .label = label, .n = n};
    return pf_end(X(run)(&job));
}

pf_status X(model_score)(const X(model) *model, real *score, double *logp, const real *x, const int32_t *label,
                         ptrdiff_t n)
{
    pf_begin();
    X(job) job = {.model = model, .task = SCORE, .in = x, .out = score, .log = logp, .label = label, .n = n};
    return pf_end(X(run)(&job));
}

pf_status X(model_sample)(const X(model) *model, real *x, double *logp, const int32_t *label, uint64_t seed,
                          ptrdiff_t first, ptrdiff_t n)
{
    pf_begin();
    X(job) job = {
        .model = model, .task = SAMPLE, .out = x, .log = logp, .label = label, .n = n, .seed = seed, .first = first};
    return pf_end(X(run)(&job));
}

/* ---- files ------------------------------------------------------------------------------------------------ */

static pf_status X(write)(const X(model) *model, void **bytes, size_t *n)
{
    const char *note = X(model_note)(model);
    size_t room = strlen(note) + 256;
    char *json = PF_ALLOC(char, (ptrdiff_t)room);
    if (!json) return PF_NO_MEMORY;
    snprintf(json, room,
             "{\"format\": \"pyflow\", \"version\": %d, \"kind\": \"layers\", \"dtype\": \"float%d\", \"dim\": %td, "
             "\"classes\": %d, "
             "\"layers\": %td, \"note\": %s}",
             PF_FILE_VERSION, REAL_BITS, model->d, model->classes, model->n_layers, *note ? note : "null");
    pf_writer w = {0};
    pf_file_begin(&w, PF_KIND_LAYERS, REAL_BITS, json);
    free(json);
    pf_put_int(&w, model->d);
    pf_put_int(&w, model->classes);
    pf_put_int(&w, model->n_layers);
    for (ptrdiff_t i = 0; i < model->n_layers; i++) {
        int64_t kind = 0;
        while (X(layer_kinds)[kind] != model->layers[i]->ops) kind++;
        pf_put_int(&w, kind);
        pf_put(&w, model->history[i], sizeof model->history[i]);
        model->layers[i]->ops->write(model->layers[i], &w);
    }
    pf_put_int(&w, (int64_t)strlen(note));
    pf_put_array(&w, note, (ptrdiff_t)strlen(note), 1);
    pf_file_end(&w);
    if (w.status) free(w.bytes);
    *bytes = w.status ? NULL : w.bytes;
    *n = w.n;
    return w.status;
}

static pf_status X(read)(X(model) **model, const void *bytes, size_t n)
{
    pf_reader r;
    *model = NULL;
    PF_TRY(pf_file_open(&r, bytes, n, PF_KIND_LAYERS, REAL_BITS));
    ptrdiff_t kinds = 0;
    while (X(layer_kinds)[kinds]) kinds++;
    ptrdiff_t d = pf_get_int(&r, 1, 1 << 30), classes = pf_get_int(&r, 0, 1 << 30),
              n_layers = pf_get_int(&r, 0, 1 << 30);
    pf_status status = r.status ? r.status : X(model_new)(model, d, (int)classes);
    for (ptrdiff_t i = 0; i < n_layers && !status; i++) {
        double history[HISTORY];
        X(layer) *layer = NULL;
        int64_t kind = pf_get_int(&r, 0, kinds - 1);
        pf_get(&r, history, sizeof history);
        status = r.status ? r.status : X(layer_kinds)[kind]->read(&layer, &r, d, PF_MAX(classes, 1));
        if (!status) status = X(model_append)(*model, layer, history);
    }
    ptrdiff_t length = status ? 0 : pf_get_int(&r, 0, 1 << 30);
    char *note = status ? NULL : pf_get_array(&r, length, 1);
    if (!status) status = pf_file_close(&r);
    if (!status && length) {
        (*model)->note = PF_CALLOC(char, length + 1);
        if ((*model)->note) memcpy((*model)->note, note, (size_t)length);
        else status = PF_NO_MEMORY;
    }
    free(note);
    if (status) {
        X(model_free)(*model);
        *model = NULL;
    }
    return status;
}

pf_status X(model_write)(const X(model) *model, void **bytes, size_t *n)
{
    pf_begin();
    return pf_end(X(write)(model, bytes, n));
}

pf_status X(model_read)(X(model) **model, const void *bytes, size_t n)
{
    pf_begin();
    return pf_end(X(read)(model, bytes, n));
}

pf_status X(model_save)(const X(model) *model, const char *path)
{
    void *bytes;
    size_t n;
    pf_begin();
    pf_status status = X(write)(model, &bytes, &n);
    if (!status) {
        status = pf_file_write(path, bytes, n);
        free(bytes);
    }
    return pf_end(status);
}

pf_status X(model_load)(X(model) **model, const char *path)
{
    unsigned char *bytes;
    size_t n;
    pf_begin();
    *model = NULL;
    pf_status status = pf_file_read(&bytes, &n, path);
    if (!status) {
        status = X(read)(model, bytes, n);
        free(bytes);
    }
    return pf_end(status);
}
#endif
