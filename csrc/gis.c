/* GIS, Gaussianizing iterative slicing (Dai & Seljak 2021, section 3): layers that carry the data to N(0, I), each
 * along the slices where they are furthest from it, until the validation log-likelihood no longer rises. */
#ifndef real
#include <stdio.h>

#include "working.h"

void pf_gis_defaults(pf_gis_options *o)
{
    *o = (pf_gis_options){
        .patience = 10,
        .kde = 1,
        .bandwidth_factor = 1.2,
        .alpha = {-1, -1},
        .edge_knots = -1,
        .slice_steps = -1,
        .marginal_first = 1,
        .whiten = 1,
        .checkpoint_seconds = 60,
    };
}

enum {
    MOST_COLUMN_LAYERS = 3, /* bounds, then tails twice: what was 1e150 away is 7 away */
    MOST_SLICES = 128,      /* of a layer by default, where rows are few: more do not pay for the time */
    MANY_CLASSES = 16,      /* up to so many labels may have one row each */
    MOST_LAYERS = 2000, /* sliced layers unless max_layers says otherwise: ties in the data could gain without end */
};

#define TWICE "gis.c"
#include "twice.h"
#else

/* ---- the fit ---------------------------------------------------------------------------------------------- */

typedef struct {
    X(model) *model;
    X(working) train, validate;
    int has_validate;
    const pf_gis_options *options;
    X(settings) settings;
    ptrdiff_t best;   /* layers of the best model */
    double best_logp; /* its mean validation log p */
    ptrdiff_t waited; /* layers since */
    double saved;     /* when a checkpoint was last written */
    ptrdiff_t max_layers;
} X(fit);

/* Names the first row whose log p is not finite, if the mean is not. */
static pf_status X(check_finite)(const X(working) *s, double mean, ptrdiff_t layer, const char *name)
{
    double logp[TILE_MOST];
    for (ptrdiff_t t = 0; !isfinite(mean) && t < s->tiles; t++) {
        X(tile) tile = X(working_tile)(s, t);
        X(tile_logp)(logp, &tile, s->d);
        for (ptrdiff_t i = 0, row = t * s->ld; i < tile.n; i++, row++)
            if (!isfinite(logp[i] + s->logj[row]) && !(s->weight && !s->weight[row]))
                return pf_fail(PF_DEGENERATE,
                               "data_%s: row %td is so far out that its log p is not finite after layer %td: leave it "
                               "out",
                               name, row, layer);
    }
    return isfinite(mean) ? PF_OK : pf_fail(PF_DEGENERATE, "data_%s: log p is not finite after layer %td", name, layer);
}

/* Passes a new layer over the data and keeps the record; takes the layer over. */
static pf_status X(fit_add)(X(fit) *f, X(layer) *layer, double distance)
{
    double history[HISTORY] = {NAN, NAN, sqrt(distance)};
    pf_status status = X(working_forward)(&f->train, layer, &history[0]);
    if (!status && f->has_validate) status = X(working_forward)(&f->validate, layer, &history[1]);
    if (!status) status = X(check_finite)(&f->train, history[0], f->model->n_layers, "train");
    if (!status && f->has_validate) status = X(check_finite)(&f->validate, history[1], f->model->n_layers, "validate");
    if (status) {
        X(layer_release)(layer);
        return status;
    }
    return X(model_append)(f->model, layer, history);
}

/* What the last layer did for the validation data, and whether that was enough. */
static int X(fit_judge)(X(fit) *f)
{
    ptrdiff_t n = f->model->n_layers;
    double logp = f->model->history[n - 1][1];
    if (!f->has_validate) {
        f->best = n;
        return 0;
    }
    if (!(f->best > 0) || logp > f->best_logp + f->options->min_improvement) {
        f->best = n, f->best_logp = logp, f->waited = 0;
        return 0;
    }
    return ++f->waited >= f->options->patience;
}

static pf_status X(fit_report)(X(fit) *f)
{
    const pf_gis_options *o = f->options;
    const double *h = f->model->history[f->model->n_layers - 1];
    pf_progress p = {
        .layer = f->model->n_layers, .best = f->best, .logp_train = h[0], .logp_validate = h[1], .distance = h[2]};
    if (o->checkpoint && pf_seconds() - f->saved > o->checkpoint_seconds) {
        PF_TRY(X(model_save)(f->model, o->checkpoint));
        f->saved = pf_seconds();
    }
    if (o->progress && o->progress(o->progress_user, &p)) return pf_fail(PF_INTERRUPTED, "interrupted");
    return pf_check_interrupt();
}

static X(settings) X(fit_settings)(const pf_gis_options *o, ptrdiff_t d, const X(working) *train)
{
    double n = train->n_eff;
    X(settings) s = {.options = o, .n = n, .d = d, .seed = o->seed, .classes = PF_MAX(o->n_classes, 1)};
    s.k = o->n_slices ? o->n_slices : d <= 8 ? d : n / (double)d >= 20 ? 8 : PF_MIN(d, MOST_SLICES);
    s.m = o->n_knots ? o->n_knots : (ptrdiff_t)PF_MIN(PF_MAX(sqrt(n), 50), 200);
    s.slice_points = o->slice_points ? o->slice_points : (ptrdiff_t)(1e5 * log10(PF_MAX((double)d, 10)));
    s.slice_steps = o->slice_steps >= 0 ? o->slice_steps : (ptrdiff_t)PF_MAX(PF_MIN(n / (double)d, 200), 1);
    return s;
}

/* What kinds of layers a model has, in the order in which a fit makes them. */
typedef struct {
    ptrdiff_t columns, marginal, affine, sliced; /* sliced: with slices that were searched */
} X(kinds);

static X(kinds) X(count_kinds)(const X(model) *model)
{
    X(kinds) n = {0};
    for (ptrdiff_t i = 0; i < model->n_layers; i++) {
        const X(layer) *l = model->layers[i];
        if (l->ops == &X(columns_ops)) n.columns++;
        else if (l->ops == &X(affine_ops)) n.affine++;
        else if (X(sliced_slices)(l)) n.sliced++;
        else n.marginal++;
    }
    return n;
}

static pf_status X(fit_first_layers)(X(fit) *f)
{
    X(layer) *layer;
    double distance = NAN;
    const pf_gis_options *o = f->options;
    X(kinds) n = X(count_kinds)(f->model);
    int only_columns = n.columns == f->model->n_layers;
    while (only_columns && n.columns < MOST_COLUMN_LAYERS) {
        if (n.columns++) PF_TRY(X(fit_tails)(&layer, &f->train));
        else PF_TRY(X(fit_columns)(&layer, &f->train, &f->validate, o->bounds));
        if (!layer) break;
        PF_TRY(X(fit_add)(f, layer, NAN));
        X(fit_judge)(f);
    }
    if (only_columns && (o->marginal_first || f->train.d == 1)) {
        PF_TRY(X(fit_marginals)(&layer, &distance, &f->train, &f->settings));
        PF_TRY(X(fit_add)(f, layer, distance));
        X(fit_judge)(f);
        PF_TRY(X(fit_report)(f));
    }
    if (o->whiten && f->train.d > 1 && !n.affine && !n.sliced) {
        PF_TRY(X(fit_whitening)(&layer, &f->train));
        PF_TRY(X(fit_add)(f, layer, NAN));
        X(fit_judge)(f);
        PF_TRY(X(fit_report)(f));
    }
    return PF_OK;
}

/* Goes on from a model: the data pass through it as they did when it was made. */
static pf_status X(fit_again)(X(fit) *f)
{
    X(model) *before = f->model;
    f->model = NULL;
    pf_status status = X(model_new)(&f->model, before->d, before->classes);
    for (ptrdiff_t i = 0; i < before->n_layers && !status; i++) {
        status = X(fit_add)(f, X(layer_share)(before->layers[i]), 0);
        if (status) break;
        f->model->history[i][2] = before->history[i][2];
        X(fit_judge)(f);
    }
    if (!status && before->note) status = X(model_set_note)(f->model, before->note);
    if (status) { /* nothing is lost */
        X(model_free)(f->model);
        f->model = before;
    } else {
        X(model_free)(before);
    }
    return status;
}

static pf_status X(fit_run)(X(fit) *f)
{
    f->saved = pf_seconds();
    if (f->model->n_layers) PF_TRY(X(fit_again)(f));
    if (f->waited >= f->options->patience) return PF_OK;
    PF_TRY(X(fit_first_layers)(f));
    for (ptrdiff_t sliced = X(count_kinds)(f->model).sliced; sliced < f->max_layers; sliced++) {
        X(layer) *layer;
        double distance;
        PF_TRY(X(fit_sliced)(&layer, &distance, &f->train, &f->settings, f->model->n_layers));
        PF_TRY(X(fit_add)(f, layer, distance));
        int enough = X(fit_judge)(f);
        PF_TRY(X(fit_report)(f));
        if (enough) break;
    }
    return PF_OK;
}

/* ---- checks ----------------------------------------------------------------------------------------------- */

static pf_status X(check_options)(const pf_gis_options *o, ptrdiff_t d, int has_validate)
{
    if (d < 1) return pf_fail(PF_BAD_ARGUMENT, "d: there are no columns");
    if (o->max_layers < 0) return pf_fail(PF_BAD_ARGUMENT, "max_layers: %td is negative", o->max_layers);
    if (!o->max_layers && !has_validate)
        return pf_fail(PF_BAD_ARGUMENT, "max_layers: without validation data the number of layers must be given");
    if (o->patience < 1) return pf_fail(PF_BAD_ARGUMENT, "patience: %td is not at least 1", o->patience);
    if (!(o->min_improvement >= 0))
        return pf_fail(PF_BAD_ARGUMENT, "min_improvement: %g is negative", o->min_improvement);
    if (o->n_slices < 0 || o->n_slices > d)
        return pf_fail(PF_BAD_ARGUMENT, "n_slices: %td is not between 1 and the number of columns, %td", o->n_slices,
                       d);
    if (o->n_knots && (o->n_knots < 3 || o->n_knots > FIT_BINS / 2))
        return pf_fail(PF_BAD_ARGUMENT, "n_knots: %td is not between 3 and %d", o->n_knots, FIT_BINS / 2);
    if (!(o->bandwidth_factor >= 1e-3 && o->bandwidth_factor <= 1e3))
        return pf_fail(PF_BAD_ARGUMENT, "bandwidth_factor: %g is not between 0.001 and 1000", o->bandwidth_factor);
    for (int i = 0; i < 2; i++)
        if (!(o->alpha[i] < 1)) return pf_fail(PF_BAD_ARGUMENT, "alpha: %g is not below 1", o->alpha[i]);
    if (o->slice_points < 0) return pf_fail(PF_BAD_ARGUMENT, "slice_points: %td is negative", o->slice_points);
    if (o->n_classes < 0) return pf_fail(PF_BAD_ARGUMENT, "n_classes: %d is negative", o->n_classes);
    for (ptrdiff_t j = 0; o->bounds && j < d; j++)
        if (!(o->bounds[2 * j] < o->bounds[2 * j + 1]))
            return pf_fail(PF_BAD_ARGUMENT, "bounds: of column %td, %g is not below %g", j, o->bounds[2 * j],
                           o->bounds[2 * j + 1]);
    return PF_OK;
}

/* Rows outside bounds are refused, with the row's number. */
static pf_status X(check_bounds)(const X(working) *s, const double *bounds, const char *name)
{
    for (ptrdiff_t i = 0; bounds && i < s->n; i++)
        for (ptrdiff_t j = 0; j < s->d; j++) {
            double x = s->x[(i / s->ld * s->d + j) * s->ld + i % s->ld];
            if (x < (real)bounds[2 * j] || x > (real)bounds[2 * j + 1])
                return pf_fail(PF_BAD_ARGUMENT, "data_%s: row %td, column %td is %g, outside the bounds [%g, %g]", name,
                               i, j, x, bounds[2 * j], bounds[2 * j + 1]);
        }
    return PF_OK;
}

/* A model to go on from keeps the bounds that it has. */
static pf_status X(check_same_bounds)(const X(model) *model, const double *bounds)
{
    const double *own = X(layer_bounds)(model->layers[0]);
    for (ptrdiff_t i = 0; bounds && i < 2 * model->d; i++) {
        double has = own ? own[i] : i % 2 ? INFINITY : -INFINITY;
        if ((real)bounds[i] != (real)has)
            return pf_fail(PF_BAD_ARGUMENT,
                           "bounds: of column %td, the %s one is %g, but %g in the model to go on from, and stays so: "
                           "leave bounds out, or fit without model",
                           i / 2, i % 2 ? "upper" : "lower", bounds[i], has);
    }
    return PF_OK;
}

/* Says what rows in both the training and the validation data mean. */
static pf_status X(fit_overlap)(X(fit) *f)
{
    const pf_gis_options *o = f->options;
    pf_overlap both;
    char text[512];
    PF_TRY(X(overlap_split)(&both, &f->train, &f->validate));
    if (!both.both) return PF_OK;
    if (!both.split && !o->max_layers) f->max_layers = o->patience;
    snprintf(text, sizeof text,
             both.split
                 ? "data_validate: %td of its %td rows are in data_train too, and would gain from every layer without "
                   "end. One in five of them is now left out of data_train, the others out of data_validate; better "
                   "give rows that are not trained on (of a Markov chain, another part of it)"
                 : "data_validate: %td of its %td rows are in data_train too, most of them many times, and would gain "
                   "from every layer without end: the fit stops after %td layers. Columns of few values (integers, "
                   "flags) have no density, unless uniform noise of the values' spacing is added",
             both.both, both.rows, f->max_layers);
    if (o->warn && o->warn(o->progress_user, text)) return pf_fail(PF_INTERRUPTED, "interrupted");
    return PF_OK;
}

static pf_status X(fit_all)(X(fit) *f, const X(data) *train, const X(data) *validate, ptrdiff_t d)
{
    const pf_gis_options *o = f->options;
    const double *bounds = f->model->n_layers ? X(layer_bounds)(f->model->layers[0]) : o->bounds;
    PF_TRY(X(check_options)(o, d, validate != NULL));
    if (f->model->n_layers) PF_TRY(X(check_same_bounds)(f->model, o->bounds));
    else if (o->n_classes > MANY_CLASSES && o->n_classes > train->n / 2)
        return pf_fail(PF_BAD_ARGUMENT,
                       "labels: %d different ones in %td rows leave none to learn a class from; labels are classes of "
                       "many rows each: cut a continuous number into a few ranges, or make it a column of the data",
                       o->n_classes, train->n);
    f->max_layers = o->max_layers ? o->max_layers : MOST_LAYERS;
    PF_TRY(X(working_new)(&f->train, train, d, o->n_classes, o->scratch, "train"));
    PF_TRY(X(check_bounds)(&f->train, bounds, "train"));
    if (validate) {
        PF_TRY(X(working_new)(&f->validate, validate, d, o->n_classes, o->scratch, "validate"));
        PF_TRY(X(check_bounds)(&f->validate, bounds, "validate"));
        PF_TRY(X(fit_overlap)(f));
    }
    if (f->train.rows < 2) return pf_fail(PF_BAD_ARGUMENT, "data_train: one row has no density");
    f->has_validate = validate != NULL;
    f->settings = X(fit_settings)(o, d, &f->train);
    return X(fit_run)(f);
}

pf_status X(gis_fit)(X(model) **model, const X(data) *train, const X(data) *validate, ptrdiff_t d,
                     const pf_gis_options *options)
{
    pf_begin();
    X(fit) f = {.options = options, .best_logp = -INFINITY};
    pf_status status = PF_OK;
    if (*model && ((*model)->d != d || (*model)->classes != options->n_classes))
        return pf_end(pf_fail(PF_BAD_ARGUMENT, "model: it has %td columns and %d classes, the data %td and %d",
                              (*model)->d, (*model)->classes, d, options->n_classes));
    if (*model) status = X(model_copy)(&f.model, *model, (*model)->n_layers);
    else status = X(model_new)(&f.model, d, options->n_classes);
    if (!status && options->note) status = X(model_set_note)(f.model, options->note);
    if (!status) status = X(fit_all)(&f, train, validate, d);
    if (options->checkpoint && status == PF_INTERRUPTED && f.model->n_layers) {
        pf_status saved = X(model_save)(f.model, options->checkpoint);
        status = saved ? saved : pf_fail(PF_INTERRUPTED, "interrupted"); /* saving cleared the message */
    }
    if (!status) X(model_truncate)(f.model, f.best);
    X(working_free)(&f.train);
    X(working_free)(&f.validate);
    if (!status || status == PF_INTERRUPTED) {
        X(model_free)(*model);
        *model = f.model;
    } else {
        X(model_free)(f.model);
    }
    return pf_end(status);
}
#endif
