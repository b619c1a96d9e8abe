/* The symmetric flow (Dai & Seljak 2022, arXiv 2202.05282): see symflow.h. */
#ifndef real
#include <stdio.h>

#include "cspline.h"
#include "file.h"
#include "symflow.h"

typedef enum { FORWARD, INVERSE, LOGP, SCORE, SCORE_Y, SAMPLE } task;

enum { NUMBERS = 5 }; /* in a file: mean, scale, temperature, noise */

static ptrdiff_t round_up(ptrdiff_t n) { return (n + 15) / 16 * 16; }

#define TWICE "symflow.c"
#include "twice.h"
#else

/* ---- making ----------------------------------------------------------------------------------------------- */

static pf_status X(make_taps)(X(symflow) *f)
{
    double sigma = SMOOTH * (double)f->filter_knots, sum = 0;
    f->reach = (ptrdiff_t)(3 * sigma);
    f->taps = PF_ALLOC(real, f->reach + 1);
    if (!f->taps) return PF_NO_MEMORY;
    for (ptrdiff_t t = -f->reach; t <= f->reach; t++) sum += exp(-0.5 * (double)(t * t) / (sigma * sigma));
    for (ptrdiff_t t = 0; t <= f->reach; t++) f->taps[t] = (real)(exp(-0.5 * (double)(t * t) / (sigma * sigma)) / sum);
    return PF_OK;
}

pf_status X(symflow_new)(X(symflow) **flow, int ndim, const ptrdiff_t *n, const double *box, ptrdiff_t layers,
                         ptrdiff_t psi_knots, ptrdiff_t filter_knots, ptrdiff_t n_y)
{
    *flow = NULL;
    if (layers < 1 || layers > 1000) return pf_fail(PF_BAD_ARGUMENT, "n_layers is 1 to 1000, not %td", layers);
    if (psi_knots < 2 || psi_knots > PSI_MOST)
        return pf_fail(PF_BAD_ARGUMENT, "psi_knots is 2 to %d, not %td", PSI_MOST, psi_knots);
    if (filter_knots < 2 || filter_knots > 4096)
        return pf_fail(PF_BAD_ARGUMENT, "filter_knots is 2 to 4096, not %td", filter_knots);
    if (n_y < 0 || n_y > 4096) return pf_fail(PF_BAD_ARGUMENT, "0 to 4096 conditioning variables, not %td", n_y);
    X(symflow) *f = PF_CALLOC(X(symflow), 1);
    if (!f) return PF_NO_MEMORY;
    f->layers = layers;
    f->psi_knots = psi_knots;
    f->filter_knots = filter_knots;
    f->n_theta = layers * (3 * psi_knots + 2 * filter_knots);
    f->n_y = n_y;
    f->scale = f->temperature = 1;
    pf_status status = X(filter_new)(&f->filter, ndim, n, box);
    if (!status) {
        ptrdiff_t shells = f->filter->shells;
        f->pixels = f->filter->fft->pixels;
        f->k = PF_ALLOC(double, shells);
        f->theta = PF_CALLOC(double, f->n_theta);
        f->y_stats = PF_CALLOC(double, 4 * n_y);
        if (!f->k || !f->theta || !f->y_stats) status = PF_NO_MEMORY;
        else status = X(make_taps)(f);
        for (ptrdiff_t s = 0; s < shells && !status; s++)
            f->k[s] = shells > 1 ? f->filter->k[s] / f->filter->k[shells - 1] : 0;
    }
    if (status) {
        X(symflow_free)(f);
        return status;
    }
    *flow = f;
    return PF_OK;
}

void X(symflow_free)(X(symflow) *f)
{
    if (!f) return;
    X(filter_free)(f->filter);
    X(mlp_free)(f->net);
    free(f->k);
    free(f->theta);
    free(f->y_stats);
    free(f->taps);
    free(f->noise_t);
    free(f->history);
    free(f->note);
    free(f->state);
    free(f);
}

pf_status X(symflow_duplicate)(X(symflow) **copy, const X(symflow) *f)
{
    const X(fft) *fft = f->filter->fft;
    PF_TRY(X(symflow_new)(copy, fft->ndim, fft->n, f->filter->box, f->layers, f->psi_knots, f->filter_knots, f->n_y));
    X(symflow) *c = *copy;
    c->mean = f->mean;
    c->scale = f->scale;
    c->temperature = f->temperature;
    memcpy(c->noise, f->noise, sizeof c->noise);
    c->noise_condition = f->noise_condition;
    c->epochs = f->epochs;
    memcpy(c->theta, f->theta, (size_t)f->n_theta * sizeof(double));
    memcpy(c->y_stats, f->y_stats, (size_t)(4 * f->n_y) * sizeof(double));
    c->history = PF_ALLOC(double, f->epochs *SYM_HISTORY);
    pf_status status = c->history ? PF_OK : PF_NO_MEMORY;
    if (!status && f->epochs) memcpy(c->history, f->history, (size_t)(f->epochs * SYM_HISTORY) * sizeof(double));
    if (!status && f->note) status = X(symflow_set_note)(c, f->note);
    if (!status && f->noise_t) {
        c->noise_t = PF_ALLOC(real, f->filter->shells);
        if (c->noise_t) memcpy(c->noise_t, f->noise_t, (size_t)f->filter->shells * sizeof(real));
        else status = PF_NO_MEMORY;
    }
    if (!status && f->net) {
        status = X(mlp_new)(&c->net, f->net->size[0], f->net->size + 1, f->net->layers - 1, f->n_theta);
        if (!status) memcpy(c->net->w, f->net->w, (size_t)f->net->n_w * sizeof(real));
    }
    if (!status) return PF_OK;
    X(symflow_free)(c);
    *copy = NULL;
    return status;
}

pf_status X(symflow_copy)(X(symflow) **copy, const X(symflow) *flow)
{
    pf_begin();
    return pf_end(X(symflow_duplicate)(copy, flow));
}

int X(symflow_ndim)(const X(symflow) *f) { return f->filter->fft->ndim; }
const ptrdiff_t *X(symflow_mesh)(const X(symflow) *f) { return f->filter->fft->n; }
const double *X(symflow_box)(const X(symflow) *f) { return f->filter->box; }
ptrdiff_t X(symflow_conditions)(const X(symflow) *f) { return f->n_y; }
const double *X(symflow_range)(const X(symflow) *f) { return f->y_stats + 2 * f->n_y; }
ptrdiff_t X(symflow_layers)(const X(symflow) *f) { return f->layers; }
ptrdiff_t X(symflow_parameters)(const X(symflow) *f) { return f->n_theta + (f->net ? f->net->n_w : 0); }
int X(symflow_noise_condition)(const X(symflow) *f) { return f->noise_condition; }
int X(symflow_unfinished)(const X(symflow) *f) { return f->n_state > 0; }
double X(symflow_temperature)(const X(symflow) *f) { return f->temperature; }
const char *X(symflow_note)(const X(symflow) *f) { return f->note ? f->note : ""; }

const double *X(symflow_history)(const X(symflow) *f, ptrdiff_t *epochs)
{
    *epochs = f->epochs;
    return f->history;
}

pf_status X(symflow_set_note)(X(symflow) *f, const char *json)
{
    char *note = PF_ALLOC(char, (ptrdiff_t)strlen(json) + 1);
    if (!note) return PF_NO_MEMORY;
    strcpy(note, json);
    free(f->note);
    f->note = note;
    return PF_OK;
}

/* ---- one field -------------------------------------------------------------------------------------------- */

void X(symwork_free)(X(symwork) *works, int count)
{
    for (int i = 0; works && i < count; i++) {
        free(works[i].psi);
        free(works[i].t);
        free(works[i].x);
        free(works[i].u);
        free(works[i].spectra);
        free(works[i].work);
        free(works[i].shell);
        free(works[i].knots);
    }
    free(works);
}

pf_status X(symwork_new)(X(symwork) **works, const X(symflow) *f, int keep, int count)
{
    *works = PF_CALLOC(X(symwork), count);
    if (!*works) return PF_NO_MEMORY;
    for (int i = 0; i < count; i++) {
        X(symwork) *w = *works + i;
        ptrdiff_t kept = keep ? f->layers : 1;
        w->keep = keep;
        w->padded = round_up(f->pixels);
        w->shells = round_up(f->filter->shells);
        w->psi = PF_ALLOC(X(psi), f->layers);
        w->t = PF_ALLOC(real, f->layers * w->shells);
        w->x = PF_ALLOC(real, w->padded);
        w->u = PF_ALLOC(real, kept * w->padded);
        w->spectra = PF_ALLOC(real, kept * f->filter->fft->spectrum);
        w->work = PF_ALLOC(real, f->filter->work);
        w->shell = PF_ALLOC(double, 2 * w->shells);
        w->knots = PF_ALLOC(double, (f->layers + 1) * 2 * f->filter_knots);
        if (!w->psi || !w->t || !w->x || !w->u || !w->spectra || !w->work || !w->shell || !w->knots) {
            X(symwork_free)(*works, count);
            *works = NULL;
            return PF_NO_MEMORY;
        }
    }
    return PF_OK;
}

void X(sym_prepare)(X(symwork) *w, const X(symflow) *f, const double *theta)
{
    ptrdiff_t m = f->filter_knots, shells = f->filter->shells;
    double *log_t = w->shell, *t = w->shell + w->shells;
    w->log_det = 0;
    for (ptrdiff_t l = 0; l < f->layers; l++) {
        double *position = w->knots + l * 2 * m, *value = position + m;
        X(psi_make)(w->psi + l, theta, f->psi_knots);
        theta += 3 * f->psi_knots;
        pf_increasing(position, theta, m);
        memcpy(value, theta + m, (size_t)m * sizeof(double));
        theta += 2 * m;
        pf_cspline(log_t, f->k, position, value, m, shells);
        for (ptrdiff_t s = 0; s < shells; s++) w->log_det += f->filter->modes[s] * log_t[s];
        pf_exp(t, log_t, shells);
        for (ptrdiff_t s = 0; s < shells; s++) w->t[l * w->shells + s] = (real)t[s];
    }
}

double X(sym_forward)(X(symwork) *w, const X(symflow) *f)
{
    double log_det = w->log_det;
    for (ptrdiff_t l = 0; l < f->layers; l++) {
        real *u = w->u + (w->keep ? l * w->padded : 0),
             *spectrum = w->spectra + (w->keep ? l * f->filter->fft->spectrum : 0);
        X(filter_apply)(f->filter, u, spectrum, w->x, w->t + l * w->shells, w->work);
        log_det += X(psi_forward)(w->x, u, w->psi + l, f->pixels);
    }
    return log_det;
}

double X(sym_inverse)(X(symwork) *w, const X(symflow) *f)
{
    double log_det = -w->log_det;
    real *inverse = w->u; /* 1 / T, at least as long as the shells: a mesh has no more of them than pixels */
    for (ptrdiff_t l = f->layers - 1; l >= 0; l--) {
        log_det -= X(psi_inverse)(w->x, w->x, w->psi + l, f->pixels);
        for (ptrdiff_t s = 0; s < f->filter->shells; s++) inverse[s] = 1 / w->t[l * w->shells + s];
        X(filter_apply)(f->filter, w->x, w->spectra, w->x, inverse, w->work);
    }
    return log_det;
}

PF_KERNEL void X(negate_body)(real *x, ptrdiff_t n)
{
    for (ptrdiff_t i = 0; i < n; i++) x[i] = -x[i];
}
PF_DISPATCH(X(negate), (real * x, ptrdiff_t n), (x, n))

void X(sym_backward)(X(symwork) *w, const X(symflow) *f, double *gtheta, int want_x)
{
    ptrdiff_t m = f->filter_knots, shells = f->filter->shells, per_layer = 3 * f->psi_knots + 2 * m;
    double *gp = w->knots + f->layers * 2 * m;
    if (gtheta) memset(gtheta, 0, (size_t)f->n_theta * sizeof(double));
    X(negate)(w->x, f->pixels); /* d log N(z) / dz */
    for (ptrdiff_t l = f->layers - 1; l >= 0; l--) {
        double *g = gtheta ? gtheta + l * per_layer : NULL, *gt = g ? w->shell : NULL;
        const real *t = w->t + l * w->shells;
        X(psi_vjp)(w->x, g, w->u + l * w->padded, w->psi + l, f->pixels);
        for (ptrdiff_t s = 0; s < shells && g; s++) gt[s] = 0;
        X(filter_vjp)(f->filter, w->x, gt, w->spectra + l * f->filter->fft->spectrum, t, want_x || l, w->work);
        if (!g) continue;
        for (ptrdiff_t s = 0; s < shells; s++) gt[s] = gt[s] * (double)t[s] + f->filter->modes[s]; /* d / d log T */
        for (ptrdiff_t j = 0; j < m; j++) gp[j] = 0;
        g += 3 * f->psi_knots;
        const double *position = w->knots + l * 2 * m;
        pf_cspline_vjp(gp, g + m, gt, f->k, position, position + m, m, shells);
        pf_increasing_vjp(g, gp, position, m);
    }
}

PF_KERNEL void X(affine_body)(real *restrict y, const real *restrict x, real scale, real shift, ptrdiff_t n)
{
    for (ptrdiff_t i = 0; i < n; i++) y[i] = scale * x[i] + shift;
}
PF_DISPATCH(X(affine), (real * y, const real *x, real scale, real shift, ptrdiff_t n), (y, x, scale, shift, n))

void X(sym_load)(X(symwork) *w, const X(symflow) *f, const real *x)
{
    X(affine)(w->x, x, (real)(1 / f->scale), (real)(-f->mean / f->scale), f->pixels);
}

/* Sixteen sums side by side, in double */
PF_KERNEL void X(squares_body)(double *sum, const real *x, ptrdiff_t n)
{
    double part[16] = {0};
    ptrdiff_t i = 0;
    for (; i + 16 <= n; i += 16)
        for (int l = 0; l < 16; l++) part[l] += (double)x[i + l] * (double)x[i + l];
    for (; i < n; i++) part[0] += (double)x[i] * (double)x[i];
    *sum = 0;
    for (int l = 0; l < 16; l++) *sum += part[l];
}
PF_DISPATCH(X(squares), (double *sum, const real *x, ptrdiff_t n), (sum, x, n))

double X(sym_log_normal)(const real *z, ptrdiff_t n)
{
    double sum;
    X(squares)(&sum, z, n);
    return -0.5 * (sum + (double)n * PF_LOG_2PI);
}

double X(sym_logp)(X(symwork) *w, const X(symflow) *f)
{
    double log_det = X(sym_forward)(w, f);
    return X(sym_log_normal)(w->x, f->pixels) + log_det - (double)f->pixels * log(f->scale);
}

/* ---- conditioning: theta(y) = theta + NET_SCALE S net((y - mean) / scale). A pass has up to SYM_ROWS rows;
 * what a row gives does not depend on the others there are.
 *
 * S smooths the positions and the values of log T's knots, each along k, by a Gaussian of SMOOTH times their number.
 * Without it every knot learns noise of its own from the training fields, and log p seems to know more of y than it
 * does: posteriors are too narrow. Knots beyond the ends are mirrored, which makes S symmetric: it serves both ways. */

/* to[m] = line[m], smoothed; line has `reach` more at either end. */
PF_KERNEL void X(smooth_body)(real *restrict to, const real *restrict line, const real *restrict taps, ptrdiff_t reach,
                              ptrdiff_t m)
{
    for (ptrdiff_t j = 0; j < m; j++) to[j] = taps[0] * line[j];
    for (ptrdiff_t t = 1; t <= reach; t++)
        for (ptrdiff_t j = 0; j < m; j++) to[j] += taps[t] * (line[j - t] + line[j + t]);
}
PF_DISPATCH(X(smooth), (real * to, const real *line, const real *taps, ptrdiff_t reach, ptrdiff_t m),
            (to, line, taps, reach, m))

/* theta[rows][n_theta] = S theta; line has room for knots and what is beyond their ends. */
static void X(smooth_filters)(const X(symflow) *f, real *theta, real *line, ptrdiff_t rows)
{
    ptrdiff_t m = f->filter_knots, per_layer = f->n_theta / f->layers;
    line += f->reach;
    for (ptrdiff_t i = 0; i < rows * f->layers * 2; i++) {
        real *knots = theta + i / 2 * per_layer + 3 * f->psi_knots + i % 2 * m;
        memcpy(line, knots, (size_t)m * sizeof(real));
        for (ptrdiff_t t = 0; t < f->reach; t++) {
            line[-1 - t] = knots[t];
            line[m + t] = knots[m - 1 - t];
        }
        X(smooth)(knots, line, f->taps, f->reach, m);
    }
}

/* A pass's memory: inputs and outputs, a line of knots, the network's own */
static ptrdiff_t X(line_at)(const X(symflow) *f) { return round_up(SYM_ROWS * (f->n_y + f->n_theta)); }
static ptrdiff_t X(net_at)(const X(symflow) *f) { return X(line_at)(f) + round_up(f->filter_knots + 2 * f->reach); }

ptrdiff_t X(sym_net_memory)(const X(symflow) *f) { return f->net ? X(net_at)(f) + X(mlp_memory)(f->net, SYM_ROWS) : 0; }

pf_status X(sym_thetas)(const X(symflow) *f, double *theta, real *memory, const double *y, ptrdiff_t rows)
{
    real *in = memory, *out = in + SYM_ROWS * f->n_y;
    for (ptrdiff_t i = 0; i < SYM_ROWS * f->n_y; i++) {
        ptrdiff_t j = i % f->n_y;
        in[i] = i < rows * f->n_y ? (real)((y[i] - f->y_stats[j]) / f->y_stats[f->n_y + j]) : 0;
    }
    PF_TRY(X(mlp_forward)(f->net, out, memory + X(net_at)(f), in, rows));
    X(smooth_filters)(f, out, memory + X(line_at)(f), rows);
    for (ptrdiff_t r = 0; r < rows; r++)
        for (ptrdiff_t j = 0; j < f->n_theta; j++)
            theta[r * f->n_theta + j] = f->theta[j] + NET_SCALE * (double)out[r * f->n_theta + j];
    return PF_OK;
}

pf_status X(sym_thetas_vjp)(const X(symflow) *f, double *gy, real *gw, const double *gtheta, real *memory,
                            ptrdiff_t rows)
{
    real *in = memory, *gout = in + SYM_ROWS * f->n_y;
    real *gin = gy ? PF_ALLOC(real, SYM_ROWS * f->n_y) : NULL;
    if (gy && !gin) return PF_NO_MEMORY;
    for (ptrdiff_t i = 0; i < SYM_ROWS * f->n_theta; i++)
        gout[i] = i < rows * f->n_theta ? (real)(NET_SCALE * gtheta[i]) : 0;
    X(smooth_filters)(f, gout, memory + X(line_at)(f), rows);
    pf_status status = X(mlp_vjp)(f->net, gw, gin, gout, memory + X(net_at)(f), in, rows);
    for (ptrdiff_t i = 0; i < rows * f->n_y && gy && !status; i++)
        gy[i] = (double)gin[i] / f->y_stats[f->n_y + i % f->n_y];
    free(gin);
    return status;
}

/* ---- many fields ------------------------------------------------------------------------------------------ */

typedef struct {
    const X(symflow) *flow;
    task task;
    real *out;
    double *log, *gy;
    const real *in;
    const double *y;
    uint64_t seed, first;
    ptrdiff_t n, m; /* m: conditions in logp_at */
    X(symwork) *works;
    double *theta, *gtheta; /* [SYM_ROWS][n_theta] */
    ptrdiff_t start;        /* of the rows, or conditions, in theta */
} X(job);

static void X(sample_normal)(real *z, uint64_t seed, uint64_t row, ptrdiff_t n)
{
    double part[256];
    for (ptrdiff_t i = 0; i < n; i += 256) {
        ptrdiff_t count = PF_MIN(n - i, 256);
        pf_normals(part, seed, row, (uint64_t)i, count);
        for (ptrdiff_t j = 0; j < count; j++) z[i + j] = (real)part[j];
    }
}

static void X(run_field)(void *arg, ptrdiff_t block, int thread)
{
    X(job) *job = arg;
    const X(symflow) *f = job->flow;
    X(symwork) *w = job->works + thread;
    ptrdiff_t row = job->start + block, n = f->pixels;
    double volume = (double)n * log(f->scale), log_det;
    if (f->net) X(sym_prepare)(w, f, job->theta + block * f->n_theta);
    if (job->task == INVERSE || job->task == SAMPLE) {
        if (job->task == SAMPLE) X(sample_normal)(w->x, job->seed, job->first + (uint64_t)row, n);
        else memcpy(w->x, job->in + row * n, (size_t)n * sizeof(real));
        double log_normal = job->task == SAMPLE ? X(sym_log_normal)(w->x, n) : 0;
        log_det = X(sym_inverse)(w, f) + volume;
        if (job->log) job->log[row] = job->task == SAMPLE ? log_normal - log_det : log_det;
        X(affine)(job->out + row * n, w->x, (real)f->scale, (real)f->mean, n);
        return;
    }
    X(sym_load)(w, f, job->in + row * n);
    log_det = X(sym_forward)(w, f);
    if (job->log) job->log[row] = (job->task == FORWARD ? 0 : X(sym_log_normal)(w->x, n)) + log_det - volume;
    if (job->task == FORWARD) memcpy(job->out + row * n, w->x, (size_t)n * sizeof(real));
    if (job->task == SCORE_Y) X(sym_backward)(w, f, job->gtheta + block * f->n_theta, 0);
    if (job->task == SCORE) {
        X(sym_backward)(w, f, NULL, 1);
        X(affine)(job->out + row * n, w->x, (real)(1 / f->scale), 0, n);
    }
}

/* One condition, all fields: log[n][m] */
static void X(run_condition)(void *arg, ptrdiff_t block, int thread)
{
    X(job) *job = arg;
    const X(symflow) *f = job->flow;
    X(symwork) *w = job->works + thread;
    X(sym_prepare)(w, f, job->theta + block * f->n_theta);
    for (ptrdiff_t i = 0; i < job->n; i++) {
        X(sym_load)(w, f, job->in + i * f->pixels);
        job->log[i * job->m + job->start + block] = X(sym_logp)(w, f);
    }
}

static pf_status X(check)(const X(symflow) *f, const real *x, const double *y, ptrdiff_t n, ptrdiff_t n_y,
                          const char *name)
{
    if (n < 0) return pf_fail(PF_BAD_ARGUMENT, "n: %td is negative", n);
    if (f->n_y && !y)
        return pf_fail(PF_BAD_ARGUMENT, "y: this flow is conditional and needs %td numbers for every field", f->n_y);
    if (!f->n_y && y) return pf_fail(PF_BAD_ARGUMENT, "y: this flow was fitted without");
    for (ptrdiff_t i = 0; i < n_y * f->n_y; i++)
        if (!isfinite(y[i]))
            return pf_fail(PF_BAD_ARGUMENT, "y: row %td, column %td is not finite", i / f->n_y, i % f->n_y);
    for (ptrdiff_t i = 0; i < n && x; i++) {
        double sum;
        X(squares)(&sum, x + i * f->pixels, f->pixels);
        if (!isfinite(sum))
            return pf_fail(PF_BAD_ARGUMENT, "%s: field %td has pixels that are NaN or infinite", name, i);
    }
    return PF_OK;
}

/* Blocks of SYM_ROWS rows (conditions, in logp_at), each with its own parameters; all at once without conditioning. */
static pf_status X(run)(X(job) *job)
{
    const X(symflow) *f = job->flow;
    int at = job->m > 0, keep = job->task == SCORE || job->task == SCORE_Y;
    ptrdiff_t rows = at ? job->m : job->n, block = f->net ? SYM_ROWS : PF_MAX(rows, 1);
    int threads = pf_max_threads(PF_MIN(rows, block));
    real *memory = PF_ALLOC(real, X(sym_net_memory)(f));
    job->theta = PF_ALLOC(double, f->net ? SYM_ROWS * f->n_theta : 0);
    job->gtheta = PF_ALLOC(double, job->task == SCORE_Y ? SYM_ROWS * f->n_theta : 0);
    pf_status status = !memory || !job->theta || !job->gtheta ? PF_NO_MEMORY
                                                              : X(symwork_new)(&job->works, f, keep, threads);
    for (int t = 0; t < threads && !f->net && !status; t++) X(sym_prepare)(job->works + t, f, f->theta);
    for (job->start = 0; job->start < rows && !status; job->start += block) {
        ptrdiff_t count = PF_MIN(block, rows - job->start);
        if (f->net) status = X(sym_thetas)(f, job->theta, memory, job->y + job->start * f->n_y, count);
        if (!status) status = pf_parallel(count, at ? X(run_condition) : X(run_field), job);
        if (!status && job->task == SCORE_Y)
            status = X(sym_thetas_vjp)(f, job->gy + job->start * f->n_y, NULL, job->gtheta, memory, count);
    }
    X(symwork_free)(job->works, threads);
    free(memory);
    free(job->theta);
    free(job->gtheta);
    return status;
}

pf_status X(symflow_forward)(const X(symflow) *flow, real *z, double *logj, const real *x, const double *y, ptrdiff_t n)
{
    pf_begin();
    X(job) job = {.flow = flow, .task = FORWARD, .in = x, .out = z, .log = logj, .y = y, .n = n};
    pf_status status = X(check)(flow, x, y, n, n, "x");
    return pf_end(status ? status : X(run)(&job));
}

pf_status X(symflow_inverse)(const X(symflow) *flow, real *x, double *logj, const real *z, const double *y, ptrdiff_t n)
{
    pf_begin();
    X(job) job = {.flow = flow, .task = INVERSE, .in = z, .out = x, .log = logj, .y = y, .n = n};
    pf_status status = X(check)(flow, z, y, n, n, "z");
    return pf_end(status ? status : X(run)(&job));
}

pf_status X(symflow_logp)(const X(symflow) *flow, double *logp, const real *x, const double *y, ptrdiff_t n)
{
    pf_begin();
    X(job) job = {.flow = flow, .task = LOGP, .in = x, .log = logp, .y = y, .n = n};
    pf_status status = X(check)(flow, x, y, n, n, "x");
    return pf_end(status ? status : X(run)(&job));
}

pf_status X(symflow_logp_at)(const X(symflow) *flow, double *logp, const real *x, const double *y, ptrdiff_t n,
                             ptrdiff_t m)
{
    pf_begin();
    X(job) job = {.flow = flow, .task = LOGP, .in = x, .log = logp, .y = y, .n = n, .m = m};
    pf_status status = flow->n_y ? X(check)(flow, x, y, n, m, "x")
                                 : pf_fail(PF_BAD_ARGUMENT, "y: this flow was fitted without");
    if (!status && m < 0) status = pf_fail(PF_BAD_ARGUMENT, "m: %td is negative", m);
    return pf_end(status || !m ? status : X(run)(&job));
}

pf_status X(symflow_score)(const X(symflow) *flow, real *score, double *logp, const real *x, const double *y,
                           ptrdiff_t n)
{
    pf_begin();
    X(job) job = {.flow = flow, .task = SCORE, .in = x, .out = score, .log = logp, .y = y, .n = n};
    pf_status status = X(check)(flow, x, y, n, n, "x");
    return pf_end(status ? status : X(run)(&job));
}

pf_status X(symflow_score_parameters)(const X(symflow) *flow, double *score, double *logp, const real *x,
                                      const double *y, ptrdiff_t n)
{
    pf_begin();
    X(job) job = {.flow = flow, .task = SCORE_Y, .in = x, .gy = score, .log = logp, .y = y, .n = n};
    pf_status status = flow->n_y ? X(check)(flow, x, y, n, n, "x")
                                 : pf_fail(PF_BAD_ARGUMENT, "y: this flow was fitted without");
    return pf_end(status ? status : X(run)(&job));
}

pf_status X(symflow_sample)(const X(symflow) *flow, real *x, double *logp, const double *y, uint64_t seed,
                            ptrdiff_t first, ptrdiff_t n)
{
    pf_begin();
    X(job) job = {
        .flow = flow, .task = SAMPLE, .out = x, .log = logp, .y = y, .n = n, .seed = seed, .first = (uint64_t)first};
    pf_status status = X(check)(flow, NULL, y, n, n, "x");
    return pf_end(status ? status : X(run)(&job));
}

/* ---- files ------------------------------------------------------------------------------------------------ */

static pf_status X(write)(const X(symflow) *f, void **bytes, size_t *n)
{
    const X(fft) *fft = f->filter->fft;
    const char *note = X(symflow_note)(f);
    ptrdiff_t room = (ptrdiff_t)strlen(note) + 512;
    char mesh[80], *json = PF_ALLOC(char, room);
    if (!json) return PF_NO_MEMORY;
    int at = snprintf(mesh, sizeof mesh, "%td, %td", fft->n[0], fft->n[1]);
    if (fft->ndim == 3) snprintf(mesh + at, sizeof mesh - (size_t)at, ", %td", fft->n[2]);
    snprintf(
        json, (size_t)room,
        "{\"format\": \"pyflow\", \"version\": %d, \"kind\": \"symmetric\", \"dtype\": \"float%d\", \"mesh\": [%s], "
        "\"layers\": %td, \"psi_knots\": %td, \"filter_knots\": %td, \"conditions\": %td, \"note\": %s}",
        PF_FILE_VERSION, REAL_BITS, mesh, f->layers, f->psi_knots, f->filter_knots, f->n_y, *note ? note : "null");
    pf_writer w = {0};
    pf_file_begin(&w, PF_KIND_SYMFLOW, REAL_BITS, json);
    free(json);
    pf_put_int(&w, fft->ndim);
    for (int i = 0; i < fft->ndim; i++) pf_put_int(&w, fft->n[i]);
    pf_put_array(&w, f->filter->box, fft->ndim, sizeof(double));
    pf_put_int(&w, f->layers);
    pf_put_int(&w, f->psi_knots);
    pf_put_int(&w, f->filter_knots);
    pf_put_int(&w, f->n_y);
    pf_put_int(&w, f->noise_condition);
    double numbers[NUMBERS] = {f->mean, f->scale, f->temperature, f->noise[0], f->noise[1]};
    pf_put_array(&w, numbers, NUMBERS, sizeof(double));
    pf_put_int(&w, f->noise_t != NULL);
    if (f->noise_t) pf_put_array(&w, f->noise_t, f->filter->shells, sizeof(real));
    pf_put_array(&w, f->theta, f->n_theta, sizeof(double));
    pf_put_array(&w, f->y_stats, 4 * f->n_y, sizeof(double));
    pf_put_int(&w, f->epochs);
    pf_put_array(&w, f->history, f->epochs * SYM_HISTORY, sizeof(double));
    pf_put_int(&w, f->net ? f->net->layers - 1 : 0);
    for (int l = 1; f->net && l < f->net->layers; l++) pf_put_int(&w, f->net->size[l]);
    if (f->net) pf_put_array(&w, f->net->w, f->net->n_w, sizeof(real));
    pf_put_int(&w, (int64_t)strlen(note));
    pf_put_array(&w, note, (ptrdiff_t)strlen(note), 1);
    pf_put_int(&w, f->n_state);
    if (f->n_state) pf_put_array(&w, f->state, f->n_state, 1);
    pf_file_end(&w);
    if (w.status) free(w.bytes);
    *bytes = w.status ? NULL : w.bytes;
    *n = w.n;
    return w.status;
}

static pf_status X(read)(X(symflow) **flow, const void *bytes, size_t size)
{
    pf_reader r;
    *flow = NULL;
    PF_TRY(pf_file_open(&r, bytes, size, PF_KIND_SYMFLOW, REAL_BITS));
    int ndim = (int)pf_get_int(&r, 2, 3);
    ptrdiff_t n[3], hidden[MLP_LAYERS];
    double box[3] = {0}, numbers[NUMBERS] = {0};
    for (int i = 0; i < ndim; i++) n[i] = pf_get_int(&r, 1, INT32_MAX);
    pf_get_into(&r, box, ndim, sizeof(double));
    ptrdiff_t layers = pf_get_int(&r, 1, 1000), psi_knots = pf_get_int(&r, 2, PSI_MOST);
    ptrdiff_t filter_knots = pf_get_int(&r, 2, 4096), n_y = pf_get_int(&r, 0, 4096);
    int noise_condition = (int)pf_get_int(&r, 0, n_y > 0);
    pf_get_into(&r, numbers, NUMBERS, sizeof(double));
    int coloured = (int)pf_get_int(&r, 0, 1);
    PF_TRY(r.status);
    X(symflow) *f;
    PF_TRY(X(symflow_new)(&f, ndim, n, box, layers, psi_knots, filter_knots, n_y));
    f->mean = numbers[0];
    f->scale = numbers[1];
    f->temperature = numbers[2];
    memcpy(f->noise, numbers + 3, sizeof f->noise);
    f->noise_condition = noise_condition;
    if (coloured) f->noise_t = pf_get_array(&r, f->filter->shells, sizeof(real));
    pf_get_into(&r, f->theta, f->n_theta, sizeof(double));
    pf_get_into(&r, f->y_stats, 4 * n_y, sizeof(double));
    f->epochs = pf_get_int(&r, 0, INT32_MAX);
    f->history = r.status ? NULL : pf_get_array(&r, f->epochs * SYM_HISTORY, sizeof(double));
    int n_hidden = (int)pf_get_int(&r, n_y ? 1 : 0, n_y ? MLP_LAYERS - 1 : 0);
    for (int l = 0; l < n_hidden; l++) hidden[l] = pf_get_int(&r, 1, 1 << 16);
    pf_status status = r.status;
    if (!status && n_hidden) status = X(mlp_new)(&f->net, n_y, hidden, n_hidden, f->n_theta);
    if (!status && f->net) pf_get_into(&r, f->net->w, f->net->n_w, sizeof(real));
    ptrdiff_t length = status ? 0 : pf_get_int(&r, 0, 1 << 30);
    char *note = status || r.status ? NULL : pf_get_array(&r, length, 1);
    f->n_state = status ? 0 : pf_get_int(&r, 0, (int64_t)1 << 40);
    if (f->n_state && !r.status) f->state = pf_get_array(&r, f->n_state, 1);
    if (!status) status = r.status ? r.status : pf_file_close(&r);
    if (!status && length) {
        f->note = PF_CALLOC(char, length + 1);
        if (f->note) memcpy(f->note, note, (size_t)length);
        else status = PF_NO_MEMORY;
    }
    free(note);
    if (!status && !(f->scale > 0)) status = pf_fail(PF_BAD_FILE, "the file is damaged: its contents make no sense");
    if (status) X(symflow_free)(f);
    else *flow = f;
    return status;
}

pf_status X(symflow_write)(const X(symflow) *flow, void **bytes, size_t *n)
{
    pf_begin();
    return pf_end(X(write)(flow, bytes, n));
}

pf_status X(symflow_read)(X(symflow) **flow, const void *bytes, size_t n)
{
    pf_begin();
    return pf_end(X(read)(flow, bytes, n));
}

pf_status X(symflow_save)(const X(symflow) *flow, const char *path)
{
    void *bytes;
    size_t n;
    pf_begin();
    pf_status status = X(write)(flow, &bytes, &n);
    if (!status) {
        status = pf_file_write(path, bytes, n);
        free(bytes);
    }
    return pf_end(status);
}

pf_status X(symflow_load)(X(symflow) **flow, const char *path)
{
    unsigned char *bytes;
    size_t n;
    pf_begin();
    *flow = NULL;
    pf_status status = pf_file_read(&bytes, &n, path);
    if (!status) {
        status = X(read)(flow, bytes, n);
        free(bytes);
    }
    return pf_end(status);
}
#endif
