/* GIS, Gaussianizing iterative slicing (Dai & Seljak 2021, section 3): layers that carry the data to N(0, I), each
 * along the slices where they are furthest from it, until the validation log-likelihood no longer rises.
 *
 * What carries the training rows to N(0, I) carries others somewhat beyond: the more layers were fitted to few rows,
 * the larger their latents are. So the last layer divides by the root mean square of the validation rows' latents, and
 * samples become as wide as data. */
#ifndef real
#include <stdio.h>

#include "working.h"

enum {
    FEW_LAYERS = 10,    /* where validation rows are training rows, most of them many times */
    MOST_SLICES = 128,  /* of a layer by default, where rows are few: more do not pay for the time */
    RACE_LAYERS = 40,   /* sliced layers until two ways to begin are compared, */
    KNOWN_BY = 4,       /* training rows for every column, without which a covariance is hardly known, */
    RACE_ROWS = 50000,  /* of no more rows than this */
    MOST_SHARED = 512,  /* columns of a table that ranks share: of more, MOST_GROUPS covariances take too much memory */
    MOST_LAYERS = 4000, /* sliced layers unless max_layers says otherwise: ties in the data could gain without end */
};

#define RACE_LEAD 0.1    /* nats by which the second has to be better, */
#define RACE_ERRORS 2    /* and standard errors */
#define LATENT_REACH 3   /* sqrt(d): a few rows far out do not say how large the others' latents are */
#define LATENT_WIDTH 0.1 /* of the logarithm of their size, before validation rows tell */

#define TWICE "gis.c"
#include "twice.h"
#else

/* ---- the fit ---------------------------------------------------------------------------------------------- */

typedef struct {
    X(flow) *flow;
    X(working) train, validate;
    int has_validate;
    const pf_gis_options *options;
    X(settings) settings;
    ptrdiff_t best, waited; /* layers of the best flow, and since */
    double best_logp;       /* its mean validation log p, */
    double length[2];       /* and mean |z|^2 / d of the training rows and of the validation rows; */
    double size, error;     /* that one with LATENT_REACH, its error */
    double start, saved;    /* when the fit began, when a checkpoint was last written */
    ptrdiff_t max_layers;
    double *row_logp; /* [validate.all] of the best, zeros for other ranks' rows, or NULL */
    int whiten_first; /* before the marginals */
    int racing;       /* a fit of RACE_LAYERS at most, to see how it begins */
} X(fit);

/* Names the first row whose log p is not finite, if the mean is not. */
static pf_status X(check_finite)(const X(working) *s, double mean, ptrdiff_t layer, const char *name)
{
    double logp[TILE_MOST];
    for (ptrdiff_t t = 0; !isfinite(mean) && t < s->tiles; t++) {
        X(tile) tile = X(working_tile)(s, t);
        X(tile_logp)(logp, &tile);
        for (ptrdiff_t i = 0, row = t * s->ld; i < tile.n; i++, row++)
            if (!isfinite(logp[i] + s->logj[row]) && !(s->weight && !s->weight[row]))
                return pf_fail(PF_DEGENERATE,
                               "data_%s: row %td is so far out that its log p is not finite after layer %td: leave it "
                               "out",
                               name, X(working_row)(s, row), layer);
    }
    return isfinite(mean) ? PF_OK : pf_fail(PF_DEGENERATE, "data_%s: log p is not finite after layer %td", name, layer);
}

/* Passes the data through the flow's layer l and keeps the record. */
static pf_status X(fit_pass)(X(fit) *f, ptrdiff_t l, double distance)
{
    pf_step step = {0, NAN, NAN, distance};
    PF_TRY(X(working_forward)(&f->train, f->flow, l, &step.logp_train));
    if (f->has_validate) PF_TRY(X(working_forward)(&f->validate, f->flow, l, &step.logp_validate));
    PF_TRY(X(check_finite)(&f->train, step.logp_train, l, "train"));
    if (f->has_validate) PF_TRY(X(check_finite)(&f->validate, step.logp_validate, l, "validate"));
    return X(flow_record)(f->flow, step);
}

/* Appends a layer, unless it could not be fitted; takes it over. */
static pf_status X(fit_add)(X(fit) *f, pf_status status, X(fitted) *fitted)
{
    ptrdiff_t l = f->flow->n_layers;
    if (!status && fitted->theta) status = pf_ranks_share(f->options->ranks, fitted->theta, fitted->layer->n_theta);
    if (!status) status = X(flow_append)(f->flow, fitted->layer, fitted->theta);
    free(fitted->theta);
    if (status) return status;
    status = X(fit_pass)(f, l, sqrt(fitted->distance));
    if (status) X(flow_truncate)(f->flow, l);
    return status;
}

/* logp[all] of the rows here */
static void X(rows_logp)(double *logp, const X(working) *s)
{
    for (ptrdiff_t t = 0; t < s->tiles; t++) {
        X(tile) tile = X(working_tile)(s, t);
        double z[TILE_MOST];
        X(tile_logp)(z, &tile);
        double *own = logp + X(working_row)(s, t * s->ld);
        for (ptrdiff_t i = 0; i < tile.n; i++) own[i] = z[i] + s->logj[t * s->ld + i];
    }
}

/* What the last layer did for the validation data, and whether that was enough. */
static pf_status X(fit_judge)(X(fit) *f, int *enough)
{
    ptrdiff_t n = f->flow->n_history;
    double logp = f->flow->history[n - 1].logp_validate;
    int better = !f->has_validate || !(f->best > 0) || logp > f->best_logp + f->options->min_improvement;
    f->waited = better ? 0 : f->waited + 1;
    *enough = !better && f->waited >= f->options->patience;
    if (better) f->best = n, f->best_logp = logp;
    if (!better || !f->has_validate) return PF_OK;
    if (f->row_logp) X(rows_logp)(f->row_logp, &f->validate);
    f->length[0] = f->train.length, f->length[1] = f->validate.length;
    return X(working_length)(&f->size, &f->error, &f->validate, LATENT_REACH);
}

/* Tells whoever watches, and writes the checkpoint. That it cannot be written does not end a fit. */
static pf_status X(fit_report)(X(fit) *f)
{
    const pf_gis_options *o = f->options;
    const pf_step *h = f->flow->history + f->flow->n_history - 1;
    pf_progress p = {.stage = "layer",
                     .step = f->flow->n_layers,
                     .best = f->best,
                     .logp_train = h->logp_train,
                     .logp_validate = h->logp_validate,
                     .distance = h->distance,
                     .objective = f->has_validate ? h->logp_validate : h->logp_train,
                     .seconds = pf_seconds() - f->start};
    if (o->watch.checkpoint && pf_seconds() - f->saved > o->checkpoint_seconds) {
        pf_status status = X(flow_save)(f->flow, o->watch.checkpoint);
        if (status) pf_warn(&o->watch, status);
        f->saved = pf_seconds();
    }
    PF_TRY(pf_progressed(&o->watch, &p));
    return pf_check_interrupt();
}

/* Slices of a layer by default: of d columns, or of a patch of so many pixels */
static ptrdiff_t X(slices_of)(const pf_gis_options *o, double n, ptrdiff_t d)
{
    if (o->n_slices) return PF_MIN(o->n_slices, d);
    return d <= 8 ? d : n / (double)d >= 20 ? 8 : PF_MIN(d, MOST_SLICES);
}

/* Steps of the search for them. The many small searches of patches gain nothing from more than a few. */
static ptrdiff_t X(steps_of)(const pf_gis_options *o, double n, ptrdiff_t d)
{
    double most = o->image[0] ? 20 : 200;
    return o->slice_steps >= 0 ? o->slice_steps : (ptrdiff_t)PF_MAX(PF_MIN(n / (double)d, most), 1);
}

static X(settings) X(fit_settings)(const pf_gis_options *o, ptrdiff_t d, const X(working) *train)
{
    double n = train->n_eff;
    X(settings) s = {.options = o, .n = n, .d = d, .seed = o->seed, .classes = PF_MAX(o->n_classes, 1)};
    s.k = X(slices_of)(o, n, d);
    s.m = o->n_knots ? o->n_knots : (ptrdiff_t)PF_MIN(PF_MAX(sqrt(n), 50), 200);
    s.slice_points = o->slice_points ? o->slice_points : (ptrdiff_t)(1e5 * log10(PF_MAX((double)d, 10)));
    s.slice_steps = X(steps_of)(o, n, d);
    return s;
}

/* What kinds of layers a flow has, in the order in which a fit makes them. */
typedef struct {
    ptrdiff_t columns, marginal, affine, sliced; /* sliced: with slices that were searched */
} X(kinds);

static X(kinds) X(count_kinds)(const X(flow) *flow)
{
    X(kinds) n = {0};
    for (ptrdiff_t i = 0; i < flow->n_layers; i++) {
        const X(layer) *l = flow->layers[i];
        if (l->ops == &X(columns_ops)) n.columns++;
        else if (l->ops == &X(affine_ops)) n.affine++;
        else if (l->ops == &X(sliced_ops) &&X(sliced_identity)(l)) n.marginal++;
        else n.sliced++;
    }
    return n;
}

static pf_status X(fit_first_layers)(X(fit) *f)
{
    const pf_gis_options *o = f->options;
    X(kinds) n = X(count_kinds)(f->flow);
    int only_columns = n.columns == f->flow->n_layers, enough;
    while (only_columns && n.columns < MOST_COLUMN_LAYERS) {
        X(fitted) fitted = {.distance = NAN};
        pf_status status = n.columns++ ? X(fit_tails)(&fitted, &f->train)
                                       : X(fit_columns)(&fitted, &f->train, &f->validate, o->bounds);
        if (!status && !fitted.layer) break;
        PF_TRY(X(fit_add)(f, status, &fitted));
        PF_TRY(X(fit_judge)(f, &enough));
    }
    int whiten = o->whiten && f->train.d > 1 && !n.affine && !n.sliced;
    int marginals = only_columns && (o->marginal_first || f->train.d == 1);
    /* a fit that whitened first, and ended early */
    marginals |= o->marginal_first < 0 && n.columns && n.affine == 1 && n.columns + 1 == f->flow->n_layers;
    if (only_columns && whiten && f->whiten_first) {
        X(fitted) fitted = {.distance = NAN};
        PF_TRY(X(fit_add)(f, X(fit_whitening)(&fitted, &f->train, &f->validate), &fitted));
        PF_TRY(X(fit_judge)(f, &enough));
        whiten = 0;
    }
    if (marginals) {
        X(fitted) fitted = {0};
        PF_TRY(X(fit_add)(f, X(fit_marginals)(&fitted, &f->train, &f->settings), &fitted));
        PF_TRY(X(fit_judge)(f, &enough));
        PF_TRY(X(fit_report)(f));
    }
    if (whiten) {
        X(fitted) fitted = {.distance = NAN};
        PF_TRY(X(fit_add)(f, X(fit_whitening)(&fitted, &f->train, NULL), &fitted));
        PF_TRY(X(fit_judge)(f, &enough));
        PF_TRY(X(fit_report)(f));
    }
    return PF_OK;
}

/* The data pass through the flow that the fit goes on from as they did when it was made. */
static pf_status X(fit_again)(X(fit) *f)
{
    X(flow) *flow = f->flow;
    ptrdiff_t known = flow->n_history;
    double *distance = PF_ALLOC(double, flow->n_layers);
    if (!distance) return PF_NO_MEMORY;
    for (ptrdiff_t i = 0; i < flow->n_layers; i++)
        distance[i] = i < known && flow->history[i].epoch == 0 ? flow->history[i].distance : NAN;
    flow->n_history = 0;
    pf_status status = PF_OK;
    int enough;
    for (ptrdiff_t i = 0; i < flow->n_layers && !status; i++) {
        status = X(fit_pass)(f, i, distance[i]);
        if (!status) status = X(fit_judge)(f, &enough);
    }
    free(distance);
    return status;
}

/* Layer number `sliced` of those with slices. Of an image, patches. */
static pf_status X(fit_layer)(X(fitted) *fitted, X(fit) *f, ptrdiff_t sliced)
{
    const pf_gis_options *o = f->options;
    X(settings) own = f->settings;
    uint64_t number = (uint64_t)f->flow->n_layers + 1, stream = number;
    pf_patches patches;
    int cut = o->image[0] != 0;
    if (cut) {
        ptrdiff_t most = sliced % 2 ? 2 : 4,
                  kernel[3] = {PF_MIN(most, o->image[0]), PF_MIN(most, o->image[1]), o->image[2]};
        stream = number << 32;
        patches = pf_patches_rolled(o->image, kernel, o->seed, stream | 1);
        own.d = pf_patches_size(&patches);
        own.k = X(slices_of)(o, own.n, own.d);
        own.slice_steps = X(steps_of)(o, own.n, own.d);
    }
    X(problem) p = {.sides = 1, .d = own.d, .k = own.k, .classes = own.classes};
    pf_status status = X(rows_pick)(p.rows, &f->train, own.slice_points, o->seed, number << 32);
    if (!status) status = X(fit_patches)(fitted, cut ? &patches : NULL, &p, &own, stream);
    X(rows_free)(p.rows);
    return status;
}

static pf_status X(fit_run)(X(fit) *f)
{
    if (f->flow->n_layers) PF_TRY(X(fit_again)(f));
    PF_TRY(X(fit_first_layers)(f));
    ptrdiff_t sliced = X(count_kinds)(f->flow).sliced;
    if (sliced && f->waited >= f->options->patience) return PF_OK; /* the fit had ended */
    for (; sliced < f->max_layers; sliced++) {
        X(fitted) fitted = {0};
        int enough;
        PF_TRY(X(fit_add)(f, X(fit_layer)(&fitted, f, sliced), &fitted));
        PF_TRY(X(fit_judge)(f, &enough));
        PF_TRY(X(fit_report)(f));
        if (enough) break;
    }
    return PF_OK;
}

/* The best flow, and what its latents are divided by: exp(l), l = log(mean |z|^2 / d) / 2 of the validation rows, each
 * of them no longer than LATENT_REACH, shrunk to 0 where few rows say so. Between 1 and their root mean square, so
 * their log p does not fall. */
static pf_status X(fit_end)(X(fit) *f)
{
    X(layer) *layer;
    double d = (double)f->train.d, l = 0.5 * log(f->size), error = 0.5 * f->error / f->size, none;
    X(flow_truncate)(f->flow, f->best);
    f->flow->n_history = f->best;
    if (l < 0) l = PF_MIN(0.5 * log(f->length[1]), 0);
    if (!f->has_validate || !isfinite(l) || l == 0) return PF_OK;
    l = pf_shrunk(l, error, LATENT_WIDTH);
    if (!isnormal((real)exp(l)) || l == 0) return PF_OK;
    pf_step step = f->flow->history[f->best - 1];
    double by = 0.5 * d * (1 - exp(-2 * l));
    step.logp_train += by * f->length[0] - d * l;
    step.logp_validate += by * f->length[1] - d * l;
    step.distance = NAN;
    PF_TRY(X(scale_new)(&layer, 0, exp(l), f->train.d));
    PF_TRY(X(flow_append)(f->flow, layer, &none));
    pf_status status = X(flow_record)(f->flow, step);
    if (status) X(flow_truncate)(f->flow, f->best);
    return status;
}

/* ---- checks ----------------------------------------------------------------------------------------------- */

static pf_status X(check_options)(const pf_gis_options *o, ptrdiff_t d, int has_validate)
{
    if (d < 1) return pf_fail(PF_BAD_ARGUMENT, "data_train: there are no columns");
    PF_TRY(pf_check_options(o, pf_gis_list));
    if (!o->max_layers && !has_validate)
        return pf_fail(PF_BAD_ARGUMENT, "max_layers: without validation data the number of layers must be given");
    if (o->n_slices > d)
        return pf_fail(PF_BAD_ARGUMENT, "n_slices: %td is not between 1 and the number of columns, %td", o->n_slices,
                       d);
    if (o->ranks && !o->image[0] && d > MOST_SHARED)
        return pf_fail(PF_BAD_ARGUMENT, "data_train: ranks share tables of at most %d columns", MOST_SHARED);
    return pf_check_image(o->image, d);
}

/* Says what rows in both the training and the validation data mean. */
static pf_status X(fit_overlap)(X(fit) *f)
{
    const pf_gis_options *o = f->options;
    pf_overlap both;
    char text[512];
    PF_TRY(X(overlap_split)(&both, &f->train, &f->validate));
    if (!both.both) return PF_OK;
    if (!both.split && !o->max_layers) f->max_layers = PF_MIN(o->patience, FEW_LAYERS);
    snprintf(text, sizeof text,
             both.split
                 ? "data_validate: %td of its %td rows are in data_train too, and would gain from every layer without "
                   "end. One in five of them is now left out of data_train, the others out of data_validate; better "
                   "give rows that are not trained on (of a Markov chain, another part of it)"
                 : "data_validate: %td of its %td rows are in data_train too, most of them many times, and would gain "
                   "from every layer without end: the fit stops after %td layers. Columns of few values (integers, "
                   "flags) have no density, unless uniform noise of the values' spacing is added",
             both.both, both.rows, f->max_layers);
    if (o->watch.warn) o->watch.warn(o->watch.user, PF_BAD_ARGUMENT, text);
    return pf_check_interrupt();
}

static pf_status X(fit_all)(X(fit) *f, const X(data) *train, const X(data) *validate, ptrdiff_t d)
{
    const pf_gis_options *o = f->options;
    const double *bounds;
    PF_TRY(X(check_options)(o, d, validate != NULL));
    PF_TRY(X(bounds_of)(&bounds, f->flow, o->bounds));
    if (!f->flow->n_layers) PF_TRY(pf_check_classes(o->n_classes, pf_ranks_rows(o->ranks, train->n, 0)));
    f->max_layers = o->max_layers ? o->max_layers : MOST_LAYERS;
    ptrdiff_t ld = o->image[0] ? TILE_MOST : X(tile_rows)(d);
    PF_TRY(X(working_new)(&f->train, train, d, ld, o->n_classes, o->scratch, o->ranks, "train"));
    PF_TRY(X(working_within)(&f->train, bounds, "train"));
    if (validate) {
        PF_TRY(X(working_new)(&f->validate, validate, d, ld, o->n_classes, o->scratch, o->ranks, "validate"));
        PF_TRY(X(working_within)(&f->validate, bounds, "validate"));
        PF_TRY(X(fit_overlap)(f));
    }
    if (f->train.rows < 2) return pf_fail(PF_BAD_ARGUMENT, "data_train: one row has no density");
    f->has_validate = validate != NULL;
    f->settings = X(fit_settings)(o, d, &f->train);
    if (f->racing) f->max_layers = PF_MIN(f->max_layers, RACE_LAYERS);
    PF_TRY(X(fit_run)(f));
    return X(fit_end)(f);
}

/* Whether validation rows are to say how the fit begins. A flow of columns is one that ended early, or was cut. */
static int X(undecided)(const X(flow) *flow, const X(data) *train, const X(data) *validate, const pf_gis_options *o)
{
    int free = o->whiten && o->marginal_first < 0 && flow->space.d > 1 && !o->image[0] && validate;
    ptrdiff_t n = pf_ranks_rows(o->ranks, train->n, 0), others = free ? pf_ranks_rows(o->ranks, validate->n, 1) : 0;
    return free && n >= KNOWN_BY * flow->space.d && PF_MAX(n, others) <= RACE_ROWS &&
           X(count_kinds)(flow).columns == flow->n_layers;
}

/* Whether rows have a larger log p in a than in b, by RACE_LEAD and by RACE_ERRORS standard errors of the difference;
 * given[all] are their weights, or NULL */
static int X(is_ahead)(const double *a, const double *b, const int64_t *given, const X(working) *s)
{
    double weight = 0, lead = 0, square = 0;
    for (ptrdiff_t i = 0; i < s->all; i++) {
        double w = given ? (double)given[i] : 1;
        if (!(w > 0)) continue;
        weight += w;
        lead += w * (a[i] - b[i]);
        square += w * (a[i] - b[i]) * (a[i] - b[i]);
    }
    lead /= weight;
    return lead > RACE_LEAD && lead > RACE_ERRORS * sqrt(PF_MAX(square / weight - lead * lead, 0) / s->n_eff);
}

/* Two ways to begin: marginals, then whitening with caution; or whitening as it suits the rows, which marginals have
 * not bent yet, then marginals. Which has the larger validation log p after some layers? */
static pf_status X(race)(int *whiten_first, const X(flow) *from, const X(data) *train, const X(data) *validate,
                         const pf_gis_options *o)
{
    pf_gis_options quiet = *o;
    ptrdiff_t n = pf_ranks_rows(o->ranks, validate->n, 1);
    double *logp = PF_CALLOC(double, 2 * n);
    pf_status status = logp ? PF_OK : PF_NO_MEMORY;
    quiet.watch = (pf_watch){0};
    for (int i = 0; i < 2 && !status; i++) {
        X(fit) f = {.options = &quiet, .best_logp = -INFINITY, .whiten_first = i, .racing = 1};
        f.row_logp = logp + i * n;
        status = X(flow_duplicate)(&f.flow, from, from->n_layers);
        if (!status) status = X(fit_all)(&f, train, validate, from->space.d);
        const X(working) *s = &f.validate;
        const void *weight = NULL;
        void *memory = NULL;
        if (!status && i && s->weight) status = X(working_gather)(&weight, &memory, s, s->weight);
        if (!status && i) status = pf_ranks_sum(o->ranks, logp, 2 * n);
        if (!status && i) *whiten_first = X(is_ahead)(f.row_logp, logp, weight, s);
        free(memory);
        X(working_free)(&f.train);
        X(working_free)(&f.validate);
        X(flow_free)(f.flow);
    }
    free(logp);
    return status;
}

/* Whether a fit may have ended with its last layer: one that goes on is to do that anew */
static int X(ends_with_scale)(const X(flow) *f)
{
    return f->n_layers > 1 && X(scale_centred)(f->layers[f->n_layers - 1]);
}

static pf_status X(gis)(X(flow) **flow, const X(data) *train, const X(data) *validate, ptrdiff_t d,
                        const pf_gis_options *o)
{
    X(fit) f = {.options = o, .best_logp = -INFINITY, .start = pf_seconds()};
    const X(flow) *before = *flow;
    pf_space space = {.ndim = 1, .n = {d}, .d = d};
    if (d < 1) return pf_fail(PF_BAD_ARGUMENT, "data_train: there are no columns");
    if (before) PF_TRY(X(flow_duplicate)(&f.flow, before, before->n_layers - X(ends_with_scale)(before)));
    else PF_TRY(X(flow_create)(&f.flow, &space, o->n_classes));
    f.saved = f.start;
    pf_status status = before ? X(check_model)(f.flow, d, o->n_classes, &X(affine_ops), "GIS") : PF_OK;
    if (!status && o->watch.note) status = X(flow_set_note)(f.flow, o->watch.note);
    if (!status && X(undecided)(f.flow, train, validate, o))
        status = X(race)(&f.whiten_first, f.flow, train, validate, o);
    if (!status) status = X(fit_all)(&f, train, validate, d);
    X(working_free)(&f.train);
    X(working_free)(&f.validate);
    int early = status == PF_INTERRUPTED || status == PF_NO_MEMORY || status == PF_IO_ERROR;
    int reached = f.flow->n_layers > 0 && f.flow->n_history == f.flow->n_layers;
    if (o->watch.checkpoint && early && reached) {
        pf_status saved = X(flow_save)(f.flow, o->watch.checkpoint);
        status = saved ? saved : pf_fail(status, "the fit ended early"); /* saving cleared the message */
    }
    if (!status || (early && reached)) {
        X(flow_free)(*flow);
        *flow = f.flow;
    } else {
        X(flow_free)(f.flow);
    }
    return status;
}

pf_status X(gis_fit)(X(flow) **flow, const X(data) *train, const X(data) *validate, ptrdiff_t d,
                     const pf_gis_options *options)
{
    pf_begin();
    return pf_end(X(gis)(flow, train, validate, d, options));
}
#endif
