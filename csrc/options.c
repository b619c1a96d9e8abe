/* Every option of every fit, once: its name, where it lies, its default and its limits. Defaults, checks, Python's
 * arguments and what a checkpoint remembers of a fit are all read from these lists. */
#include "internal.h"

#define MOST_SIZE 9007199254740992.0 /* whole numbers that a double holds */
#define OPEN(x) ((x) * (1 - 1e-15))  /* the largest number below x */

#define AT(type, field) offsetof(type, field)

#define GIS(field) AT(pf_gis_options, field)
const pf_option pf_gis_list[] = {
    {"max_layers", PF_SIZE, GIS(max_layers), 1, MOST_SIZE, {0}, 1},
    {"patience", PF_SIZE, GIS(patience), 1, MOST_SIZE, {100}, 0},
    {"min_improvement", PF_REAL, GIS(min_improvement), 0, INFINITY, {0}, 0},
    {"n_slices", PF_SIZE, GIS(n_slices), 1, MOST_SIZE, {0}, 1},
    {"n_knots", PF_SIZE, GIS(n_knots), 3, 1024, {0}, 1},
    {"kde", PF_FLAG, GIS(kde), 0, 1, {1}, 0},
    {"bandwidth_factor", PF_REAL, GIS(bandwidth_factor), 1e-3, 1e3, {1.2}, 0},
    {"alpha", PF_PAIR, GIS(alpha), 0, OPEN(1.0), {-1, -1}, 1},
    {"edge_knots", PF_SIZE, GIS(edge_knots), 0, MOST_SIZE, {-1}, 1},
    {"slice_points", PF_SIZE, GIS(slice_points), 1, MOST_SIZE, {0}, 1},
    {"slice_steps", PF_SIZE, GIS(slice_steps), 0, MOST_SIZE, {-1}, 1},
    {"marginal_first", PF_FLAG, GIS(marginal_first), 0, 1, {-1}, 1},
    {"whiten", PF_FLAG, GIS(whiten), 0, 1, {1}, 0},
    {"seed", PF_SEED, GIS(seed), 0, 0, {0}, 0},
    {"checkpoint_seconds", PF_REAL, GIS(checkpoint_seconds), 0, INFINITY, {60}, 0},
    {0},
};

#define SIG(field) AT(pf_sig_options, field)
const pf_option pf_sig_list[] = {
    {"max_layers", PF_SIZE, SIG(max_layers), 1, MOST_SIZE, {0}, 1},
    {"n_slices", PF_SIZE, SIG(n_slices), 1, MOST_SIZE, {0}, 1},
    {"n_knots", PF_SIZE, SIG(n_knots), 3, 1024, {0}, 1},
    {"edge_knots", PF_SIZE, SIG(edge_knots), 0, MOST_SIZE, {10}, 0},
    {"alpha", PF_PAIR, SIG(alpha), 0, OPEN(1.0), {0, 0}, 0},
    {"n_sample", PF_SIZE, SIG(sample), 2, MOST_SIZE, {0}, 1},
    {"slice_points", PF_SIZE, SIG(slice_points), 1, MOST_SIZE, {20000}, 0},
    {"slice_steps", PF_SIZE, SIG(slice_steps), 0, MOST_SIZE, {20}, 0},
    {"callback_every", PF_SIZE, SIG(show_every), 1, MOST_SIZE, {10}, 0},
    {"callback_rows", PF_SIZE, SIG(show_rows), 1, MOST_SIZE, {100}, 0},
    {"seed", PF_SEED, SIG(seed), 0, 0, {0}, 0},
    {"checkpoint_seconds", PF_REAL, SIG(checkpoint_seconds), 0, INFINITY, {60}, 0},
    {0},
};

#define TRAIN(field) AT(pf_train_options, field)
const pf_option pf_train_list[] = {
    {"hidden", PF_SIZES, TRAIN(hidden), 1, 1 << 16, {512, 512}, 0},
    {"epochs", PF_SIZE, TRAIN(epochs), 0, MOST_SIZE, {60}, 0},
    {"batch", PF_SIZE, TRAIN(batch), 1, MOST_SIZE, {0}, 1},
    {"patience", PF_SIZE, TRAIN(patience), 0, MOST_SIZE, {0}, 0},
    {"learning_rate", PF_REAL, TRAIN(learning_rate), 0, 1e3, {8e-3}, 0},
    {"warmup", PF_REAL, TRAIN(warmup), 0, OPEN(1.0), {0.05}, 0},
    {"weight_decay", PF_REAL, TRAIN(weight_decay), 0, 1e3, {-1}, 1},
    {"clip", PF_REAL, TRAIN(clip), 0, INFINITY, {3}, 0},
    {"noise", PF_PAIR, TRAIN(noise), 0, 1e30, {0, 0}, 0},
    {"noise_condition", PF_FLAG, TRAIN(noise_condition), 0, 1, {0}, 0},
    {"posterior_weight", PF_REAL, TRAIN(posterior_weight), 0, 1, {0}, 0},
    {"posterior_epochs", PF_SIZE, TRAIN(posterior_epochs), 0, MOST_SIZE, {5}, 0},
    {"posterior_rate", PF_REAL, TRAIN(posterior_rate), 0, 1e3, {2e-4}, 0},
    {"posterior_draws", PF_SIZE, TRAIN(posterior_draws), 10, 65535, {0}, 1},
    {"seed", PF_SEED, TRAIN(seed), 0, 0, {0}, 0},
    {"checkpoint_seconds", PF_REAL, TRAIN(checkpoint_seconds), 0, INFINITY, {60}, 0},
    {0},
};

#define SYMMETRIC(field) AT(pf_symmetric_options, field)
const pf_option pf_symmetric_list[] = {
    {"n_layers", PF_SIZE, SYMMETRIC(n_layers), 1, 1000, {5}, 0},
    {"psi_knots", PF_SIZE, SYMMETRIC(psi_knots), 2, 63, {8}, 0},
    {"filter_knots", PF_SIZE, SYMMETRIC(filter_knots), 2, 4096, {128}, 0},
    {"axis", PF_SIZE, SYMMETRIC(axis), 0, 2, {-1}, 1},
    {"mu_knots", PF_SIZE, SYMMETRIC(mu_knots), 2, 4, {4}, 0},
    {"start_fields", PF_SIZE, SYMMETRIC(start_fields), 1, MOST_SIZE, {64}, 0},
    {"condition_knots", PF_SIZE, SYMMETRIC(context_knots), 2, 64, {8}, 0},
    {"couplings", PF_SIZE, SYMMETRIC(couplings), 0, 1000, {0}, 0},
    {"coupling_channels", PF_SIZE, SYMMETRIC(coupling_channels), 1, 64, {3}, 0},
    {"coupling_knots", PF_SIZE, SYMMETRIC(coupling_knots), 2, 256, {8}, 0},
    {"patch_layers", PF_SIZE, SYMMETRIC(patch_layers), 0, 1000, {0}, 0},
    {"patch_size", PF_SIZE, SYMMETRIC(patch_size), 1, 64, {4}, 0},
    {"patch_slices", PF_SIZE, SYMMETRIC(patch_slices), 1, MOST_SIZE, {0}, 1},
    {"patch_knots", PF_SIZE, SYMMETRIC(patch_knots), 3, 1024, {16}, 0},
    {0},
};

static void set_default(void *options, const pf_option *o)
{
    char *at = (char *)options + o->offset;
    switch (o->kind) {
    case PF_SIZE: *(ptrdiff_t *)at = (ptrdiff_t)o->fallback[0]; break;
    case PF_FLAG: *(int *)at = (int)o->fallback[0]; break;
    case PF_REAL: *(double *)at = o->fallback[0]; break;
    case PF_SEED: *(uint64_t *)at = (uint64_t)o->fallback[0]; break;
    case PF_PAIR: memcpy(at, o->fallback, 2 * sizeof(double)); break;
    case PF_SIZES:
        for (int i = 0; i < 2; i++) ((ptrdiff_t *)at)[i] = (ptrdiff_t)o->fallback[i];
        break;
    }
}

static void set_defaults(void *options, const pf_option *list)
{
    for (; list->name; list++) set_default(options, list);
}

void pf_gis_defaults(pf_gis_options *o)
{
    memset(o, 0, sizeof *o);
    set_defaults(o, pf_gis_list);
}

void pf_sig_defaults(pf_sig_options *o)
{
    memset(o, 0, sizeof *o);
    set_defaults(o, pf_sig_list);
}

void pf_train_defaults(pf_train_options *o)
{
    memset(o, 0, sizeof *o);
    set_defaults(o, pf_train_list);
}

void pf_symmetric_defaults(pf_symmetric_options *o)
{
    memset(o, 0, sizeof *o);
    set_defaults(o, pf_symmetric_list);
    pf_train_defaults(&o->train);
}

/* v, number i of the option, is its default or within the limits. */
static pf_status check_number(const pf_option *o, double v, int i)
{
    if (v >= o->least && v <= o->most) return PF_OK;
    if (o->depends && v == o->fallback[i]) return PF_OK;
    if (v > o->most && o->most >= MOST_SIZE)
        return pf_fail(PF_BAD_ARGUMENT, "%s: must be at most %g, not %g", o->name, o->most, v);
    if (o->most >= MOST_SIZE) return pf_fail(PF_BAD_ARGUMENT, "%s: must be at least %g, not %g", o->name, o->least, v);
    return pf_fail(PF_BAD_ARGUMENT, "%s: must be between %g and %g%s, not %g", o->name, o->least, o->most,
                   o->most == OPEN(1.0) ? " (less than 1)" : "", v);
}

pf_status pf_check_options(const void *options, const pf_option *list)
{
    for (const pf_option *o = list; o->name; o++) {
        const char *at = (const char *)options + o->offset;
        switch (o->kind) {
        case PF_SIZE: PF_TRY(check_number(o, (double)*(const ptrdiff_t *)at, 0)); break;
        case PF_FLAG: PF_TRY(check_number(o, (double)*(const int *)at, 0)); break;
        case PF_REAL: PF_TRY(check_number(o, *(const double *)at, 0)); break;
        case PF_SEED: break;
        case PF_PAIR:
            for (int i = 0; i < 2; i++) PF_TRY(check_number(o, ((const double *)at)[i], i));
            break;
        case PF_SIZES:
            for (int i = 0; i < PF_HIDDEN_MOST && ((const ptrdiff_t *)at)[i]; i++)
                PF_TRY(check_number(o, (double)((const ptrdiff_t *)at)[i], 1));
            break;
        }
    }
    return PF_OK;
}
