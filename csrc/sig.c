/* SIG, sliced iterative generator (Dai & Seljak 2021, section 3): a sample of N(0, I) is moved to the data, layer by
 * layer, along the slices where the two differ most. The flow is made of the moves undone, so that each new layer
 * stands before the others: data pass through the last one first. */
#ifndef real
#include "working.h"

enum {
    SAMPLE_PER_ROW = 6,  /* rows of the sample for each row of the data */
    TABLE_LAYERS = 100,  /* of a table, by default */
    COLOUR_LAYERS = 200, /* of a size of patches with all channels, and of one channel each */
    GREY_LAYERS = 100,
    MOST_STAGES = 64,
    SEARCH_STEPS = 20, /* by default */
};

/* The sample is drawn with another key than slices, and than the samples that a user draws with the same seed. */
#define SAMPLE_KEY 0x5349475f73616d70u

/* Number of layers, and which patches with how many slices each, by the size of an image: the whole of it, halves of it
 * while they are not small, then every size down to 2 (Table 5 of the paper). Patches of up to 8 pixels of a colour
 * image come with all channels, then with one. */
ptrdiff_t pf_sig_schedule(pf_sig_stage *stages, const ptrdiff_t *image)
{
    ptrdiff_t n = 0, channels = image[2], side = PF_MIN(image[0], image[1]);
    for (ptrdiff_t size = side; size >= PF_MIN(2, side) && n + 1 < MOST_STAGES;
         size = (size > 13) ? size / 2 : size - 1) {
        int whole = size == side;
        pf_sig_stage s = {.layers = channels > 1 ? COLOUR_LAYERS : GREY_LAYERS,
                          .kernel = {whole ? image[0] : size, whole ? image[1] : size, channels}};
        s.slices = PF_MIN(2 * size, s.kernel[0] * s.kernel[1] * channels);
        stages[n++] = s;
        if (channels == 1 || size > 8) continue;
        s.layers = GREY_LAYERS, s.kernel[2] = 1, s.slices = PF_MIN(size, s.kernel[0] * s.kernel[1]);
        stages[n++] = s;
    }
    return n;
}

/* Whose label row i of a sample of n has: every row's as often, and what is left over is spread over all of them. */
static ptrdiff_t row_of(ptrdiff_t i, ptrdiff_t n, ptrdiff_t rows)
{
    ptrdiff_t left = n % rows, whole = n - left;
    return i < whole ? i % rows : (ptrdiff_t)((double)(i - whole) * (double)rows / (double)left);
}

#define TWICE "sig.c"
#include "twice.h"
#else

typedef struct {
    X(flow) *flow; /* during the fit: the first layers, then the others in the order in which they are fitted */
    X(working) data, sample;
    int32_t *label; /* [sample.n] of the sample */
    const pf_sig_options *options;
    X(settings) settings;
    pf_sig_stage stages[MOST_STAGES];
    ptrdiff_t n_stages, layers; /* of all stages */
    ptrdiff_t first, fitted;    /* layers that are not fitted, and that are */
    double start, saved;
} X(fit);

/* ---- layers ----------------------------------------------------------------------------------------------- */

/* What layer number `number` is of. */
static pf_sig_stage X(stage_of)(const X(fit) *f, ptrdiff_t number)
{
    ptrdiff_t i = 0;
    while (number >= f->stages[i].layers) number -= f->stages[i++].layers;
    return f->stages[i];
}

/* The next layer, fitted; *fitted has memory to free even after a failure. */
static pf_status X(fit_layer)(X(fitted) *fitted, X(fit) *f)
{
    ptrdiff_t number = f->fitted, d = f->data.d, classes = f->settings.classes;
    pf_sig_stage stage = X(stage_of)(f, number);
    int whole = !f->options->image[0] || stage.kernel[0] * stage.kernel[1] * stage.kernel[2] == d;
    X(settings) o = f->settings;
    X(problem) p = {.sides = 2, .d = d, .classes = classes, .k = stage.slices};
    uint64_t stream = ((uint64_t)number + 1) << 32;
    pf_patches patches;
    if (!whole) patches = pf_patches_rolled(f->options->image, stage.kernel, o.seed, stream | 1);
    pf_status status = X(rows_pick)(p.rows, &f->data, o.slice_points, o.seed, stream | 2);
    if (!status) status = X(rows_pick)(p.rows + 1, &f->sample, o.slice_points, o.seed, stream | 3);
    if (!status) status = X(fit_patches)(fitted, whole ? NULL : &patches, &p, &o, stream);
    X(rows_free)(p.rows);
    X(rows_free)(p.rows + 1);
    return status;
}

/* Puts a layer that was fitted before the others, and the sample through it. It needs no tables after that. */
static pf_status X(fit_add)(X(fit) *f, pf_status status, X(fitted) *fitted)
{
    ptrdiff_t l = f->flow->n_layers;
    if (!status) status = pf_ranks_share(f->options->ranks, fitted->theta, fitted->layer->n_theta);
    if (!status) status = X(flow_append)(f->flow, fitted->layer, fitted->theta);
    free(fitted->theta);
    if (!status) status = X(working_inverse)(&f->sample, f->flow, l);
    if (!status) status = X(flow_record)(f->flow, (pf_step){0, NAN, NAN, sqrt(fitted->distance)});
    if (!status) {
        X(flow_drop_tables)(f->flow, l);
        f->fitted++;
    } else {
        X(flow_truncate)(f->flow, l);
    }
    return status;
}

/* ---- the fit ---------------------------------------------------------------------------------------------- */

/* The first rows of the sample, in the units of the data, to whoever watches. */
static pf_status X(fit_show)(X(fit) *f)
{
    const pf_sig_options *o = f->options;
    ptrdiff_t d = f->data.d, ld = f->sample.ld, n = PF_MIN(o->show_rows, f->sample.n);
    if (!o->show || !o->show_every || n < 1) return PF_OK;
    X(workers) w;
    pf_status status = X(workers_new)(&w, f->flow, ld, 1, 0, 1);
    real *x = PF_ALLOC(real, (n + ld) * d);
    if (!x) status = PF_NO_MEMORY;
    for (ptrdiff_t t = 0; t * ld < n && !status; t++) {
        X(tile) from = X(working_tile)(&f->sample, t), tile = X(worker_tile)(&w, w.workers, 0, from.n, COLUMNS);
        double logj[TILE_MOST] = {0}; /* that nobody asks for */
        for (ptrdiff_t j = 0; j < d; j++) memcpy(tile.x + j * tile.ld, from.x + j * ld, (size_t)tile.ld * sizeof(real));
        for (ptrdiff_t l = f->first - 1; l >= 0; l--) {
            const X(layer) *layer = f->flow->layers[l];
            layer->ops->inverse(layer, f->flow->ready[l], &tile, logj, w.workers->work);
        }
        X(tile_store)(x + t * ld * d, &tile);
    }
    X(workers_clear)(&w);
    if (!status && o->show(o->watch.user, f->fitted, x, REAL_BITS, n)) status = pf_fail(PF_INTERRUPTED, "interrupted");
    free(x);
    return status;
}

static pf_status X(fit_save)(X(fit) *f)
{
    X(flow_reverse)(f->flow, f->first);
    pf_status status = X(flow_save)(f->flow, f->options->watch.checkpoint);
    X(flow_reverse)(f->flow, f->first);
    return status;
}

static pf_status X(fit_report)(X(fit) *f)
{
    const pf_sig_options *o = f->options;
    double distance = f->flow->history[f->flow->n_history - 1].distance;
    pf_progress p = {.stage = "layer",
                     .step = f->fitted,
                     .best = f->fitted,
                     .logp_train = NAN,
                     .logp_validate = NAN,
                     .distance = distance,
                     .objective = NAN,
                     .seconds = pf_seconds() - f->start};
    if (o->watch.checkpoint && pf_seconds() - f->saved > o->checkpoint_seconds) {
        pf_status status = X(fit_save)(f);
        if (status) pf_warn(&o->watch, status);
        f->saved = pf_seconds();
    }
    PF_TRY(pf_progressed(&o->watch, &p));
    int last = f->fitted == f->layers;
    if (last || (o->show_every && f->fitted % o->show_every == 0)) PF_TRY(X(fit_show)(f));
    return pf_check_interrupt();
}

/* Layers that bring the data to a size near 1: of an image one scale for all pixels, of a table every column's own. */
static pf_status X(fit_first)(X(fit) *f)
{
    const pf_sig_options *o = f->options;
    ptrdiff_t d = f->data.d;
    double logp;
    if (o->image[0]) {
        double *range = PF_ALLOC(double, 2 * d), least = INFINITY, most = -INFINITY;
        pf_status status = range ? X(working_range)(range, &f->data) : PF_NO_MEMORY;
        for (ptrdiff_t j = 0; j < d && !status; j++)
            least = PF_MIN(least, range[2 * j]), most = PF_MAX(most, range[2 * j + 1]);
        free(range);
        PF_TRY(status);
        if (!(most > least)) return pf_fail(PF_DEGENERATE, "data_train: all pixels of all images are %g", least);
        X(layer) *scale;
        PF_TRY(X(scale_new)(&scale, 0.5 * (least + most), 0.5 * (most - least), d));
        PF_TRY(X(flow_append)(f->flow, scale, NULL));
        return X(working_forward)(&f->data, f->flow, 0, &logp);
    }
    for (ptrdiff_t l = 0; l < MOST_COLUMN_LAYERS; l++) {
        X(working) none = {0};
        X(fitted) fitted = {0};
        PF_TRY(l ? X(fit_tails)(&fitted, &f->data) : X(fit_columns)(&fitted, &f->data, &none, o->bounds));
        if (!fitted.layer) break;
        pf_status status = X(flow_append)(f->flow, fitted.layer, fitted.theta);
        free(fitted.theta);
        if (!status) status = X(working_forward)(&f->data, f->flow, l, &logp);
        PF_TRY(status);
    }
    return PF_OK;
}

/* The sample: rows of N(0, I), of the classes that the data have. */
static pf_status X(fit_sample)(X(fit) *f, ptrdiff_t n)
{
    const pf_sig_options *o = f->options;
    const X(working) *data = &f->data;
    X(working) *sample = &f->sample;
    PF_TRY(X(working_normals)(sample, n, data->d, TILE_MOST, o->seed ^ SAMPLE_KEY, o->scratch, o->ranks));
    if (!data->label) return PF_OK;
    int64_t *all = PF_CALLOC(int64_t, data->all); /* labels of all ranks */
    f->label = PF_ALLOC(int32_t, sample->n);
    pf_status status = all && f->label ? PF_OK : PF_NO_MEMORY;
    for (ptrdiff_t i = 0; i < data->n && !status; i++) all[X(working_row)(data, i)] = data->label[i];
    if (!status) status = pf_ranks_sum(o->ranks, all, data->all);
    for (ptrdiff_t i = 0; i < sample->n && !status; i++)
        f->label[i] = (int32_t)all[row_of(X(working_row)(sample, i), n, data->all)];
    free(all);
    sample->label = f->label;
    return status;
}

/* Data and sample to where they were when the flow to go on from was left. */
static pf_status X(fit_again)(X(fit) *f)
{
    X(flow) *flow = f->flow;
    double logp;
    while (f->first < flow->n_layers && !X(layer_slices)(flow->layers[f->first])) f->first++;
    for (ptrdiff_t l = 0; l < f->first; l++) PF_TRY(X(working_forward)(&f->data, flow, l, &logp));
    X(flow_reverse)(flow, f->first);
    f->fitted = flow->n_layers - f->first;
    for (ptrdiff_t l = f->first; l < flow->n_layers; l++) {
        PF_TRY(X(working_inverse)(&f->sample, flow, l));
        X(flow_drop_tables)(flow, l);
        PF_TRY(pf_check_interrupt());
    }
    return PF_OK;
}

static pf_status X(fit_run)(X(fit) *f)
{
    if (f->flow->n_layers) {
        PF_TRY(X(fit_again)(f));
    } else {
        PF_TRY(X(fit_first)(f));
        f->first = f->flow->n_layers;
        PF_TRY(X(fit_show)(f));
    }
    while (f->fitted < f->layers) {
        X(fitted) fitted = {0};
        PF_TRY(X(fit_add)(f, X(fit_layer)(&fitted, f), &fitted));
        PF_TRY(X(fit_report)(f));
    }
    return PF_OK;
}

/* The flow as it is to be used: the last layer first, with tables. */
static pf_status X(fit_finish)(X(fit) *f)
{
    X(flow_reverse)(f->flow, f->first);
    PF_TRY(X(flow_own_tables)(f->flow));
    real *work = PF_ALLOC(real, X(flow_prepare_work)(f->flow));
    if (!work) return PF_NO_MEMORY;
    X(flow_prepare)(f->flow, work);
    free(work);
    return PF_OK;
}

/* ---- arguments -------------------------------------------------------------------------------------------- */

static pf_status X(check_stages)(X(fit) *f, ptrdiff_t d)
{
    const pf_sig_options *o = f->options;
    const ptrdiff_t *image = o->image;
    int colour = image[0] && image[2] > 1;
    PF_TRY(pf_check_image(image, d));
    if (o->n_slices > d)
        return pf_fail(PF_BAD_ARGUMENT, "n_slices: %td is not between 1 and the number of columns, %td", o->n_slices,
                       d);
    if (o->n_stages > MOST_STAGES)
        return pf_fail(PF_BAD_ARGUMENT, "schedule: has %td entries; %d are the most", o->n_stages, MOST_STAGES);
    if (o->n_stages) memcpy(f->stages, o->stages, (size_t)o->n_stages * sizeof *o->stages);
    f->n_stages = o->n_stages;
    if (!f->n_stages && image[0]) f->n_stages = pf_sig_schedule(f->stages, image);
    if (!f->n_stages) {
        ptrdiff_t k = d <= 8 ? d : PF_MIN(PF_MAX(8, d / 2), 128);
        f->stages[f->n_stages++] = (pf_sig_stage){.layers = TABLE_LAYERS, .slices = o->n_slices ? o->n_slices : k};
    }
    for (ptrdiff_t i = 0; i < f->n_stages; i++) {
        pf_sig_stage *s = f->stages + i;
        ptrdiff_t size = d;
        if (image[0]) {
            if (!s->kernel[0]) memcpy(s->kernel, image, sizeof s->kernel);
            if (s->kernel[0] < 1 || s->kernel[0] > image[0] || s->kernel[1] < 1 || s->kernel[1] > image[1] ||
                (s->kernel[2] != image[2] && !(colour && s->kernel[2] == 1)))
                return pf_fail(PF_BAD_ARGUMENT,
                               "schedule: patches of (%td, %td, %td), entry %td, do not fit an image of (%td, %td, "
                               "%td): their channels are all or 1",
                               s->kernel[0], s->kernel[1], s->kernel[2], i, image[0], image[1], image[2]);
            size = s->kernel[0] * s->kernel[1] * s->kernel[2];
        } else if (s->kernel[0]) {
            return pf_fail(PF_BAD_ARGUMENT, "schedule: patches are of images: give image_shape");
        }
        if (s->layers < 0 || s->slices < 1 || s->slices > size)
            return pf_fail(PF_BAD_ARGUMENT,
                           "schedule: entry %td has %td layers of %td slices; slices are between 1 and %td", i,
                           s->layers, s->slices, size);
        f->layers += s->layers;
    }
    if (o->max_layers) f->layers = PF_MIN(f->layers, o->max_layers);
    return PF_OK;
}

static X(settings) X(fit_settings)(const pf_sig_options *o, const X(working) *data)
{
    double n = data->n_eff, own = n / PF_MAX(o->n_classes, 1); /* rows of a class */
    X(settings) s = {.n = n, .d = data->d, .seed = o->seed, .classes = PF_MAX(o->n_classes, 1)};
    double knots = PF_MIN(PF_MAX(PF_MIN(200 * sqrt(n / 60000), 200), 50), PF_MAX(own / 4, 10));
    s.m = o->n_knots ? o->n_knots : (ptrdiff_t)knots;
    s.match = (pf_knots){.m = s.m, .edge = PF_MIN(o->edge_knots, (s.m - 2) / 2), .alpha = {o->alpha[0], o->alpha[1]}};
    /* no nearer to each other than rows are */
    while (s.match.edge && (double)((s.match.edge + 1) * (s.m - 2 * s.match.edge + 1)) > own) s.match.edge--;
    s.slice_points = o->slice_points;
    s.slice_steps = o->slice_steps;
    if (o->slice_steps > SEARCH_STEPS) s.tolerance = SEARCH_TOLERANCE_LONG;
    return s;
}

static pf_status X(fit_all)(X(fit) *f, const X(data) *train, ptrdiff_t d)
{
    const pf_sig_options *o = f->options;
    const double *bounds;
    PF_TRY(pf_check_options(o, pf_sig_list));
    PF_TRY(X(check_stages)(f, d));
    PF_TRY(X(bounds_of)(&bounds, f->flow, o->bounds));
    if (!f->flow->n_layers) PF_TRY(pf_check_classes(o->n_classes, pf_ranks_rows(o->ranks, train->n, 0)));
    PF_TRY(X(working_new)(&f->data, train, d, TILE_MOST, o->n_classes, o->scratch, o->ranks, "train"));
    PF_TRY(X(working_within)(&f->data, bounds, "train"));
    if (f->data.rows < 2) return pf_fail(PF_BAD_ARGUMENT, "data_train: one row has no density");
    PF_TRY(X(fit_sample)(f, o->sample ? o->sample : SAMPLE_PER_ROW * f->data.all));
    f->settings = X(fit_settings)(o, &f->data);
    return X(fit_run)(f);
}

static pf_status X(sig)(X(flow) **flow, const X(data) *train, ptrdiff_t d, const pf_sig_options *o)
{
    X(fit) f = {.options = o, .start = pf_seconds()};
    const X(flow) *before = *flow;
    pf_space space = {.ndim = 1, .n = {d}, .d = d};
    if (d < 1) return pf_fail(PF_BAD_ARGUMENT, "data_train: there are no columns");
    if (before && before->space.ndim != 1) return pf_fail(PF_BAD_ARGUMENT, "model: it is of fields on a mesh");
    if (before) PF_TRY(X(check_model)(before, d, o->n_classes, &X(scale_ops), "SIG"));
    if (before) PF_TRY(X(flow_duplicate)(&f.flow, before, before->n_layers));
    else PF_TRY(X(flow_create)(&f.flow, &space, o->n_classes));
    f.saved = f.start;
    pf_status status = o->watch.note ? X(flow_set_note)(f.flow, o->watch.note) : PF_OK;
    if (!status) status = X(fit_all)(&f, train, d);
    X(working_free)(&f.data);
    X(working_free)(&f.sample);
    free(f.label);
    int early = status == PF_INTERRUPTED || status == PF_NO_MEMORY || status == PF_IO_ERROR;
    int reached = f.fitted > 0 && f.flow->n_layers == f.first + f.fitted;
    if (o->watch.checkpoint && early && reached) {
        pf_status saved = X(fit_save)(&f);
        status = saved ? saved : pf_fail(status, "the fit ended early");
    }
    if (!status || (early && reached)) {
        pf_status finished = X(fit_finish)(&f);
        if (!finished) {
            X(flow_free)(*flow);
            *flow = f.flow;
            return status;
        }
        status = finished;
    }
    X(flow_free)(f.flow);
    return status;
}

pf_status X(sig_fit)(X(flow) **flow, const X(data) *train, ptrdiff_t d, const pf_sig_options *options)
{
    pf_begin();
    return pf_end(X(sig)(flow, train, d, options));
}
#endif
