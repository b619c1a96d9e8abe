/* Densities, latents, samples and scores of many points: one job, many tiles. */
#ifndef real
#include "flow.h"

enum {
    BLOCK_BYTES = 1 << 18,  /* of the tiles that go through a layer together: its tables serve them while in cache */
    PATCH_BYTES = 1 << 25,  /* the same where there are patches, of which one at a time is in cache */
    SCORE_BYTES = 16 << 20, /* of what is kept for the way back */
};

#define TWICE "evaluate.c"
#include "twice.h"
#else

/* A tile and what is known of its points. */
typedef struct {
    X(tile) t;
    ptrdiff_t start; /* its first point */
    double log[TILE_MOST], log_normal[TILE_MOST];
    uint64_t stream[TILE_MOST];
    char outside[TILE_MOST]; /* the bounds */
    const real *context[TILE_MOST];
} X(piece);

enum { X(MOST_TILES) = 16 };

typedef struct {
    const X(flow) *flow;
    pf_question task;
    real *out;            /* [n][d] or NULL */
    double *log, *gy;     /* [n] or NULL: logj or log p; in PF_LOGP_AT [n][m]. [n][n_y] */
    const real *in;       /* [n][d] */
    const double *y;      /* [n][n_y], in PF_LOGP_AT [m][n_y], or NULL */
    const int32_t *label; /* [n] or NULL */
    const real *context;  /* [n][d] or NULL */
    ptrdiff_t n, m;
    uint64_t seed; /* of a sample, or of what is not observed */
    ptrdiff_t first;
    const double *bounds;          /* [d][2] or NULL */
    const unsigned char *observed; /* [d] or NULL: all pixels are */
    int looks;                     /* whether layers look at the conditions themselves */
    int drawn;                     /* whether there is something that is not observed, pixels or modes */
    uint64_t draw;                 /* number of the draw of it */
    ptrdiff_t rows, tiles;         /* of a tile; in a block */
    X(workers) workers;
    X(piece) *pieces;       /* [threads][tiles] */
    double *theta, *gtheta; /* [points of a step][n_row] */
    double *gy_direct;      /* [points of a step][n_y] what of the gradient does not come through theta */
    ptrdiff_t begin, end;   /* the points, or conditions, that theta is of */
    atomic_ptrdiff_t bad;   /* the first point of the first tile that was refused */
} X(job);

/* Points outside the bounds are moved onto them; returns whether there were any, and says which if asked. */
static int X(clamp)(X(tile) *t, const double *bounds, char *outside)
{
    int any = 0;
    ptrdiff_t along = t->layout == ROWS ? 1 : t->ld, across = t->layout == ROWS ? t->ld : 1;
    for (ptrdiff_t j = 0; j < t->d; j++) {
        real lo = (real)bounds[2 * j], hi = (real)bounds[2 * j + 1]; /* those that the data can tell apart */
        for (ptrdiff_t i = 0; i < t->n; i++) {
            real *x = t->x + j * along + i * across;
            if (*x >= lo && *x <= hi) continue;
            *x = *x < lo ? lo : hi;
            outside[i] = 1;
            any = 1;
        }
    }
    return any;
}

static void X(refuse)(X(job) *job, ptrdiff_t start)
{
    ptrdiff_t seen = atomic_load(&job->bad);
    while ((seen < 0 || start < seen) && !atomic_compare_exchange_weak(&job->bad, &seen, start)) continue;
}

/* Whether the pixels of x[n][d] that matter are finite */
static int X(known_finite)(const real *x, const unsigned char *observed, ptrdiff_t n, ptrdiff_t d)
{
    if (!observed) return X(all_finite)(x, n * d);
    for (ptrdiff_t i = 0; i < n * d; i++)
        if (!isfinite(x[i]) && observed[i % d]) return 0;
    return 1;
}

/* The piece's points, from the data or drawn; whether they can go on. */
static int X(load)(X(piece) *p, X(job) *job)
{
    if (job->context && !X(all_finite)(p->context[0], p->t.n * p->t.d)) return 0;
    if (job->task == PF_SAMPLE) {
        X(tile_normals)(&p->t, job->seed, (uint64_t)(job->first + p->start));
        X(tile_logp)(p->log_normal, &p->t);
        return 1;
    }
    const real *x = job->in + p->start * p->t.d;
    const unsigned char *observed = job->task == PF_INVERSE ? NULL : job->observed;
    if (!X(tile_load)(&p->t, x) && !(observed && X(known_finite)(x, observed, p->t.n, p->t.d))) return 0;
    if (!job->bounds || job->task == PF_INVERSE) return 1;
    return !X(clamp)(&p->t, job->bounds, p->outside) || job->task == PF_LOGP || job->task == PF_LOGP_AT;
}

/* Where log p overflows it is that of no density; what overflows otherwise is refused. */
static void X(finish)(X(piece) *p, X(job) *job)
{
    ptrdiff_t n = p->t.n;
    if (job->task == PF_SAMPLE)
        for (ptrdiff_t i = 0; i < n; i++) p->log[i] = p->log_normal[i] - p->log[i];
    if (job->task == PF_LOGP || job->task == PF_LOGP_AT)
        for (ptrdiff_t i = 0; i < n; i++) p->log[i] = p->outside[i] ? -INFINITY : p->log[i] + p->log_normal[i];
    if (job->task == PF_SCORE || job->task == PF_SCORE_PARAMETERS)
        for (ptrdiff_t i = 0; i < n; i++) p->log[i] += p->log_normal[i];
    for (ptrdiff_t i = 0; i < n; i++)
        if (isnan(p->log[i])) p->log[i] = -INFINITY;
    if (job->log && job->task != PF_LOGP_AT) memcpy(job->log + p->start, p->log, (size_t)n * sizeof *p->log);
    if (job->out) X(tile_store)(job->out + p->start * p->t.d, &p->t);
    ptrdiff_t d = p->t.d;
    const unsigned char *observed = job->task == PF_INVERSE ? job->observed : NULL;
    if (!job->out || job->task == PF_SAMPLE || X(known_finite)(job->out + p->start * d, observed, n, d)) return;
    for (ptrdiff_t i = 0; i < n; i++)
        if (!X(known_finite)(job->out + (p->start + i) * d, observed, 1, d)) X(refuse)(job, p->start + i);
}

/* d log N(z) / dz = -z, back through the layers */
static void X(score_piece)(X(piece) *p, X(job) *job, X(worker) *worker)
{
    double ones[TILE_MOST];
    ptrdiff_t size = p->t.layout == ROWS ? p->t.n * p->t.ld : p->t.d * p->t.ld;
    for (ptrdiff_t i = 0; i < p->t.n; i++) ones[i] = 1;
    X(scale_shift)(p->t.x, p->t.x, -1, 0, size);
    int parameters = job->task == PF_SCORE_PARAMETERS;
    double *rows = parameters ? job->gtheta + (p->start - job->begin) * job->flow->net->n_row : NULL;
    if (parameters && job->looks) p->t.gy = job->gy_direct + (p->start - job->begin) * p->t.n_y;
    X(flow_vjp_tile)(&job->workers, worker, &p->t, NULL, rows, ones, !parameters || job->looks);
}

/* Pieces first .. first + count - 1 of the thread's, loaded, through the flow */
static void X(run_pieces)(X(job) *job, X(worker) *worker, X(piece) *pieces, ptrdiff_t count)
{
    X(tile) *t[X(MOST_TILES)];
    double *log[X(MOST_TILES)];
    int back = job->task == PF_INVERSE || job->task == PF_SAMPLE;
    for (ptrdiff_t i = 0; i < count; i++) t[i] = &pieces[i].t, log[i] = pieces[i].log;
    if (!count) return;
    if (back) X(flow_inverse_tiles)(&job->workers, worker, t, log, count);
    else X(flow_forward_tiles)(&job->workers, worker, t, log, count);
    for (X(piece) *p = pieces; p < pieces + count && !back && job->task != PF_FORWARD; p++) {
        X(tile_logp)(p->log_normal, &p->t);
        if (job->task == PF_SCORE || job->task == PF_SCORE_PARAMETERS) X(score_piece)(p, job, worker);
    }
}

/* What is not observed is drawn alike for all points, so that a density does not depend on others; where points share
 * their conditions, as in a posterior, each has draws of its own, whose errors do not add up. */
static uint64_t X(random)(const X(job) *job, ptrdiff_t i)
{
    if (job->task == PF_SAMPLE || job->task == PF_INVERSE) return (uint64_t)(job->first + i);
    return job->task == PF_LOGP_AT ? (uint64_t)i << 32 | job->draw : job->draw;
}

static X(piece) *X(new_piece)(X(job) *job, X(worker) *worker, X(piece) *p, ptrdiff_t i, ptrdiff_t start, ptrdiff_t n)
{
    memset(p, 0, sizeof *p);
    p->start = start;
    p->t = X(worker_tile)(&job->workers, worker, i, n,
                          X(flow_layout)(job->flow, job->task == PF_INVERSE || job->task == PF_SAMPLE));
    p->t.label = job->label ? job->label + start : NULL;
    for (ptrdiff_t j = 0; j < n && job->context; j++) p->context[j] = job->context + (start + j) * p->t.d;
    if (job->context) p->t.context = p->context;
    for (ptrdiff_t j = 0; j < n && job->drawn; j++) p->stream[j] = X(random)(job, start + j);
    p->t.seed = job->seed;
    p->t.stream = p->stream;
    p->t.n_y = job->flow->net ? job->flow->net->n_y : 0;
    if (job->y && job->task != PF_LOGP_AT) p->t.y = job->y + start * p->t.n_y;
    return p;
}

static void X(run_block)(void *arg, ptrdiff_t block, int thread)
{
    X(job) *job = arg;
    X(worker) *worker = job->workers.workers + thread;
    X(piece) *pieces = job->pieces + thread * job->tiles;
    ptrdiff_t first = job->begin + block * job->tiles * job->rows, count = 0;
    for (ptrdiff_t at = first; at < job->end && count < job->tiles; at += job->rows, count++)
        if (!X(load)(X(new_piece)(job, worker, pieces + count, count, at, PF_MIN(job->rows, job->end - at)), job)) {
            X(refuse)(job, at);
            return;
        }
    if (job->flow->net)
        X(worker_prepare)(&job->workers, worker, job->theta + (first - job->begin) * job->flow->net->n_row,
                          pieces->t.n);
    X(run_pieces)(job, worker, pieces, count);
    for (X(piece) *p = pieces; p < pieces + count; p++) X(finish)(p, job);
}

/* One condition, all points: log[n][m]. Every point has the same tables, so tiles are of one point. */
static void X(run_condition)(void *arg, ptrdiff_t block, int thread)
{
    X(job) *job = arg;
    X(worker) *worker = job->workers.workers + thread;
    X(piece) *p = job->pieces + thread;
    X(worker_prepare)(&job->workers, worker, job->theta + block * job->flow->net->n_row, 1);
    for (ptrdiff_t i = 0; i < job->n; i++) {
        X(new_piece)(job, worker, p, 0, i, 1);
        p->t.y = job->y + (job->begin + block) * p->t.n_y;
        if (!X(load)(p, job)) {
            X(refuse)(job, i);
            return;
        }
        X(run_pieces)(job, worker, p, 1);
        X(finish)(p, job);
        job->log[i * job->m + job->begin + block] = p->log[0];
    }
}

/* ---- arguments -------------------------------------------------------------------------------------------- */

/* Why the tile that begins with point `start` was refused. */
static pf_status X(explain)(const X(job) *job, ptrdiff_t start)
{
    ptrdiff_t d = job->flow->space.d;
    int table = job->flow->space.ndim == 1, refused = job->bounds && job->task != PF_INVERSE;
    const char *name = job->task == PF_INVERSE ? "z" : "x";
    for (ptrdiff_t i = start; i < job->n && job->context; i++)
        if (!X(all_finite)(job->context + i * d, d))
            return pf_fail(PF_BAD_ARGUMENT, "condition_field: field %td has pixels that are NaN or infinite", i);
    for (ptrdiff_t i = start; i < job->n && job->in; i++)
        for (ptrdiff_t j = 0; j < d; j++) {
            double v = job->in[i * d + j];
            const char *what = isnan(v) ? "NaN" : "infinite";
            if (job->observed && job->task != PF_INVERSE && !job->observed[j]) continue;
            if (!isfinite(v) && table)
                return pf_fail(PF_BAD_ARGUMENT, "%s: row %td, column %td is %s", name, i, j, what);
            if (!isfinite(v)) return pf_fail(PF_BAD_ARGUMENT, "%s: field %td, pixel %td is %s", name, i, j, what);
            if (refused && (v < (real)job->bounds[2 * j] || v > (real)job->bounds[2 * j + 1]))
                return pf_fail(PF_BAD_ARGUMENT, "%s: row %td, column %td is %g, outside the bounds [%g, %g]", name, i,
                               j, v, job->bounds[2 * j], job->bounds[2 * j + 1]);
        }
    return pf_fail(PF_BAD_ARGUMENT, "%s: %s %td is too far out for this precision", name, table ? "row" : "field",
                   start);
}

static pf_status X(check)(const X(job) *job)
{
    const X(flow) *f = job->flow;
    ptrdiff_t n_y = f->net ? f->net->n_y : 0, rows = job->task == PF_LOGP_AT ? job->m : job->n;
    if (job->n < 0 || job->m < 0) return pf_fail(PF_BAD_ARGUMENT, "n: %td is negative", PF_MIN(job->n, job->m));
    if (n_y && !job->y)
        return pf_fail(PF_BAD_ARGUMENT, "y: this flow is conditional and needs %td numbers for every point", n_y);
    if (!n_y && (job->y || job->task == PF_LOGP_AT || job->task == PF_SCORE_PARAMETERS))
        return pf_fail(PF_BAD_ARGUMENT, "y: this flow was fitted without");
    for (ptrdiff_t i = 0; i < rows * n_y; i++)
        if (!isfinite(job->y[i]))
            return pf_fail(PF_BAD_ARGUMENT, "y: row %td, column %td is not finite", i / n_y, i % n_y);
    if (!X(flow_context)(f) != !job->context)
        return pf_fail(PF_BAD_ARGUMENT, job->context ? "condition_field: this flow was fitted without"
                                                     : "condition_field: this flow needs one for every point");
    if (!f->classes && job->label) return pf_fail(PF_BAD_ARGUMENT, "label: this flow was fitted without labels");
    if (f->classes && !job->label)
        return pf_fail(PF_BAD_ARGUMENT, "label: this flow was fitted with labels and needs one for every point");
    for (ptrdiff_t i = 0; i < job->n && f->classes; i++)
        if (job->label[i] < 0 || job->label[i] >= f->classes)
            return pf_fail(PF_BAD_ARGUMENT, "label: %d of row %td is not between 0 and %d", job->label[i], i,
                           f->classes - 1);
    return PF_OK;
}

/* ---- the job ---------------------------------------------------------------------------------------------- */

/* How many points make a tile, and tiles a block */
static void X(plan)(X(job) *job)
{
    const X(flow) *f = job->flow;
    ptrdiff_t d = f->space.d, keep = 0;
    int score = job->task == PF_SCORE || job->task == PF_SCORE_PARAMETERS; /* a tile at a time is kept */
    job->rows = job->task == PF_LOGP_AT ? 1 : X(flow_tile_rows)(f);
    if (score && job->rows > TILE_STEP) {
        for (ptrdiff_t l = 0; l < f->n_layers; l++)
            keep += f->layers[l]->ops->sizes(f->layers[l], TILE_STEP, TILE_STEP, 1).keep / TILE_STEP;
        ptrdiff_t fit = SCORE_BYTES / (ptrdiff_t)sizeof(real) / PF_MAX(keep, 1) / TILE_STEP * TILE_STEP;
        job->rows = PF_MIN(job->rows, PF_MAX(fit, TILE_STEP));
    }
    ptrdiff_t n = PF_MAX(job->n, 1);
    job->rows = PF_MIN(job->rows, tile_whole(n));
    ptrdiff_t all = (n + job->rows - 1) / job->rows, bytes = d * job->rows * (ptrdiff_t)sizeof(real);
    int single = X(serves)(f) || score || job->rows <= TILE_STEP, patches = 0;
    for (ptrdiff_t l = 0; l < f->n_layers; l++) patches |= X(patch_count)(f->layers[l]) > 1;
    job->tiles = single ? 1 : PF_MAX(PF_MIN((patches ? PATCH_BYTES : BLOCK_BYTES) / bytes, X(MOST_TILES)), 1);
    /* so that all threads have as many blocks */
    ptrdiff_t threads = pf_max_threads(all), rounds = (all + job->tiles * threads - 1) / (job->tiles * threads);
    job->tiles = (all + rounds * threads - 1) / (rounds * threads);
}

/* Blocks of conditions (in PF_LOGP_AT) or of points, each with its parameters; all at once without conditions. */
static pf_status X(run_all)(X(job) *job)
{
    const X(flow) *f = job->flow;
    int at = job->task == PF_LOGP_AT;
    ptrdiff_t all = at ? job->m : job->n, step = X(serves)(f) ? NET_ROWS : PF_MAX(all, 1),
              n_y = f->net ? f->net->n_y : 0;
    ptrdiff_t most = at ? PF_MIN(all, step)
                        : (PF_MIN(all, step) + job->rows * job->tiles - 1) / (job->rows * job->tiles);
    int large = f->space.d >= LARGE, threads = large ? 1 : pf_max_threads(most);
    int keep = job->task == PF_SCORE || job->task == PF_SCORE_PARAMETERS;
    real *memory = f->net ? PF_ALLOC(real, X(conditioner_memory)(f->net)) : NULL;
    job->pieces = PF_ALLOC(X(piece), job->tiles * threads);
    if (f->net) {
        ptrdiff_t rows = PF_MIN(all, step), gradients = job->task == PF_SCORE_PARAMETERS ? rows : 0;
        job->theta = PF_ALLOC(double, rows * f->net->n_row);
        job->gtheta = PF_CALLOC(double, gradients * f->net->n_row);
        job->gy_direct = PF_CALLOC(double, gradients *n_y);
    }
    pf_status status = job->pieces && (!f->net || (memory && job->theta && job->gtheta && job->gy_direct))
                           ? PF_OK
                           : PF_NO_MEMORY;
    if (!status) status = X(workers_new)(&job->workers, f, job->rows, job->tiles, keep, threads);
    for (job->begin = 0; job->begin < all && !status && atomic_load(&job->bad) < 0; job->begin = job->end) {
        job->end = PF_MIN(job->begin + step, all);
        ptrdiff_t count = job->end - job->begin, per_block = job->rows * job->tiles;
        if (f->net)
            status = X(conditioner_rows)(f->net, job->theta, memory, f->theta, f->at, f->layers,
                                         job->y + job->begin * n_y, count);
        if (job->task == PF_SCORE_PARAMETERS) memset(job->gtheta, 0, (size_t)(count * f->net->n_row) * sizeof(double));
        if (job->task == PF_SCORE_PARAMETERS) memset(job->gy_direct, 0, (size_t)(count * n_y) * sizeof(double));
        ptrdiff_t blocks = at ? count : (count + per_block - 1) / per_block;
        void (*body)(void *, ptrdiff_t, int) = at ? X(run_condition) : X(run_block);
        for (ptrdiff_t b = 0; b < blocks && large && !status; b++) {
            body(job, b, 0);
            status = pf_check_interrupt();
        }
        if (!status && !large) status = pf_parallel(blocks, body, job);
        if (!status && job->task == PF_SCORE_PARAMETERS)
            status = X(conditioner_vjp)(f->net, job->gy + job->begin * n_y, NULL, job->gtheta, memory, f->layers,
                                        count);
        for (ptrdiff_t i = 0; i < count * n_y && !status && job->task == PF_SCORE_PARAMETERS; i++)
            job->gy[job->begin * n_y + i] += job->gy_direct[i];
    }
    X(workers_clear)(&job->workers);
    free(memory);
    free(job->pieces);
    free(job->theta);
    free(job->gtheta);
    free(job->gy_direct);
    return status;
}

static int X(drawn)(const X(flow) *f) { return f->n_layers && X(layer_draws)(f->layers[0]); }

static pf_status X(run)(X(job) *job)
{
    PF_TRY(X(check)(job));
    if (job->flow->n_layers) job->bounds = X(layer_bounds)(job->flow->layers[0]);
    job->observed = X(flow_mask)(job->flow);
    job->looks = job->drawn = X(drawn)(job->flow);
    for (ptrdiff_t l = 0; l < job->flow->n_layers; l++) job->looks |= X(layer_conditions)(job->flow->layers[l]) > 0;
    atomic_init(&job->bad, -1);
    X(plan)(job);
    pf_status status = X(run_all)(job);
    ptrdiff_t bad = atomic_load(&job->bad);
    return !status && bad >= 0 ? X(explain)(job, bad) : status;
}

/* log of the mean of p over draws of what is not observed, one draw of all points after another: from the second on, in
 * units of the largest so far. */
static pf_status X(run_draws)(X(job) *job, ptrdiff_t draws)
{
    ptrdiff_t values = job->task == PF_LOGP_AT ? job->n * job->m : job->n;
    double *mean = job->log;
    if (draws < 0) return pf_fail(PF_BAD_ARGUMENT, "draws: must not be negative, but is %td", draws);
    if (draws <= 1 || !X(drawn)(job->flow)) return X(run)(job);
    double *one = job->log = PF_ALLOC(double, PF_MAX(values, 0));
    pf_status status = one ? PF_OK : PF_NO_MEMORY;
    for (job->draw = 0; job->draw < (uint64_t)draws && !status; job->draw++) {
        status = X(run)(job);
        for (ptrdiff_t i = 0; i < values && !status; i++) {
            double most = job->draw ? PF_MAX(mean[i], one[i]) : one[i];
            if (!job->draw || most == -INFINITY) mean[i] = most;
            else mean[i] = most + log(exp(mean[i] - most) + exp(one[i] - most));
        }
    }
    for (ptrdiff_t i = 0; i < values && !status; i++) mean[i] -= log((double)draws);
    free(one);
    return status;
}

/* ---- the public functions --------------------------------------------------------------------------------- */

pf_status X(flow_answer)(const X(flow) *f, const X(request) *r)
{
    pf_begin();
    X(job) job = {.flow = f, .task = r->question, .out = r->out, .log = r->log, .gy = r->score_parameters};
    job.in = r->in;
    job.y = r->y;
    job.label = r->label;
    job.context = r->context;
    job.n = r->n;
    job.m = r->m;
    job.seed = r->seed;
    job.first = r->first;
    int draws = job.task == PF_LOGP || job.task == PF_LOGP_AT;
    return pf_end(draws ? X(run_draws)(&job, r->draws) : X(run)(&job));
}

pf_status X(flow_forward)(const X(flow) *f, real *z, double *logj, const real *x, const double *y, const int32_t *label,
                          ptrdiff_t n)
{
    return X(flow_answer)(f, &(X(request)){PF_FORWARD, .out = z, .log = logj, .in = x, .y = y, .label = label, .n = n});
}

pf_status X(flow_inverse)(const X(flow) *f, real *x, double *logj, const real *z, const double *y, const int32_t *label,
                          ptrdiff_t n)
{
    return X(flow_answer)(f, &(X(request)){PF_INVERSE, .out = x, .log = logj, .in = z, .y = y, .label = label, .n = n});
}

pf_status X(flow_logp)(const X(flow) *f, double *logp, const real *x, const double *y, const int32_t *label,
                       ptrdiff_t n)
{
    return X(flow_answer)(f, &(X(request)){PF_LOGP, .log = logp, .in = x, .y = y, .label = label, .n = n});
}

pf_status X(flow_logp_at)(const X(flow) *f, double *logp, const real *x, const double *y, ptrdiff_t n, ptrdiff_t m)
{
    return X(flow_answer)(f, &(X(request)){PF_LOGP_AT, .log = logp, .in = x, .y = y, .n = n, .m = m});
}

pf_status X(flow_score)(const X(flow) *f, real *score, double *logp, const real *x, const double *y,
                        const int32_t *label, ptrdiff_t n)
{
    return X(flow_answer)(f,
                          &(X(request)){PF_SCORE, .out = score, .log = logp, .in = x, .y = y, .label = label, .n = n});
}

pf_status X(flow_score_parameters)(const X(flow) *f, double *score, double *logp, const real *x, const double *y,
                                   ptrdiff_t n)
{
    return X(flow_answer)(
        f, &(X(request)){PF_SCORE_PARAMETERS, .score_parameters = score, .log = logp, .in = x, .y = y, .n = n});
}

pf_status X(flow_sample)(const X(flow) *f, real *x, double *logp, const double *y, const int32_t *label, uint64_t seed,
                         ptrdiff_t first, ptrdiff_t n)
{
    X(request) r = {PF_SAMPLE, .out = x, .log = logp, .y = y, .label = label, .n = n, .seed = seed, .first = first};
    return X(flow_answer)(f, &r);
}
#endif
